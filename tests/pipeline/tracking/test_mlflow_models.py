"""Networks as files of MLflow: for any number of images, or not at all."""

from pathlib import Path

import mlflow.pytorch
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.clip import load_clip
from models.encoder import Descriptor, DualStemEncoder, Head
from models.modality import Modality
from pipeline.runs.export_result import PixelDescriptor
from pipeline.tracking.mlflow_models import ModelExportError, save_model
from tests.models.conftest import ARCHITECTURES, write_folder

EXAMPLE = np.zeros((2, 32, 32, 3), np.uint8)


@pytest.mark.slow
def test_vision_transformers_are_exported_for_any_number_of_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "clip", ARCHITECTURES["vit"])
    clip = load_clip("ignored", str(tmp_path / "clip"))
    encoder = DualStemEncoder.from_clip(clip, image_height=32, image_width=32)
    heads = (Head.NECK, Head.PROJECTION)
    model = PixelDescriptor(Descriptor(encoder, Modality.INFRARED, heads, "concat"), "clip").eval()
    save_model(model, EXAMPLE, tmp_path / "model", {"vireid.model": "a"})
    loaded = mlflow.pytorch.load_model(str(tmp_path / "model"))
    generator = np.random.default_rng(1)
    with torch.inference_mode():
        for count in (1, 2, 5):
            pixels = torch.from_numpy(generator.integers(0, 256, (count, 32, 32, 3), np.uint8))
            torch.testing.assert_close(loaded(pixels), model(pixels), atol=1e-5, rtol=0)


class _Counting(nn.Module):
    """Looks at the number of images as a Python number, which a graph then has for good."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float().mean(dim=(1, 2)).reshape(len(pixels), 3)


class _Random(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return torch.rand_like(pixels.float().mean(dim=(1, 2)))


@pytest.mark.parametrize(("model", "reason"), [(_Counting(), "Guard failed"), (_Random(), "differ by")])
def test_what_cannot_be_exported_is_an_error_with_the_reason(tmp_path: Path, model: nn.Module, reason: str) -> None:
    with pytest.raises(ModelExportError, match=reason):
        save_model(model.eval(), EXAMPLE, tmp_path / "model", {})
