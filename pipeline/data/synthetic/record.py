"""The description file by which an adapter recognises a synthetic data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError, DataError
from pipeline.runtime.atomic_files import read_json

DRAWN_FILE = "drawn.json"


def read_drawn(root: Path) -> Mapping[str, Any] | None:
    """Content of `drawn.json`; None for photographs, which have no such file.

    Raises:
        DataError: The file is damaged.
    """
    try:
        return read_json(root / DRAWN_FILE)
    except CheckpointError as error:
        raise DataError(error.message, hint="generate the data set again") from error


def shows_synthetic(images: Path) -> bool:
    """Whether a file or folder of images belongs to a synthetic data set: `drawn.json` is in it or above it."""
    try:
        return any((folder / DRAWN_FILE).is_file() for folder in (images, *images.absolute().parents))
    except (OSError, ValueError):  # a folder that cannot be read, or a null byte in its name
        return False
