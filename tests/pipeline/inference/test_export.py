"""Networks for other programs: the same vectors for any number of images, of every kind of encoder."""

import json
import sys
from pathlib import Path

import mlflow.pytorch
import numpy as np
import pytest
import torch

from models.encoder import Descriptor
from models.modality import Modality
from pipeline.config.presets import load_config
from pipeline.errors import ConfigError, TrainingError
from pipeline.inference import export as exporting
from pipeline.inference.encoder import RunEncoder
from pipeline.inference.export import Format, export_encoder
from pipeline.inference.run_encoder import empty_encoder
from pipeline.runs.export_result import PixelDescriptor
from pipeline.tracking.mlflow_models import save_model
from tests.models.conftest import ARCHITECTURES, write_folder

CPU = torch.device("cpu")


def encoder_of(kind: str, folder: Path, **evaluation: object) -> RunEncoder:
    """An encoder with random weights, whose stems differ."""
    model = {"architecture": "tiny", "weights": "random"}
    if kind != "resnet":
        write_folder(folder / kind, ARCHITECTURES[kind])
        model["weights"] = str(folder / kind)
    config = load_config("smoke", (), {"model": model, "evaluation": evaluation})
    encoder = empty_encoder(config).eval()
    with torch.no_grad():
        next(encoder.stems["infrared"].parameters()).neg_()
    return RunEncoder("run", encoder, config, 1, CPU, "float32")


@pytest.mark.parametrize("form", ["safetensors", "torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["resnet", "vit", "mean-vit"])
def test_a_network_is_written_that_gives_the_same_vectors(kind: str, form: Format, tmp_path: Path) -> None:
    encoder = encoder_of(kind, tmp_path, flip="mean")
    exported = export_encoder(encoder, form, tmp_path / "out")
    assert exported.difference < 1e-5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(exported.files)
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    assert described["encoder"] == encoder.digest and described["output"]["flip"] == "mean"
    assert described["input"]["files"] == {"orientation": "apply", "deep_range": "image", "background": "white"}


@pytest.mark.parametrize("kind", ["resnet", "vit", "mean-vit"])
def test_a_model_of_mlflow_takes_one_image_and_many(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    encoder = encoder_of(kind, tmp_path)
    descriptor = Descriptor(encoder.encoder, Modality.INFRARED, encoder.heads, encoder.flip)
    example = np.zeros((2, encoder.height, encoder.width, 3), np.uint8)
    model = PixelDescriptor(descriptor, encoder.normalisation).eval()
    save_model(model, example, tmp_path / "model", {"vireid.model": "x"})
    loaded = mlflow.pytorch.load_model(str(tmp_path / "model"))
    generator = np.random.default_rng(0)
    for count in (1, 2, 5):
        pixels = generator.integers(0, 256, (count, encoder.height, encoder.width, 3), dtype=np.uint8)
        with torch.inference_mode():
            found = loaded(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(found, encoder.encode(pixels, Modality.INFRARED), atol=1e-5)
        assert np.abs(found - encoder.encode(pixels, Modality.VISIBLE)).max() > 1e-3


def test_a_network_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(TrainingError, match="vectors that differ by"):
        export_encoder(encoder_of("resnet", tmp_path), "torchscript", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_for_onnx_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match="onnxscript") as caught:
        export_encoder(encoder_of("resnet", tmp_path), "onnx", tmp_path / "out")
    assert "export" in caught.value.hint


def test_a_folder_that_cannot_be_made_has_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        export_encoder(encoder_of("resnet", tmp_path), "safetensors", tmp_path / "file" / "out")
