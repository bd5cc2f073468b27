"""The small models that the tests of `models` share; none of them may be changed by a test."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.clip import LoadedClip, load_clip, open_clip_module

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    # As the CLIPA models do: mean token, norm after it; and the text tower as a module of its own.
    "mean-vit": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {**VIT, "pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        "text_cfg": {**TEXT, "proj_bias": True},
    },
}


def write_folder(folder: Path, architecture: dict[str, Any], *, dtype: torch.dtype = torch.float16) -> nn.Module:
    """Write a model folder in open_clip's form, as the shipped stand-in is one; returns the model that it holds."""
    settings = {name: value for name, value in architecture.items() if name != "custom_text"}
    open_clip = open_clip_module()
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(3)
        make = open_clip.CustomTextCLIP if architecture.get("custom_text") else open_clip.CLIP
        model: nn.Module = make(**settings).eval()
    model.to(dtype).float()  # what a file of this type can hold
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": architecture, "preprocess_cfg": {"size": 32}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {
        name: tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors")
    return model


@pytest.fixture(scope="session")
def tiny_clip() -> LoadedClip:
    """A ResNet CLIP of width 8 with random weights."""
    return load_clip("tiny", "random")


@pytest.fixture(scope="session")
def vit_clip(tmp_path_factory: pytest.TempPathFactory) -> LoadedClip:
    """A vision transformer of width 32 with random weights."""
    folder = tmp_path_factory.mktemp("clip") / "vit"
    write_folder(folder, ARCHITECTURES["vit"])
    return load_clip("ignored", str(folder))


@pytest.fixture(scope="session")
def mean_vit_clip(tmp_path_factory: pytest.TempPathFactory) -> LoadedClip:
    """A vision transformer that pools by the mean, with a text tower that is a module of its own."""
    folder = tmp_path_factory.mktemp("clip") / "mean-vit"
    write_folder(folder, ARCHITECTURES["mean-vit"])
    return load_clip("ignored", str(folder))
