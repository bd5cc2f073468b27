"""The parts of CLIP's ResNet: a stem for each modality, the layers that both share, and the generalised mean."""

import copy
from collections import OrderedDict
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

_STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3", "bn3", "act3", "avgpool")
_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def resnet_stem(visual: Any) -> nn.Sequential:
    """Copy the stem of open_clip's `ModifiedResNet`: three convolutions, each with batch norm and ReLU, then a pooling.

    Returns:
        Images `[b 3 h w]` to maps of a quarter of their height and width.
    """
    return nn.Sequential(OrderedDict((name, copy.deepcopy(getattr(visual, name))) for name in _STEM))


def resnet_trunk(visual: Any) -> nn.Sequential:
    """Copy the four residual layers of open_clip's `ModifiedResNet`, the last one with stride 1.

    CLIP strides by average pooling, so the poolings in the first block of `layer4` and in its shortcut become the
    identity; no weight changes shape, and the names of the weights stay open_clip's.

    Returns:
        Stem maps to maps of a quarter of their height and width again: a sixteenth of the image's.
    """
    trunk = nn.Sequential(OrderedDict((name, copy.deepcopy(getattr(visual, name))) for name in _LAYERS))
    first: Any = trunk.get_submodule("layer4.0")
    first.avgpool = nn.Identity()
    first.downsample[0] = nn.Identity()
    first.stride = 1
    return trunk


def resnet_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the last feature map.

    >>> resnet_grid(288, 144)
    (18, 9)
    """
    return _sixteenth(height), _sixteenth(width)


def _sixteenth(length: int) -> int:
    """The first convolution rounds a half up, the three poolings round down."""
    return (length + 1) // 2 // 8


class GeneralisedMean(nn.Module):
    """`(mean x^p)^(1/p)` over the cells of a feature map whose values are not negative.

    Args:
        power: 1 is the mean; the larger, the nearer to the maximum.

    Source: CzAngus/CCLNet, the model's pooling: 1e-12 is added before the root, so an empty channel gives 1e-4.
    """

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, feature_map: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width"]:
        """One number a channel."""
        return (feature_map.pow(self.power).mean(dim=(2, 3)) + 1e-12).pow(1 / self.power)
