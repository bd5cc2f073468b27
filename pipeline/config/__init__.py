"""Settings of every method, presets and the plan of rounds. Imports no torch and opens no data."""
