"""What lies in the folders of a data set, always in the same order: file systems list in any."""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

logger = logging.getLogger(__name__)

_IMAGE = re.compile(r".+\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE | re.DOTALL)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image; only the extension decides.

    >>> is_image_name("female_back_v_02396_193.BMP"), is_image_name("notes.txt"), is_image_name(".jpg")
    (True, False, False)
    """
    return _IMAGE.fullmatch(name) is not None


def sorted_names(folder: Path) -> list[str]:
    """The names in a folder by code point, without dot files and `Thumbs.db`; none where there is no folder."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return sorted(name for name in names if not name.startswith(".") and name.lower() != "thumbs.db")


def walk_images(root: Path, folder: PurePosixPath, above: frozenset[Path] = frozenset()) -> Iterator[PurePosixPath]:
    """The images below `root / folder` at any depth, relative to `root`, a folder's names by code point.

    Links are followed, but not back to a folder that is being walked already.

    Args:
        root: Where paths start.
        folder: Where to begin, relative to `root`.
        above: The folders that are being walked, resolved; none to begin with.

    Cost:
        One listing a folder; of the files, only those that do not look like images are asked what they are.
    """
    here = (root / folder).resolve()
    if here in above:
        return
    for name in sorted_names(root / folder):
        if is_image_name(name):
            yield folder / name
        elif (root / folder / name).is_dir():
            yield from walk_images(root, folder / name, above | {here})


def report_unexpected(root: Path, unexpected: Sequence[str]) -> None:
    """Say once how much was passed over because it is no image of the layout."""
    if unexpected:
        logger.info("%s: passed over %d entries that are no images, first: %s", root, len(unexpected), unexpected[0])
