"""Images, tables, identities and captions: what is read and how it is sampled. No network and no training."""
