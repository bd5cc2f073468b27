"""A live run: open, evaluate, record, export the result.

What a method does in a round belongs to `pipeline.methods`.
"""
