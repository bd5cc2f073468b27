"""Gallery indexes: the vectors of forgotten images are dropped, and inverted lists are built again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from pipeline.errors import CheckpointError, DataError
from pipeline.inference.embedding import forget_parts, has_parts
from pipeline.inference.index import INDEX, LOCK, PARTS, is_index, is_own, read_files, read_record
from pipeline.inference.index_files import keep_rows, stale_files
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Lock, Order, Trace

CHUNKS = "unfinished chunks"
_UNKNOWN = "removed: they do not record which images they hold; the next search embeds those again"


def holds_index(folder: Path) -> bool:
    """Whether a folder holds an index, or parts of one that was not finished."""
    if is_index(folder):
        return True
    parts = (folder / LOCK).is_file() and has_parts(folder / PARTS)
    return not (folder / INDEX).exists() and (parts or any(is_own(entry.name) for entry in folder.iterdir()))


def index_traces(folder: Path, names: ImageNames, manifest: Path | None) -> Iterator[Trace]:
    """The traces of an index: its vectors, files of other generations, and unfinished chunks.

    `manifest` is the one whose columns select images in indexes, or None.

    Raises:
        DataError: The index is damaged.
    """
    lock = Lock(folder, LOCK, "index")
    stale = [file for file in folder.iterdir() if is_own(file.name)]
    if is_index(folder):
        stale = stale_files(folder)
        found = int((~_kept(folder, names)).sum())
        if found:
            selects = manifest is not None and Path(read_record(folder).source) == manifest.resolve()
            deed = "rewritten without them" if _kept(folder, names).any() else "removed"
            yield Trace(
                folder,
                "vectors of an index",
                found,
                deed,
                lambda: keep_rows(folder, _kept(folder, names)),
                lock,
                Order.SELECTING_INDEX if selects else Order.INDEX,
            )
    if stale:
        what = "files of another generation of an index"
        yield Trace(folder, what, None, _UNKNOWN, lambda: _remove(stale), lock, certain=False)
    if has_parts(folder / PARTS):
        yield Trace(folder / PARTS, CHUNKS, None, _UNKNOWN, lambda: forget_parts(folder / PARTS), lock, certain=False)


def _kept(folder: Path, names: ImageNames) -> Bool[np.ndarray, " n"]:
    """Which rows of an index stay."""
    try:
        record = read_record(folder)
        files = read_files(folder, record)
    except CheckpointError as error:
        raise DataError(error.message, hint="remove the folder: the next search makes the index again") from error
    if len(files) != record.images:
        raise DataError(
            f"{folder} is damaged: it lists {len(files):,} of {record.images:,} images",
            hint="remove the folder: the next search makes the index again",
        )
    root = Path(record.root)
    return np.array([not names.match(file.path, root) for file in files], dtype=bool)


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
