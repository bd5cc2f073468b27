"""CCLNet (Chen et al., ACM MM 2023): unsupervised, by clusters, text prototypes and swapped memories."""
