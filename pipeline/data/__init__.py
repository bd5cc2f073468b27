"""Images and how they are stored, changed and drawn into batches; true identities stay in `truth`."""
