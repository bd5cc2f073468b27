"""The training loop, optimisers, network wrapping, state and text fitting that all methods share.

Cannot reach true identities.
"""
