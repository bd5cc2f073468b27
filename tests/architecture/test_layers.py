"""Who may import whom; the contracts stand in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import MODULES, ROOT
from tests.fresh_process import run_fresh


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_contract_between_layers_is_kept():
    linter = Path(sys.executable).with_name("lint-imports")
    answer = run(str(linter), "--no-cache", "--no-logo")
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("packages", "absent"),
    [
        (("clustering",), ("torch", "open_clip", "mlflow", "prefect", "typer")),
        (("models", "pipeline.training"), ("mlflow", "prefect", "typer")),
    ],
)
def test_importing_lower_layers_brings_nothing_of_the_upper_ones(packages, absent):
    names = [module.name for module in MODULES if module.name.startswith(packages)]
    script = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"sys.exit(', '.join(name for name in {absent!r} if name in sys.modules) or 0)"
    )
    run_fresh(script)


def test_importing_writes_nothing():
    script = "import importlib\n" + "".join(f"importlib.import_module({module.name!r})\n" for module in MODULES)
    assert run_fresh(script) == ""
