"""Networks and losses: tensors and modality, no data set, no file layout, no configuration."""
