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


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def command_of(*arguments: str, program: str = "vireid") -> str:
    """The command line that a target would start."""
    command = ["make", "--dry-run", "--no-print-directory", *arguments, "EXTRA=cpu"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith(f".venv/bin/{program}")]
    return line.rstrip()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_starts_its_preset(target: str) -> None:
    data, preset, method = TARGETS[target]
    line = command_of(target, "DATA=/folder/of/data")
    if data == "demo":
        assert line == f".venv/bin/vireid demo --method {method}"
        return
    splits = ' --splits "1-10"' if data == "regdb" else ""
    assert line == f'.venv/bin/vireid train {preset}{splits} --data "/folder/of/data"'
    assert preset in preset_names()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("unsupervised-demo", "PRESET=plus-demo"), 'demo --method cclnet --preset "plus-demo"'),
        (("unsupervised-sysu", "PRESET=plus-sysu"), 'train "plus-sysu" --method cclnet --dataset sysu'),
        (("csdn-llcm", "PRESET=my own.toml"), 'train "my own.toml" --method csdn --dataset llcm'),
        (
            ("unsupervised-regdb", "PRESET=plus-regdb", "SPLITS=1"),
            'train "plus-regdb" --method cclnet --dataset regdb --splits "1"',
        ),
        (("plus-demo",), "demo --preset plus-demo"),
        (("plus-sysu",), "train plus-sysu"),
    ],
)
def test_another_preset_takes_the_place_of_the_targets_own(arguments: tuple[str, ...], line: str) -> None:
    assert command_of(*arguments) == f".venv/bin/vireid {line}"


def test_the_check_of_a_gpu_takes_minutes_file_and_device() -> None:
    program = "python -m benchmarks.gpu_check"
    assert command_of("gpu-check", program=program) == f'.venv/bin/{program} --minutes "8"'
    line = command_of("gpu-check", "MINUTES=20", "OUT=a card.json", "DEVICE=cuda:1", program=program)
    assert line == f'.venv/bin/{program} --minutes "20" --out "a card.json" --device "cuda:1"'


def test_help_lists_the_targets_and_how_a_preset_is_chosen() -> None:
    answer = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"METHOD-demo", "METHOD-sysu", "METHOD-regdb", "METHOD-llcm", "plus-demo", "gpu-check"} <= set(
        answer.split()
    )
    assert "PRESET=plus-sysu" in answer
