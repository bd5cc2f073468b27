"""ResNet-50 with ImageNet weights: the initialisation without CLIP; it has no text tower.

Source: torchvision, `resnet50` and its weights IMAGENET1K_V1, as in the baseline of nengdong96/CSDN.
"""

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.clip import LoadedClip, WeightsOrigin
from models.clip_files import WeightsLoadError, fit_weights, read_weights, state_digest
from models.file_kinds import what_is
from models.torchvision_operators import define_missing_operators

RESNET50 = "resnet50"  # open_clip's own architectures have other names, such as `RN50`
_FILE = "resnet50-0676ba61.pth"
_STEM = ("conv1", "bn1", "relu", "maxpool")
_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def load_imagenet(weights: str, *, seed: int = 1) -> LoadedClip:
    """Build torchvision's ResNet-50 in place of a CLIP model's image tower; the global random state is unchanged.

    `weights` is `imagenet`, the path of a file with the same weights, or `random`. The model's `visual` is the network,
    in float32 and evaluation mode; its tokenizer raises.

    Raises:
        WeightsLoadError: No network for `imagenet`, or a missing, damaged or unfit file.
    """
    define_missing_operators()
    from torchvision.models import resnet50

    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        network: nn.Module = resnet50()
    kind = weights
    if weights != "random":
        kind, state = ("imagenet", _downloaded()) if weights == "imagenet" else ("file", _from_file(Path(weights)))
        fit_weights(network, state, source=weights, architecture=RESNET50)
    model = nn.ModuleDict({"visual": network}).eval()
    return LoadedClip(model, WeightsOrigin(kind, RESNET50, state_digest(model)), _refuse)


def plain_stem(network: Any) -> nn.Sequential:
    """Copy the layers before the residual ones: images to maps of a quarter of their height and width."""
    return nn.Sequential(OrderedDict((name, copy.deepcopy(getattr(network, name))) for name in _STEM))


def plain_trunk(network: Any) -> nn.Sequential:
    """Copy the four residual layers, the last one with stride 1; no weight changes shape."""
    trunk = nn.Sequential(OrderedDict((name, copy.deepcopy(getattr(network, name))) for name in _LAYERS))
    first: Any = trunk.get_submodule("layer4.0")
    first.conv2.stride = first.downsample[0].stride = (1, 1)
    first.stride = 1
    return trunk


def _downloaded() -> dict[str, Tensor]:
    from torchvision.models import ResNet50_Weights

    try:
        state: dict[str, Tensor] = ResNet50_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise WeightsLoadError(
            f"the ImageNet weights of {RESNET50} cannot be downloaded: {str(error).strip().partition(chr(10))[0]}",
            hint=f"download {_FILE} where there is a network, and set model.weights to the path of the file",
        ) from error
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    if what_is(path).is_missing:
        raise WeightsLoadError(
            f"no weights at {path}", hint=f"set model.weights to imagenet, random, or the path of {_FILE}"
        )
    return read_weights(path)


def _refuse(texts: list[str]) -> Tensor:
    raise ValueError(f"{len(texts)} texts for {RESNET50}, which has no text tower")
