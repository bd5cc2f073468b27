"""Augmentation of image batches on their device."""
