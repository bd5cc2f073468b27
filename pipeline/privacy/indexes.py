"""Gallery indexes: the vectors of forgotten images are dropped, and inverted lists are built again."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.errors import CheckpointError, DataError
from pipeline.inference.calibration import strangers_of
from pipeline.inference.embedding import forget_parts, has_parts
from pipeline.inference.index import (
    INDEX,
    LOCK,
    PARTS,
    SERVED,
    STRANGER_PARTS,
    IndexedFile,
    IndexRecord,
    is_index,
    is_own,
    read_files,
    read_record,
)
from pipeline.inference.index_files import keep_images, stale_files
from pipeline.inference.index_serving import served_generations
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Lock, Order, Trace

CHUNKS = "unfinished chunks"
_REMOVE = "remove the folder: the next search makes the index again"
_UNKNOWN = "removed: they do not record which images they hold; the next search embeds those again"


def holds_index(folder: Path) -> bool:
    """Whether a folder holds an index, parts of one that was not finished, or one that is served."""
    if is_index(folder) or served_generations(folder):
        return True
    parts = (folder / LOCK).is_file() and any(has_parts(folder / name) for name in (PARTS, STRANGER_PARTS))
    return not (folder / INDEX).exists() and (parts or any(is_own(entry.name) for entry in folder.iterdir()))


def belongs_to_index(name: str) -> bool:
    """Whether an entry of an index's folder is searched with it."""
    return is_own(name) or name in (INDEX, LOCK, SERVED, PARTS, STRANGER_PARTS)


def index_traces(folder: Path, names: ImageNames, manifest: Path | None) -> Iterator[Trace]:
    """The traces of an index: its vectors, files of other generations, and unfinished chunks.

    `manifest` is the one whose columns select images in indexes, or None.

    Raises:
        DataError: The index is damaged; or a running server may hold the images: it has opened this index, in which
            they are, or another generation.
        OSError: It cannot be read.
    """
    traces = list(_traces(folder, names, manifest))
    served = served_generations(folder)
    if served and (traces or not is_index(folder) or served != {read_record(folder).generation}):
        raise DataError(
            f"index {folder} is in use by a running server, which has its vectors in memory: it is not changed",
            hint="stop `vireid serve`, then repeat the command",
        )
    yield from traces


def _traces(folder: Path, names: ImageNames, manifest: Path | None) -> Iterator[Trace]:
    lock = Lock(folder, LOCK, "index")
    stale = [file for file in folder.iterdir() if is_own(file.name)]
    if is_index(folder):
        stale = stale_files(folder)
        yield from _vectors(folder, names, manifest, lock)
    if stale:
        what = "files of another generation of an index"
        yield Trace(folder, what, None, _UNKNOWN, lambda: _remove(stale), lock, certain=False)
    for name in (PARTS, STRANGER_PARTS):
        if has_parts(folder / name):
            forget = partial(forget_parts, folder / name)
            yield Trace(folder / name, CHUNKS, None, _UNKNOWN, forget, lock, certain=False)


def _vectors(folder: Path, names: ImageNames, manifest: Path | None, lock: Lock) -> Iterator[Trace]:
    record, count = read_record(folder), 0
    root, paths = Path(record.root), [file.path for file in _files(folder, record)]
    found = sum(names.match(path, root) for path in paths)
    if record.calibration is not None:
        try:
            start, strangers = strangers_of(folder / record.calibration)
            count = sum(names.match(path, start) for path in strangers)
        except DataError:
            count = 1  # damaged: it is dropped
    if not found + count:
        return
    selects = manifest is not None and Path(record.source) == manifest.resolve()
    yield Trace(
        folder,
        "vectors of an index" if found else "vectors of strangers in a calibration",
        found + count,
        "removed" if found == len(paths) else "rewritten without them",
        lambda: keep_images(folder, lambda path, start: not names.match(path, start)),
        lock,
        Order.SELECTING_INDEX if selects else Order.INDEX,
    )


def _files(folder: Path, record: IndexRecord) -> tuple[IndexedFile, ...]:
    try:
        files = read_files(folder, record)
    except CheckpointError as error:
        raise DataError(error.message, hint=_REMOVE) from error
    if len(files) != record.images:
        message = f"{folder} is damaged: it lists {len(files):,} of {record.images:,} images"
        raise DataError(message, hint=_REMOVE)
    return files


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
