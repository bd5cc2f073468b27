"""The synthetic data set of the demonstration, shared by the command line and deployments."""

from pathlib import Path

DEMO_DATA = Path("data") / "drawn-demo"


def draw_demo_once() -> Path:
    """Generate the demonstration data set unless it exists; returns its folder."""
    from pipeline.data.synthetic.writer import generate_dataset

    if not DEMO_DATA.exists():
        # The preset's schedule was chosen on the people of seed 1.
        generate_dataset(DEMO_DATA, size="demo", difficulty="moderate", seed=2)
    return DEMO_DATA
