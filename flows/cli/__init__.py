"""The command `vireid`: one module a command. Computation belongs to `pipeline`."""
