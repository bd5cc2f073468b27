"""From stored pixels to network input: normalised, for training after random changes.

The random changes are ours and not kornia's or torchvision's (`transforms.v2`): those take no generator, v2 changes a
whole batch in one way, and kornia samples erased rectangles differently. `draw_changes` runs on the host,
`apply_changes` on the device of the pixels, without a loop over images and without waiting for a GPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from models.modality import Modality, PerModality
from models.transfer import upload

Normalisation = Literal["imagenet", "clip"]
Recipe = Literal["cclnet_sysu", "cclnet_regdb"]
Transform = Callable[[Tensor, int, slice], Tensor]
"""One view: from a rank's stored pixels to network input.

Random changes are drawn for the whole batch, whose size is the number; the slice selects those of the pixels.
"""

_PROBABILITY: Final = 0.5
_ERASED_AREA: Final = (0.02, 0.33)
_ERASED_ASPECT: Final = (0.3, 3.3)
_ERASING_TRIES: Final = 10


@dataclass(frozen=True, slots=True)
class Rectangles:
    """A rectangle of each image, in pixels; none if `height` or `width` is 0."""

    top: Int64[Tensor, " batch"]
    left: Int64[Tensor, " batch"]
    height: Int64[Tensor, " batch"]
    width: Int64[Tensor, " batch"]

    def part(self, rows: slice) -> "Rectangles":
        """The rectangles of some images of the batch."""
        return Rectangles(self.top[rows], self.left[rows], self.height[rows], self.width[rows])

    def cover(self, height: int, width: int) -> Bool[Tensor, "batch height width"]:
        """Which pixels of images of this size are inside."""
        rows, columns = between(height, self.top, self.height), between(width, self.left, self.width)
        return rows[:, :, None] & columns[:, None, :]


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of each image of a batch, in this order.

    `gray` removes colours, `flip` mirrors; then `padding` zeros are added on every side, and a window of the old size
    is cropped with its corner at (`top`, `left`) in [0, 2 padding]; after normalisation `erased` is filled with 0, the
    mean colour.
    """

    gray: Bool[Tensor, " batch"]
    flip: Bool[Tensor, " batch"]
    padding: int
    top: Int64[Tensor, " batch"]
    left: Int64[Tensor, " batch"]
    erased: Rectangles

    def part(self, rows: slice) -> "Changes":
        """The changes of some images of the batch."""
        moved = self.top[rows], self.left[rows]
        return Changes(self.gray[rows], self.flip[rows], self.padding, *moved, self.erased.part(rows))


def preprocess(
    pixels: UInt8[Tensor, "batch height width 3"], normalisation: Normalisation
) -> Float[Tensor, "batch 3 height width"]:
    """Normalise pixels: the input for features, clustering, prompts and retrieval. Float32, channels last in memory."""
    batch, height, width, _ = pixels.shape
    scale, shift = _scale_and_shift(normalisation, width, pixels.device)
    rows = pixels.reshape(batch * height, width * 3).float().mul_(scale).add_(shift)
    return rows.view(batch, height, width, 3).permute(0, 3, 1, 2)


def augment(
    pixels: UInt8[Tensor, "batch height width 3"],
    modality: Modality,
    *,
    recipe: Recipe,
    padding: int = 10,
    normalisation: Normalisation = "imagenet",
    generator: torch.Generator,
    num_images: int | None = None,
    share: slice = slice(None),
) -> Float[Tensor, "batch 3 height width"]:
    """Change each image at random and normalise it: the input for training, channels last in memory.

    Recipe `cclnet_sysu`: gray (visible images only), flip, pad and crop, erase; `cclnet_regdb`: gray and erase, without
    `padding`. If `pixels` are a part of a batch of `num_images`, changes are drawn for the batch and `share` selects
    those of the pixels. `generator` is on the CPU.

    Cost: 128 images of 96 x 48 on one CPU core: about 10 ms; of 288 x 144: about 100 ms.

    Source: Chen et al., ACM MM 2023 (CCLNet), public code, training transforms of both data sets.
    """
    batch, height, width, _ = pixels.shape
    changes = draw_changes(
        num_images or batch, height, width, modality, recipe=recipe, padding=padding, generator=generator
    )
    return apply_changes(pixels, changes.part(share), normalisation)


def training_views(
    *, recipe: Recipe, padding: int, normalisation: Normalisation, generator: torch.Generator
) -> PerModality[tuple[Transform, ...]]:
    """One view of every image, changed by `augment`; the generator is that of an epoch."""

    def view(modality: Modality) -> Transform:
        return lambda pixels, num_images, share: augment(
            pixels, modality, recipe=recipe, padding=padding, normalisation=normalisation, generator=generator,
            num_images=num_images, share=share,
        )  # fmt: skip

    return PerModality.build(lambda modality: (view(modality),))


def draw_changes(
    batch: int,
    height: int,
    width: int,
    modality: Modality,
    *,
    recipe: Recipe,
    padding: int = 10,
    generator: torch.Generator,
) -> Changes:
    """Draw the changes of each image independently, on the CPU: gray, flip and erasing each with probability 1/2."""
    moves = recipe == "cclnet_sysu"
    room = padding if moves else 0
    nothing = torch.zeros(batch, dtype=torch.bool)
    return Changes(
        gray=coins(batch, generator) if modality is Modality.VISIBLE else nothing,
        flip=coins(batch, generator) if moves else nothing,
        padding=room,
        top=torch.randint(0, 2 * room + 1, (batch,), generator=generator),
        left=torch.randint(0, 2 * room + 1, (batch,), generator=generator),
        erased=_draw_erased(batch, height, width, generator),
    )


def apply_changes(
    pixels: UInt8[Tensor, "batch height width 3"], changes: Changes, normalisation: Normalisation
) -> Float[Tensor, "batch 3 height width"]:
    """Apply the changes and normalise; the pixels are not modified."""
    placed = _place(changes, pixels.device)
    pixels = _without_colours(pixels, changes.gray)
    if changes.padding > 0 or changes.flip.any():
        pixels = move(pixels, placed.flip, changes.padding, placed.top, placed.left)
    output = preprocess(pixels, normalisation)
    return output.masked_fill_(placed.erased.cover(*output.shape[2:])[:, None], 0.0)


def _place(changes: Changes, device: torch.device) -> Changes:
    """The changes on the device of the pixels, uploaded as one matrix."""
    if device.type == "cpu":
        return changes
    erased = changes.erased
    corners = (changes.top, changes.left, erased.top, erased.left, erased.height, erased.width)
    matrix = upload(torch.stack([changes.gray.long(), changes.flip.long(), *corners]).numpy(), device)
    gray, flip, top, left, *rectangles = matrix.unbind()
    return Changes(gray.bool(), flip.bool(), changes.padding, top, left, Rectangles(*rectangles))


@cache
def _scale_and_shift(normalisation: Normalisation, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and summand of every number of a row of pixels, repeated over the row so that the CPU vectorises."""
    mean, std = colour_statistics(normalisation)
    scale = torch.tensor([1.0 / (255.0 * s) for s in std]).repeat(width)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).repeat(width)
    return scale.to(device), shift.to(device)


def colour_statistics(normalisation: Normalisation) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue, of values from 0 to 1."""
    match normalisation:
        case "imagenet":
            return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        case "clip":
            return (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def coins(batch: int, generator: torch.Generator) -> Bool[Tensor, " batch"]:
    """True for each image with probability 1/2."""
    return torch.rand(batch, generator=generator) < _PROBABILITY


def _draw_erased(batch: int, height: int, width: int, generator: torch.Generator) -> Rectangles:
    """Rectangles of a random share of the area and a random shape, sampled as by torchvision's RandomErasing."""
    wanted = coins(batch, generator)
    area = height * width * uniform((batch, _ERASING_TRIES), *_ERASED_AREA, generator)
    low, high = (math.log(aspect) for aspect in _ERASED_ASPECT)
    aspect = uniform((batch, _ERASING_TRIES), low, high, generator).exp()
    return first_fitting(wanted, area, aspect, height, width, generator)


def first_fitting(
    wanted: Bool[Tensor, " batch"],
    area: Float64[Tensor, "batch tries"],
    aspect: Float64[Tensor, "batch tries"],
    height: int,
    width: int,
    generator: torch.Generator,
) -> Rectangles:
    """Rectangles to erase in `wanted` images: an image's first try (area in pixels, height by width) that fits.

    A rectangle must be smaller than the image in both directions; if no try fits, nothing is erased. The number of
    draws is always the same.
    """
    tall = (area * aspect).sqrt().round().long()
    wide = (area / aspect).sqrt().round().long()
    fits = (tall < height) & (wide < width)
    # `argmax` of whole numbers gives the first of equal ones.
    first = fits.int().argmax(dim=1, keepdim=True)
    used = wanted & fits.any(dim=1)
    tall = tall.gather(1, first).squeeze(1) * used
    wide = wide.gather(1, first).squeeze(1) * used
    return Rectangles(
        top=_below(height - tall + 1, generator), left=_below(width - wide + 1, generator), height=tall, width=wide
    )


def uniform(
    shape: tuple[int, int], low: float, high: float, generator: torch.Generator
) -> Float64[Tensor, "batch tries"]:
    """Independent numbers, uniform between the two bounds."""
    return torch.empty(shape, dtype=torch.float64).uniform_(low, high, generator=generator)


def _below(limits: Int64[Tensor, " batch"], generator: torch.Generator) -> Int64[Tensor, " batch"]:
    """A uniform whole number in [0, limit) for each limit."""
    return (torch.rand(limits.shape, dtype=torch.float64, generator=generator) * limits).long()


def _without_colours(
    pixels: UInt8[Tensor, "batch height width 3"], gray: Bool[Tensor, " batch"]
) -> UInt8[Tensor, "batch height width 3"]:
    # The images are named by number: the mask is on the host, so a GPU is not asked how many there are.
    chosen = upload(gray.nonzero().squeeze(1).numpy(), pixels.device)
    if chosen.numel() == 0:
        return pixels
    red, green, blue = pixels[chosen].unbind(dim=3)
    # Pillow's luminance, in its whole numbers: 0.299, 0.587, 0.114 times 2^16, rounded.
    luminance = (red.int() * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768) >> 16
    return pixels.index_copy(0, chosen, torch.stack(3 * (luminance.to(torch.uint8),), dim=3))


def move(
    pixels: UInt8[Tensor, "batch height width 3"],
    flip: Bool[Tensor, " batch"],
    padding: int,
    top: Int64[Tensor, " batch"],
    left: Int64[Tensor, " batch"],
) -> UInt8[Tensor, "batch height width 3"]:
    """Mirror, pad with zeros and crop, in one look-up of pixels; all tensors are on the same device."""
    batch, height, width, _ = pixels.shape
    device = pixels.device
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    padded = functional.pad(pixels, (0, 0) + 4 * (padding,))
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    # The zeros are alike on both sides, so mirroring the padded image is mirroring the image.
    columns = torch.where(flip[:, None], padded_width - 1 - columns, columns)
    rows = (rows + padded_height * torch.arange(batch, device=device)[:, None]) * padded_width
    places = (rows[:, :, None] + columns[:, None, :]).reshape(-1)
    return padded.view(-1, 3).index_select(0, places).view(batch, height, width, 3)


def between(
    length: int, start: Int64[Tensor, " batch"], extent: Int64[Tensor, " batch"]
) -> Bool[Tensor, "batch length"]:
    """Which of `length` places are within each image's [start, start + extent)."""
    places = torch.arange(length, device=start.device)
    return (places >= start[:, None]) & (places < (start + extent)[:, None])
