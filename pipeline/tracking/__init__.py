"""MLflow: the tracker, replay of rounds from the run folder, and synchronisation. Computes nothing."""
