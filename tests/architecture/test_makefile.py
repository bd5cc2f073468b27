"""`make METHOD-DATASET` starts the preset of that name, for every method."""

import shutil
import subprocess

import pytest

from pipeline.config.experiment import CONFIGS, method_name
from pipeline.config.presets import preset_names
from tests.architecture.source_tree import ROOT

TARGETS = {
    f"{config.flow}-{data}": (data, f"{method_name(config)}-{data}", method_name(config))
    for config in CONFIGS
    for data in ("demo", "sysu", "regdb", "llcm")
}


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_starts_its_preset(target: str) -> None:
    data, preset, method = TARGETS[target]
    command = ["make", "--dry-run", "--no-print-directory", target, "DATA=/folder/of/data", "EXTRA=cpu"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith(".venv/bin/vireid")]
    if data == "demo":
        assert line == f".venv/bin/vireid demo --method {method}"
        return
    splits = ' --splits "1-10"' if data == "regdb" else ""
    assert line == f'.venv/bin/vireid train {preset}{splits} --data "/folder/of/data"'
    assert preset in preset_names()
