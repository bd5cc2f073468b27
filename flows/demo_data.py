"""The drawn data set of the demonstration: made once, where the command line and deployments look for it."""

from pathlib import Path

DEMO_DATA = Path("data") / "drawn-demo"


def draw_demo_once() -> Path:
    """Draw the people of the demonstration unless they are there already.

    Returns:
        The folder of the data set.
    """
    from pipeline.data.synthetic.writer import generate_dataset

    if not DEMO_DATA.exists():
        # Seed 1 drew the people that were seen while the preset's schedule was chosen.
        generate_dataset(DEMO_DATA, size="demo", difficulty="moderate", seed=2)
    return DEMO_DATA
