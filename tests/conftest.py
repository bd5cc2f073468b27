"""What the whole suite shares: one drawn data set, one tiny configuration, one Prefect back end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.presets import load_config
from pipeline.config.shared import ExperimentConfig


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn data set of size `smoke` in SYSU-MM01's layout."""
    from pipeline.data.synthetic.writer import generate_dataset

    folder = tmp_path_factory.mktemp("drawn") / "smoke"
    generate_dataset(folder, size="smoke", difficulty="easy", height=64, width=32, workers=1)
    return folder


@pytest.fixture(scope="session")
def smoke_tree() -> dict[str, object]:
    """Changes to preset `smoke` that make it small: two rounds a stage with a tiny random network."""
    return {
        "model": {"architecture": "tiny", "weights": "random"},
        "stages": {"prepare_rounds": 2, "clip_rounds": 2},
        "prompts": {"refresh_every": 1},
        "evaluation": {"every": 1, "trials": 2},
    }


@pytest.fixture
def smoke_config(smoke_data: Path, smoke_tree: dict[str, object], tmp_path: Path) -> ExperimentConfig:
    """Preset `smoke`, made small, with its runs in a folder of the test's own."""
    execution = {"device": "cpu", "runs_folder": str(tmp_path / "runs"), "tracking": False}
    return load_config("smoke", (), {**smoke_tree, "data": {"root": str(smoke_data)}, "execution": execution})


@pytest.fixture(scope="session")
def prefect_backend() -> Iterator[None]:
    """A Prefect server of the session's own, in a temporary folder."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LLaVA with random weights."""
    from tests.pipeline.captioning.tiny_models import make_llava

    return make_llava(tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture(scope="session")
def tiny_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BLIP with random weights."""
    from tests.pipeline.captioning.tiny_models import make_blip

    return make_blip(tmp_path_factory.mktemp("models") / "tiny-blip")
