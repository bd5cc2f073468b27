"""What an experiment is made of, callable from a notebook, a test or a flow."""
