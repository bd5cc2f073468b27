"""Views of training images by augmentation recipe and `augmentation.channel`."""

import pytest
import torch

from models.modality import PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.methods.cclnet.stages import _views
from pipeline.runtime.seeds import torch_generator

IMAGES, HEIGHT, WIDTH = 64, 24, 32


def ascending() -> torch.Tensor:
    """Grey images that get brighter from left to right."""
    columns = torch.arange(WIDTH, dtype=torch.uint8) * 7
    return columns[None, None, :, None].expand(IMAGES, HEIGHT, WIDTH, 3).contiguous()


def mirrored(recipe: str, channel: str) -> PerModality[list[torch.Tensor]]:
    """Which images of each view get darker from left to right; at most 0.4 of an image is erased."""
    config = load_config("smoke", (f"augmentation.recipe={recipe}", f"augmentation.channel={channel}"))
    assert isinstance(config, CclnetConfig)
    views = _views(config, torch_generator(1, "augment"))
    return views.map(
        lambda own: [
            view(ascending(), IMAGES, slice(IMAGES))[:, 0].diff(dim=2).flatten(1).median(dim=1).values < 0
            for view in own
        ]
    )


@pytest.mark.parametrize(("channel", "counts"), [("grayscale", (1, 1)), ("exchange", (2, 1))])
@pytest.mark.parametrize("recipe", ["cclnet_sysu", "cclnet_regdb"])
def test_the_recipe_of_regdb_never_flips_whatever_the_channels(
    recipe: str, channel: str, counts: tuple[int, int]
) -> None:
    found = mirrored(recipe, channel)
    assert tuple(len(views) for views in found) == counts
    for views in found:
        for flips in views:
            assert (0 < flips.sum() < IMAGES) if recipe == "cclnet_sysu" else not flips.any()
