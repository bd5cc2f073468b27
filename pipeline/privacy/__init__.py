"""Forgetting images: find where their pixels, vectors and names are kept, remove them, and search again."""
