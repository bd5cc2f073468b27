"""Caption files: reading, checks, statistics and controls. `pipeline.captioning` writes them."""
