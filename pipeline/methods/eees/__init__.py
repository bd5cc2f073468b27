"""EEES (arXiv 2412.08406): supervised, with image captions."""
