"""One small studio that the tests of drawn data share."""

import pytest

from pipeline.data.drawn.cameras import SYSU_STATIONS
from pipeline.data.drawn.knobs import DEFAULT
from pipeline.data.drawn.studio import Studio, StudioSettings


@pytest.fixture(scope="session")
def settings() -> StudioSettings:
    return StudioSettings(seed=5, num_people=12, knobs=DEFAULT, stations=SYSU_STATIONS, height=64, width=32)


@pytest.fixture(scope="session")
def studio(settings: StudioSettings) -> Studio:
    return Studio(settings)
