"""Images, tables, identities and captions: reading and sampling. No network and no training."""
