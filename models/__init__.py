"""Networks and losses: tensors and modality; no data set, no settings, no files except weights."""
