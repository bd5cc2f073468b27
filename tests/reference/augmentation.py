"""Training transforms image by image with Pillow, and random erasing as a loop, after torchvision's `RandomErasing`."""

import math

import numpy as np
from PIL import Image, ImageOps

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalised(pixels):
    """Height x width x 3 bytes to 3 x height x width float64."""
    values = pixels.astype(np.float64) / 255.0
    return np.stack([(values[:, :, c] - MEAN[c]) / STD[c] for c in range(3)])


def changed(pixels, *, gray, flip, padding, top, left, erased):
    """One image through gray, flip, pad, crop, normalise and erase; `erased` is (top, left, height, width)."""
    image = Image.fromarray(pixels)
    if gray:
        image = image.convert("L").convert("RGB")
    if flip:
        image = ImageOps.mirror(image)
    width, height = image.size
    image = ImageOps.expand(image, border=padding, fill=(0, 0, 0))
    image = image.crop((left, top, left + width, top + height))
    output = normalised(np.asarray(image))
    erased_top, erased_left, erased_height, erased_width = erased
    for row in range(erased_top, erased_top + erased_height):
        for column in range(erased_left, erased_left + erased_width):
            output[:, row, column] = 0.0
    return output


def draw_erased(height, width, random):
    """Ten tries to find a rectangle smaller than the image: (top, left, height, width), or none."""
    for _ in range(10):
        area = height * width * random.uniform(0.02, 0.33)
        aspect = math.exp(random.uniform(math.log(0.3), math.log(3.3)))
        tall = round(math.sqrt(area * aspect))
        wide = round(math.sqrt(area / aspect))
        if tall < height and wide < width:
            return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide
    return None
