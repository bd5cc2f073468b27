"""A user's own images, listed in a table."""
