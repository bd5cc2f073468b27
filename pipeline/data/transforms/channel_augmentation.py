"""Random changes that mix the channels of an image, so that training cannot rely on colour.

A visible image has two views: one in its colours (`visible_one`), one with one channel copied to all three
(`visible_two`). Infrared images (`infrared`) get the same augmentation: usually one channel is copied to all three. As
in `pipeline.data.transforms.augmentation`, changes are drawn on the host and applied on the device of the pixels.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from models.modality import PerModality
from models.transfer import upload
from pipeline.data.transforms.augmentation import (
    Normalisation,
    Rectangles,
    Transform,
    coins,
    first_fitting,
    move,
    preprocess,
    uniform,
)

View = Literal["visible_one", "visible_two", "infrared"]

LUMINANCE: Final = 3
UNCHANGED: Final = 4

_WEIGHTS: Final = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2989, 0.5870, 0.1140), (0.0, 0.0, 0.0))
_FILL: Final = (0.4914, 0.4822, 0.4465)
_ERASED_AREA: Final = (0.02, 0.4)
_ERASED_ASPECT: Final = (0.3, 1 / 0.3)
_ERASING_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class ChannelChanges:
    """Changes of each image of a batch, in this order.

    `padding` zeros are added on every side, and a window of the old size is cropped with its corner at (`top`, `left`)
    in [0, 2 padding]; `flip` mirrors; after normalisation `erased` is filled with (0.4914, 0.4822, 0.4465). Last, all
    three channels are replaced by channel 0, 1 or 2, by their weighted sum (`LUMINANCE`), or not (`UNCHANGED`).
    """

    padding: int
    top: Int64[Tensor, " batch"]
    left: Int64[Tensor, " batch"]
    flip: Bool[Tensor, " batch"]
    erased: Rectangles
    channel: Int64[Tensor, " batch"]

    def part(self, rows: slice) -> "ChannelChanges":
        """The changes of some images of the batch."""
        moved = self.top[rows], self.left[rows], self.flip[rows]
        return ChannelChanges(self.padding, *moved, self.erased.part(rows), self.channel[rows])


def augment_channels(
    pixels: UInt8[Tensor, "batch height width 3"],
    view: View,
    *,
    padding: int = 10,
    mirrored: bool = True,
    normalisation: Normalisation,
    generator: torch.Generator,
    num_images: int | None = None,
    share: slice = slice(None),
) -> Float[Tensor, "batch 3 height width"]:
    """Change each image at random, its channels last, and normalise it: the input for supervised training.

    View `visible_one` keeps the channels; in `visible_two` a random one replaces all; in `infrared` each replaces all
    with probability 1/4, the luminance with 1/8. Two views of the same images share no draws. Images are flipped only
    if `mirrored`. Erased areas have the same colour for each `normalisation`. Other arguments as for
    `pipeline.data.transforms.augmentation.augment`.

    Cost: 32 images of 288 x 144 on one CPU core: 25 ms as `visible_one`, 45 ms as one of the others.

    Source: Ye et al., ICCV 2021 (channel augmentation), as nengdong96/CSDN uses it, public code, training transforms.
    """
    batch, height, width, _ = pixels.shape
    changes = draw_channel_changes(
        batch if num_images is None else num_images,
        height,
        width,
        view,
        padding=padding,
        mirrored=mirrored,
        generator=generator,
    )
    return apply_channel_changes(pixels, changes.part(share), normalisation)


def channel_views(
    *,
    recipe: Literal["channels", "plain"],
    padding: int,
    mirrored: bool = True,
    normalisation: Normalisation,
    generator: torch.Generator,
) -> PerModality[tuple[Transform, ...]]:
    """Two views of each visible image and one of each infrared image, as `augment_channels` makes them.

    With recipe `plain` all views are `visible_one`: images keep their channels.
    """

    def transform(view: View) -> Transform:
        return lambda pixels, num_images, share: augment_channels(
            pixels, view, padding=padding, mirrored=mirrored, normalisation=normalisation, generator=generator,
            num_images=num_images, share=share,
        )  # fmt: skip

    views: PerModality[tuple[View, ...]] = PerModality(("visible_one", "visible_two"), ("infrared",))
    return views.map(lambda names: tuple(transform(name if recipe == "channels" else "visible_one") for name in names))


def draw_channel_changes(
    batch: int,
    height: int,
    width: int,
    view: View,
    *,
    padding: int = 10,
    mirrored: bool = True,
    generator: torch.Generator,
) -> ChannelChanges:
    """Draw the changes of each image independently, on the CPU: flip (if `mirrored`) and erasing with probability 1/2.

    A rectangle has a uniform share of the area in [0.02, 0.4] and a uniform ratio of height to width in [0.3, 1/0.3];
    the first of a hundred tries that is smaller than the image in both directions counts.
    """
    return ChannelChanges(
        padding=padding,
        top=torch.randint(0, 2 * padding + 1, (batch,), generator=generator),
        left=torch.randint(0, 2 * padding + 1, (batch,), generator=generator),
        flip=coins(batch, generator) if mirrored else torch.zeros(batch, dtype=torch.bool),
        erased=_draw_erased(batch, height, width, generator),
        channel=_draw_channel(batch, view, generator),
    )


def apply_channel_changes(
    pixels: UInt8[Tensor, "batch height width 3"], changes: ChannelChanges, normalisation: Normalisation
) -> Float[Tensor, "batch 3 height width"]:
    """Apply the changes and normalise; the pixels are not modified."""
    placed = _place(changes, pixels.device)
    if changes.padding > 0 or changes.flip.any():
        # `move` mirrors first: after the crop it is the same as before, with the crop as far from the other side.
        left = torch.where(placed.flip, 2 * changes.padding - placed.left, placed.left)
        pixels = move(pixels, placed.flip, changes.padding, placed.top, left)
    output = preprocess(pixels, normalisation)
    erased = placed.erased.cover(*output.shape[2:])
    for channel, fill in enumerate(_FILL):
        output[:, channel].masked_fill_(erased, fill)
    # Compared on the host, without waiting for a GPU.
    return output if bool((changes.channel == UNCHANGED).all()) else _mix(output, placed.channel)


def _place(changes: ChannelChanges, device: torch.device) -> ChannelChanges:
    if device.type == "cpu":
        return changes
    erased = changes.erased
    corners = (erased.top, erased.left, erased.height, erased.width)
    matrix = torch.stack([changes.top, changes.left, changes.flip.long(), changes.channel, *corners])
    top, left, flip, channel, *rectangles = upload(matrix.numpy(), device).unbind()
    return ChannelChanges(changes.padding, top, left, flip.bool(), Rectangles(*rectangles), channel)


def _draw_erased(batch: int, height: int, width: int, generator: torch.Generator) -> Rectangles:
    wanted = coins(batch, generator)
    area = height * width * uniform((batch, _ERASING_TRIES), *_ERASED_AREA, generator)
    aspect = uniform((batch, _ERASING_TRIES), *_ERASED_ASPECT, generator)
    return first_fitting(wanted, area, aspect, height, width, generator)


def _draw_channel(batch: int, view: View, generator: torch.Generator) -> Int64[Tensor, " batch"]:
    match view:
        case "visible_one":
            return torch.full((batch,), UNCHANGED)
        case "visible_two":
            return torch.randint(0, 3, (batch,), generator=generator)
        case "infrared":
            quarter = torch.randint(0, 4, (batch,), generator=generator)
            # In the last quarter half of the images stay as they are.
            return torch.where((quarter == LUMINANCE) & coins(batch, generator), UNCHANGED, quarter)


@cache
def _weights(device: torch.device) -> Float[Tensor, "kinds 3"]:
    return torch.tensor(_WEIGHTS).to(device)


def _mix(
    images: Float[Tensor, "batch 3 height width"], channel: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch 3 height width"]:
    """Replace all channels by one mixture, except in unchanged images.

    Sums of products, not a matrix product, which a GPU may compute in reduced precision: a copy must be exact.
    """
    weights = _weights(images.device)[channel][:, :, None, None]
    mixed = (images[:, 0] * weights[:, 0]).addcmul_(images[:, 1], weights[:, 1]).addcmul_(images[:, 2], weights[:, 2])
    unchanged = (channel == UNCHANGED)[:, None, None, None]
    # Channels last, as in memory.
    return torch.where(unchanged, images.permute(0, 2, 3, 1), mixed[:, :, :, None]).permute(0, 3, 1, 2)
