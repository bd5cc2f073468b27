"""Archives of arrays with a path an image: feature files, whose rows are dropped, and label files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.modality import Modality
from pipeline.errors import DataError
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Trace
from pipeline.runtime.arrays import Array, read_all_arrays, read_arrays
from pipeline.runtime.atomic_files import replace_file

_HINT = "remove the file, or restore it from a copy and repeat the command"
_PATHS, _ROOT, _FEATURES = "paths", "root", "features"
_FORGOTTEN = "forgotten/"


def feature_traces(file: Path, names: ImageNames, unclear: list[str]) -> Iterator[Trace]:
    """The trace of a feature file of `vireid embed` or `evaluate`; `unclear` receives one that names no images.

    Raises:
        DataError: The file is damaged.
    """
    arrays, found = read_arrays(file, (_PATHS, _ROOT), _HINT)
    if _FEATURES not in found:
        return
    if _PATHS not in arrays:
        unclear.append(f"{file} holds vectors without the paths of their images")
        return
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
    arrays, _ = read_arrays(file, [f"{modality}_paths" for modality in Modality], _HINT)
    if any(array.dtype.kind != "U" or array.ndim != 1 for array in arrays.values()):
        raise DataError(f"{file} is no label file of a run", hint=_HINT)
    return arrays


def is_forgotten(path: str) -> bool:
    """Whether a path of a label file is the number of an image whose name was removed."""
    return path.startswith(_FORGOTTEN)


def rename_in_labels(file: Path, names: ImageNames, root: Path | None) -> None:
    """Replace the paths of images to forget by numbers; rows stay, because they are numbered alike in all rounds."""
    arrays = read_all_arrays(file, _HINT)
    for name, paths in label_names(file).items():
        modality = name.partition("_")[0]
        arrays[name] = np.array(
            [
                f"{_FORGOTTEN}{modality}-{row:06d}" if names.match(path, root) else path
                for row, path in enumerate(paths.tolist())
            ]
        )
    _write(file, arrays)


def _write(file: Path, arrays: Mapping[str, Array]) -> None:
    def write(opened: BinaryIO) -> None:
        np.savez_compressed(opened, allow_pickle=False, **arrays)

    replace_file(file, write, archive=True)
