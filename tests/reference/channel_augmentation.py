"""Supervised training transforms image by image: Pillow up to normalisation, then loops over float64 numbers.

Erasing and the channel operations follow Ye et al., ICCV 2021, as the public code of CSDN uses them.
"""

import math

import numpy as np
from PIL import Image, ImageOps

from tests.reference.augmentation import normalised

FILL = (0.4914, 0.4822, 0.4465)


def changed(pixels, *, padding, top, left, flip, erased, channel):
    """One image through pad, crop, flip, normalise, erase and channels; `erased` is (top, left, height, width).

    `channel` is 0, 1, 2, "luminance" or "unchanged".
    """
    height, width, _ = pixels.shape
    image = ImageOps.expand(Image.fromarray(pixels), border=padding, fill=(0, 0, 0))
    image = image.crop((left, top, left + width, top + height))
    if flip:
        image = ImageOps.mirror(image)
    output = normalised(np.asarray(image))
    erased_top, erased_left, erased_height, erased_width = erased
    for row in range(erased_top, erased_top + erased_height):
        for column in range(erased_left, erased_left + erased_width):
            for c in range(3):
                output[c, row, column] = FILL[c]
    if channel == "unchanged":
        return output
    if channel == "luminance":
        luminance = 0.2989 * output[0] + 0.5870 * output[1] + 0.1140 * output[2]
        return np.stack([luminance, luminance, luminance])
    return np.stack([output[channel], output[channel], output[channel]])


def draw_erased(height, width, random):
    """A hundred tries to find a rectangle smaller than the image: (top, left, height, width), or none."""
    for _ in range(100):
        area = height * width * random.uniform(0.02, 0.4)
        aspect = random.uniform(0.3, 1 / 0.3)
        tall = round(math.sqrt(area * aspect))
        wide = round(math.sqrt(area / aspect))
        if tall < height and wide < width:
            return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide
    return None
