"""What the whole suite shares: one synthetic data set, one tiny configuration, one Prefect back end."""

import fcntl
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import cast

import pytest

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.runtime.user_environment import WAIT_POLICY

os.environ.setdefault("OMP_WAIT_POLICY", WAIT_POLICY)  # before anything imports torch; workers and children inherit it
with suppress(ModuleNotFoundError):  # the tests that need a GPU run without it, but for those that use it
    from hypothesis import settings

    settings.register_profile("vireid", deadline=None)  # a busy machine is no failure
    settings.load_profile("vireid")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test may take longer than the limit of the others, which is there to end what hangs."""
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.timeout(1200))


def pytest_collection_finish() -> None:
    """Hundreds of thousands of objects of imported libraries: no collection of garbage looks at them again."""
    gc.collect()
    gc.freeze()


Fill = Callable[[Path], object]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Fill], Path]:
    """Give a folder that the first worker which needs it fills, for all workers of this run; no test may change it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder_of(name: str, fill: Fill) -> Path:
        folder, filled = root / name, root / f"{name}.filled"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                fill(folder)
                filled.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def smoke_data(made_once: Callable[[str, Fill], Path]) -> Path:
    """The drawn data set of size `smoke` in SYSU-MM01's layout."""
    return made_once("smoke", lambda folder: generate_smoke(folder, "sysu"))


def generate_smoke(folder: Path, layout: str) -> None:
    """Generate the synthetic data set of size `smoke`, at 64 x 32 pixels."""
    from pipeline.data.synthetic.writer import generate_dataset

    generate_dataset(folder, size="smoke", layout=layout, difficulty="easy", height=64, width=32, workers=1)


@pytest.fixture(scope="session")
def smoke_tree() -> dict[str, object]:
    """Changes to preset `smoke` that make it small: two rounds a stage with a tiny random network. Read only."""
    tree = {
        "model": {"architecture": "tiny", "weights": "random"},
        "stages": {"prepare_rounds": 2, "clip_rounds": 2},
        "prompts": {"refresh_every": 1},
        "evaluation": {"every": 1, "trials": 2},
    }
    return cast("dict[str, object]", MappingProxyType(tree))


@pytest.fixture
def smoke_config(smoke_data: Path, smoke_tree: dict[str, object], tmp_path: Path) -> CclnetConfig:
    """Preset `smoke`, made small, with its runs in a folder of the test's own; figures would take most of the time."""
    execution = {"device": "cpu", "runs_folder": str(tmp_path / "runs"), "tracking": False, "figures": False}
    return load_config("smoke", (), {**smoke_tree, "data": {"root": str(smoke_data)}, "execution": execution})


@pytest.fixture
def finished_run(smoke_config: CclnetConfig, made_once: Callable[[str, Fill], Path]) -> CclnetConfig:
    """`smoke_config` after its run, with figures: a copy of what was trained once, which the test may change."""
    from tests.flows.plain_runs import run_plainly
    from tests.flows.test_round_figures import with_execution

    runs = made_once(
        "finished-run", lambda folder: run_plainly(with_execution(smoke_config, runs_folder=folder, figures=True))
    )
    shutil.copytree(runs, smoke_config.execution.runs_folder)
    return with_execution(smoke_config, figures=True)


@pytest.fixture(scope="session")
def prefect_backend() -> Iterator[None]:
    """A Prefect server of the session's own, in a temporary folder."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=600):
        yield


@pytest.fixture
def prefect_home(made_once: Callable[[str, Fill], Path], tmp_path: Path) -> Path:
    """Folder `prefect` of the test's own; its database has its tables, which Prefect needs seconds to make."""

    def fill(folder: Path) -> None:
        environment = os.environ | {"PREFECT_HOME": str(folder)}
        environment.pop("PREFECT_API_DATABASE_CONNECTION_URL", None)
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    return shutil.copytree(made_once("prefect-home", fill), tmp_path / "prefect")


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
