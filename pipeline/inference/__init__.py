"""A trained model put to use: embed, index, search, export, serve, label a feature file. Trains nothing."""
