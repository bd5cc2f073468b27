"""Archives of arrays with a path an image: feature files, whose rows are dropped, and label files."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.modality import Modality
from pipeline.errors import DataError
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Order, Trace
from pipeline.runtime.arrays import Array, read_all_arrays, read_arrays
from pipeline.runtime.atomic_files import replace_file
from pipeline.runtime.outputs import QUERIES
from pipeline.storage.layout import FORGOTTEN

_HINT = "remove the file, or restore it from a copy and repeat the command"
_REMOVE = "remove it if it holds images of people, or do not name it"
_PATHS, _ROOT, _FEATURES = "paths", "root", "features"
_LABEL_PATHS = tuple(f"{modality}_paths" for modality in Modality)


def archive_traces(file: Path, names: ImageNames, unclear: list[str], *, named: bool) -> Iterator[Trace]:
    """The trace of a feature file of `vireid embed` or `evaluate`, or of a label file outside the folder of its run.

    `unclear` receives one whose vectors have no paths; other archives are ignored, unless the user `named` one.

    Raises:
        DataError: The file is damaged, or is named and cannot be searched.
    """
    arrays, found = read_arrays(file, (_PATHS, _ROOT, *_LABEL_PATHS), _HINT)
    if not arrays.keys().isdisjoint(_LABEL_PATHS):
        count = sum(names.match(path) for paths in label_names(file).values() for path in paths.tolist())
        if count:
            forget = partial(rename_in_labels, file, names, None)
            yield Trace(file, "labels", count, "paths replaced by numbers", forget, order=Order.LABELS)
    elif _FEATURES not in found:
        if named and not QUERIES.recognise(file):
            raise DataError(f"{file} is an archive without `{_FEATURES}`, which is not searched", hint=_REMOVE)
    elif _PATHS not in arrays:
        unclear.append(f"{file} holds vectors without the paths of their images")
    else:
        count = int((~_kept(arrays, names)).sum())
        if count:
            deed = "removed" if count == arrays[_PATHS].size else "rewritten without them"
            yield Trace(file, "vectors of images", count, deed, lambda: _drop_rows(file, names))


def _kept(arrays: Mapping[str, Array], names: ImageNames) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    root = Path(str(arrays[_ROOT])) if _ROOT in arrays and arrays[_ROOT].ndim == 0 else None
    paths = arrays[_PATHS]
    texts = np.char.decode(paths, "utf-8", "replace") if paths.dtype.kind == "S" else paths
    return np.array([not names.match(str(path), root) for path in texts.ravel()], dtype=bool)


def _drop_rows(file: Path, names: ImageNames) -> None:
    arrays = read_all_arrays(file, _HINT)
    kept = _kept(arrays, names)
    if not kept.any():
        file.unlink()
        return
    _write(file, {name: array[kept] if array.shape[:1] == kept.shape else array for name, array in arrays.items()})


def label_names(file: Path) -> dict[str, Array]:
    """The paths in a label file by the names of their arrays; empty for one of an earlier version.

    Raises:
        DataError: The file is damaged.
    """
    arrays, _ = read_arrays(file, _LABEL_PATHS, _HINT)
    if any(array.dtype.kind != "U" or array.ndim != 1 for array in arrays.values()):
        raise DataError(f"{file} is no label file of a run", hint=_HINT)
    return arrays


def rename_in_labels(file: Path, names: ImageNames, root: Path | None) -> None:
    """Replace the paths of images to forget by numbers; rows stay, because they are numbered alike in all rounds."""
    arrays = read_all_arrays(file, _HINT)
    for name, paths in label_names(file).items():
        modality = name.partition("_")[0]
        arrays[name] = np.array(
            [
                f"{FORGOTTEN}{modality}-{row:06d}" if names.match(path, root) else path
                for row, path in enumerate(paths.tolist())
            ]
        )
    _write(file, arrays)


def _write(file: Path, arrays: Mapping[str, Array]) -> None:
    def write(opened: BinaryIO) -> None:
        np.savez_compressed(opened, allow_pickle=False, **arrays)

    replace_file(file, write, archive=True)
