"""Decoded images: a store that holds an image to forget is removed whole; the next run decodes the others again."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.store import INDEX_FILE, paths_of_store
from pipeline.errors import DataError
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Lock, Trace

_STORE = re.compile(r"[0-9a-f]{64}(\.partial|\.outdated)?")
_UNFINISHED = "removed: it does not record which images it holds; the next run decodes them again"


def is_store(folder: Path) -> bool:
    """Whether a folder is one of decoded images, finished or not."""
    return _STORE.fullmatch(folder.name) is not None


def belongs_to_store(name: str) -> bool:
    """Whether a file in the folder of a store is one of its own."""
    return name == INDEX_FILE or name.endswith(".npy")


def store_traces(folder: Path, names: ImageNames) -> Iterator[Trace]:
    """The trace of a store that holds images to forget, or that does not record which ones it holds."""
    try:
        paths = (paths_of_store(folder) or None) if (folder / INDEX_FILE).is_file() else None
    except DataError:
        paths = None  # damaged: of no use, and decoded again
    found = None if paths is None else sum(map(names.match, paths))
    if found == 0:
        return
    deed = _UNFINISHED if paths is None else f"removed, with {len(paths) - (found or 0):,} other images: decoded again"

    def forget() -> None:
        if not folder.is_dir():
            return
        unfinished = folder.with_name(f"{_key(folder)}.partial")
        if folder != unfinished:
            shutil.rmtree(unfinished, ignore_errors=True)
            folder.rename(unfinished)  # a kill leaves no store without some of its files
        shutil.rmtree(unfinished)

    lock = Lock(folder.parent, f"{_key(folder)}.lock", "decoded images in")
    yield Trace(folder, "decoded images", found, deed, forget, lock, certain=found is not None)


def _key(folder: Path) -> str:
    return folder.name.partition(".")[0]
