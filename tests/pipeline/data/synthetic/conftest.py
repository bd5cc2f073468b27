"""What the tests of drawn data share: one small studio, and one small data set of each layout."""

from pathlib import Path

import pytest

from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.images import Studio, StudioSettings
from pipeline.data.synthetic.knobs import DEFAULT
from pipeline.data.synthetic.writer import LAYOUTS, SyntheticSummary, generate_dataset


@pytest.fixture(scope="session")
def settings() -> StudioSettings:
    return StudioSettings(seed=5, num_people=12, knobs=DEFAULT, stations=SYSU_STATIONS, height=64, width=32)


@pytest.fixture(scope="session")
def studio(settings: StudioSettings) -> Studio:
    return Studio(settings)


@pytest.fixture(scope="session")
def smoke_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, SyntheticSummary]]:
    """Folder and summary by layout, of seed 1."""
    root = tmp_path_factory.mktemp("layouts")
    return {
        layout: (
            root / layout,
            generate_dataset(root / layout, size="smoke", layout=layout, height=48, width=24, workers=1),
        )
        for layout in LAYOUTS
    }
