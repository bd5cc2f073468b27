"""The encoder of a run: read from its folder, and computing as the run did."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.encoder import DualStemEncoder
from models.modality import Modality
from pipeline.config.experiment import digest_of, record_of
from pipeline.config.presets import load_config
from pipeline.data.image_files import FROM_ANYWHERE, ImageReading
from pipeline.errors import ConfigError
from pipeline.inference import encoder as encoder_module
from pipeline.inference import run_encoder
from pipeline.inference.encoder import RunEncoder
from pipeline.inference.run_encoder import empty_encoder, open_encoder, read_run_encoder
from pipeline.storage.run_folder import RunFolder
from tests.pipeline.inference.mean_encoder import paint

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run after one round, with a precision; its network has random weights."""

    def make(precision: str, **data: object) -> Path:
        model = {"architecture": "tiny", "weights": "random"}
        config = load_config("smoke", (), {"model": model, "execution": {"precision": precision}, "data": data})
        path = tmp_path / f"{precision}{len(data)}"
        with RunFolder.open(path, record_of(config), digest_of(config)) as folder:
            weights = empty_encoder(config).state_dict()
            folder.save_checkpoint({"completed": 1, "encoder": weights, "selected": None})
        return path

    return make


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that are read here think that they are on a GPU."""
    monkeypatch.setattr(run_encoder, "resolve_device", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(DualStemEncoder, "to", lambda encoder, *_, **__: encoder)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("recorded", "expected"), [("auto", "bfloat16"), ("float32", "float32")])
def test_images_are_embedded_in_the_precision_of_the_run(make_run: MakeRun, recorded: str, expected: str) -> None:
    assert read_run_encoder(make_run(recorded)).precision == expected


@pytest.mark.usefixtures("gpu")
def test_a_user_may_choose_another_precision_and_the_digest_says_so(make_run: MakeRun) -> None:
    run = str(make_run("auto"))
    own, other = open_encoder(run), open_encoder(run, precision="float32")
    assert isinstance(other, RunEncoder) and other.precision == "float32"
    assert own.digest.removesuffix("bfloat16") == other.digest.removesuffix("float32")


def test_images_are_read_as_in_training_or_as_a_user_chooses(make_run: MakeRun) -> None:
    usual = open_encoder(str(make_run("auto")))
    assert usual.reading == FROM_ANYWHERE
    run = str(make_run("auto", orientation="ignore", deep_range=[28_000, 31_000]))
    trained, chosen = open_encoder(run), open_encoder(run, orientation="apply", deep_range="image")
    assert trained.reading == ImageReading("ignore", (28_000.0, 31_000.0)) and chosen.reading == FROM_ANYWHERE
    assert trained.digest.endswith("float32-orientation-ignore-range28000.0:31000.0")
    assert chosen.digest.endswith("float32")


def test_on_a_cpu_a_run_in_bfloat16_is_embedded_in_float32(make_run: MakeRun) -> None:
    assert read_run_encoder(make_run("bfloat16"), "cpu").precision == "float32"
    with pytest.raises(ConfigError, match="is for GPUs"):
        read_run_encoder(make_run("bfloat16"), "cpu", "bfloat16")


def test_the_network_computes_in_that_precision(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def describe(encoder: DualStemEncoder, pixels: torch.Tensor, **options: object) -> torch.Tensor:
        seen.append(options["precision"])
        return torch.zeros(len(pixels), 2)

    monkeypatch.setattr(encoder_module, "describe_pixels", describe)
    encoder = read_run_encoder(make_run("float32"), "cpu")
    encoder.encode(np.zeros((1, encoder.height, encoder.width, 3), np.uint8), Modality.VISIBLE)
    assert seen == ["float32"]


@pytest.mark.slow
def test_embedding_and_searching_by_a_run_folder_import_no_mlflow(make_run: MakeRun, tmp_path: Path) -> None:
    run = str(make_run("auto"))
    for name, colour in (("a", (250, 0, 0)), ("b", (0, 250, 0))):
        paint(tmp_path / "images" / f"{name}.png", colour)
    script = f"""
import sys
from flows.cli.app import app
app(["embed", {run!r}, "images", "--modality", "visible", "-o", "vectors.npz"], standalone_mode=False)
app(["search", {run!r}, "--query", "images", "--gallery", "images", "--direction", "infrared_to_visible", "-k", "2"],
    standalone_mode=False)
sys.exit(", ".join(name for name in ("mlflow", "prefect") if name in sys.modules) or 0)
"""
    root = str(Path(__file__).resolve().parents[3])
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, capture_output=True
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "vectors.npz").exists() and list((tmp_path / "indexes").iterdir())
