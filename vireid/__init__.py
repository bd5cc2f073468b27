"""Runs from Python, for notebooks and programs: tables of runs, rounds and clusters, and the trained encoder."""

from pipeline.errors import VireidError
from vireid.run import Run, runs
from vireid.run import open_run as open  # noqa: A004 - called as `vireid.open`

__all__ = ["Run", "VireidError", "open", "runs"]
