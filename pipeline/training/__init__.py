"""Unsupervised training: nothing here can reach a true identity."""
