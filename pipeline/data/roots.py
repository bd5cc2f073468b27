"""Folders of data sets that are almost right: missing, a file, an archive, empty, one level too high or too low."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from pipeline.config.datasets import TABLES
from pipeline.data.check import MAKE_AGAIN
from pipeline.data.synthetic.record import read_drawn
from pipeline.errors import DataError
from pipeline.runtime.names import Names, is_there, similar_path

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_MOST_FOLDERS = 200
_NO_DATA = "name its folder with --data, or as the argument; docs/data-sets.md describes how to obtain a data set"


def describe_absent(path: Path, kind: str = "folder") -> str:
    """The reason why there is nothing at a path: a broken link, another spelling, or the first missing folder."""
    if os.path.islink(path):  # noqa: PTH114 - Path.is_symlink raises an OSError
        return f"{path} is a link to {os.readlink(path)}, which is not there"  # noqa: PTH115 - as it is written
    if (alike := similar_path(path)) is not None:
        return f"there is no {kind} {path}; {str(alike)!a} is there, whose name differs in case or invisibly"
    return f"there is no {kind} {path}" + ("" if path.is_absolute() else f" in the working folder {Path.cwd()}")


def require_folder(root: Path, hint: str | None = None) -> None:
    """Refuse a root that is missing, a file, an archive, empty or unreadable; `hint` is for other folders than data."""
    try:
        if not is_there(root):
            raise DataError(describe_absent(root), hint=hint or _NO_DATA)
        if root.is_file() and root.suffix.lower() in _ARCHIVES:
            raise DataError(f"{root} is an archive, not a folder", hint="unpack it, and name the folder")
        if not root.is_dir():
            is_table = root.suffix.lower() in TABLES
            named = "`vireid train PRESET --data FILE` trains on a manifest; elsewhere set data.name to manifest"
            raise DataError(f"{root} is a file, not a folder", hint=hint or (named if is_table else "name the folder"))
        with os.scandir(root) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror}", hint="check its permissions") from error
    if empty:
        raise DataError(f"{root} is empty", hint="unpack the data set into it, or mount the disk that holds it")


def require_layout(root: Path, title: str, folders: Sequence[str], missing_files: Iterable[str], hint: str) -> None:
    """Refuse a root that lacks folders of a data set's layout, or the given files.

    A folder of that layout below or above the root is named; `hint` is for a root with nothing of the layout.
    """
    require_folder(root)
    missing = [*(f"{folder}/" for folder in folders if not (root / folder).is_dir()), *missing_files]
    if not missing:
        return
    problem = f"{root} is not laid out like {title}"
    absent = [folder for folder in folders if not (root / folder).is_dir()]
    partly = len(absent) < len(folders)
    if not partly:
        for other, what in _other_places(root, folders):
            raise DataError(f"{problem}, but its {what} {other} is", hint="name that folder")
    entries = Names(entry.name for entry in root.iterdir())
    for folder in absent:
        if os.path.lexists(root / folder):
            reason = describe_absent(root / folder) if not is_there(root / folder) else f"{folder} is a file"
            raise DataError(f"{problem}: {reason}", hint="mend the link, or unpack the data set again")
        if alike := entries.alike(folder):
            spelled = f"{problem}: no {', '.join(missing)}; there is {alike[0]!a}"
            raise DataError(spelled, hint=f"the layout has {folder!r}: rename it (upper and lower case differ)")
    if read_drawn(root) is not None and partly:
        raise DataError(f"{problem}: no {', '.join(missing)}", hint=MAKE_AGAIN)
    packed = sorted(one.name for one in root.iterdir() if one.suffix.lower() in _ARCHIVES)
    if packed:
        raise DataError(f"{problem}: no {', '.join(missing)}", hint=f"unpack {', '.join(packed[:3])}")
    raise DataError(
        f"{problem}: no {', '.join(missing)}",
        hint="copy what is missing from the data set; docs/data-sets.md describes its layout" if partly else hint,
    )


def _other_places(root: Path, folders: Sequence[str]) -> Iterable[tuple[Path, str]]:
    """Folders with the whole layout, up to two levels below the root or above it."""
    below = (one for pattern in ("*", "*/*") for one in islice(sorted(root.glob(pattern)), _MOST_FOLDERS))
    places = [(one, "subfolder") for one in below] + [(one, "parent folder") for one in root.absolute().parents[:2]]
    for one, what in places:
        try:
            if all((one / folder).is_dir() for folder in folders):
                yield one, what
        except OSError:
            continue
