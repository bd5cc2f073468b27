"""Retrieval protocols, rankings and reports."""
