"""Batches of images."""
