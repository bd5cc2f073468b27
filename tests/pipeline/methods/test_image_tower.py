"""An image tower that no method can train is refused when the encoder is built."""

import pytest
import torch
from torch import nn

from models.clip import LoadedClip, WeightsOrigin
from pipeline.config.presets import load_config
from pipeline.errors import ConfigError
from pipeline.methods import method_of


@pytest.mark.parametrize("preset", ["cclnet-sysu", "csdn-sysu", "eees-sysu"])
def test_a_tower_of_an_unknown_kind_is_a_wrong_setting(preset: str) -> None:
    config = load_config(preset)
    model = nn.ModuleDict({"visual": nn.Linear(1, 1)})
    clip = LoadedClip(model, WeightsOrigin("random", "odd", ""), lambda _: torch.zeros(1, 77))
    with pytest.raises(ConfigError, match="odd has an image tower of type Linear") as caught:
        method_of(config).new_encoder(config, clip)
    assert "model.architecture" in caught.value.hint
