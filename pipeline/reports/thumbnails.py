"""Small copies of images inside a page, within a limit of bytes."""

import base64
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from pipeline.data.image_files import ImageReading, open_image, without_pillow_warnings

HEIGHT = 88
_QUALITY = 52
_WIDEST = 2 * HEIGHT


class Thumbnails:
    """Images of a folder as `data:` addresses; each use counts towards the limit.

    Attributes:
        missing: Paths that cannot be read.
        omitted: Uses of images beyond the limit.
    """

    def __init__(self, base: Path, reading: ImageReading, limit: int) -> None:
        self._base = base
        self._reading = reading
        self._left = limit
        self._known: dict[str, str] = {}
        self.missing: set[str] = set()
        self.omitted = 0

    def load(self, paths: Iterable[str]) -> None:
        """Decode images, each once. Cost: about 4 ms and 1.5 KB an image on one core."""
        wanted = [path for path in dict.fromkeys(paths) if path not in self._known]
        small = partial(_small, base=self._base, reading=self._reading)
        with without_pillow_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            self._known |= dict(zip(wanted, pool.map(small, wanted), strict=True))
        self.missing |= {path for path in wanted if not self._known[path]}

    def address(self, path: str) -> str | None:
        """The `data:` address of a loaded image; empty if it cannot be read, None beyond the limit."""
        found = self._known[path]
        if len(found) > self._left:
            self.omitted += 1
            return None
        self._left -= len(found)
        return found


def _small(path: str, base: Path, reading: ImageReading) -> str:
    try:
        image = open_image(base / path, reading).image
    except (OSError, ValueError):
        return ""
    width = min(_WIDEST, max(1, round(image.width * HEIGHT / image.height)))
    buffer = io.BytesIO()
    image.resize((width, HEIGHT), Image.Resampling.BILINEAR, reducing_gap=2.0).save(
        buffer, "WEBP", quality=_QUALITY, method=2
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
