"""LLCM: published lists and counts."""
