"""Names that look alike: other Unicode forms, spaces and characters without width, upper and lower case."""

import difflib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

_WITHOUT_WIDTH = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")


def plain(name: str) -> str:
    r"""The composed Unicode form, with plain spaces, none at the ends, and without characters of no width.

    >>> plain(" Jose\u0301\u200b\u00a0Gil ") == "Jos\u00e9 Gil"
    True
    """
    composed = unicodedata.normalize("NFC", _WITHOUT_WIDTH.sub("", name))
    return re.sub(r"\s", " ", composed).strip()


def plain_path(path: str) -> str:
    """`plain` of each part of a POSIX path."""
    return "/".join(map(plain, path.split("/")))


def difference(name: str, found: str) -> str:
    """The rule by which a name was found under another spelling."""
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", found):
        return "in another Unicode form"
    same = plain_path(name) == plain_path(found)
    return "with other spaces or invisible characters" if same else "in upper or lower case"


def spelling_notes(pairs: Iterable[tuple[str, str]], what: str) -> Iterator[str]:
    """One sentence for each rule, with the number of names that were found by it.

    >>> list(spelling_notes([("a/IMG.jpg", "a/img.jpg")], "paths"))
    ["1 paths are found in upper or lower case, first 'a/IMG.jpg' as 'a/img.jpg'"]
    """
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, other in pairs:
        found[difference(name, other)].append((name, other))
    for rule, of_rule in found.items():
        first, other = map(ascii, of_rule[0])
        yield f"{len(of_rule):,} {what} are found {rule}, first {first} as {other}"


class Names:
    """Finds a name as it is, or the only one that looks like it: first in `plain` form, then in either case."""

    def __init__(self, names: Iterable[str]) -> None:
        self._exact = frozenset(names)
        self._plain: dict[str, list[str]] | None = None
        self._folded: dict[str, list[str]] = {}

    def find(self, name: str) -> str | None:
        """The name, or the one that it stands for; None if there is none, or several."""
        if name in self._exact:
            return name
        alike = self.alike(name)
        return alike[0] if len(alike) == 1 else None

    def alike(self, name: str) -> list[str]:
        """The names that look like this one, sorted."""
        if self._plain is None:
            self._plain, folded = defaultdict(list), defaultdict(list)
            for one in sorted(self._exact):
                self._plain[plain_path(one)].append(one)
                folded[plain_path(one).casefold()].append(one)
            self._folded = folded
        return self._plain.get(plain_path(name)) or self._folded.get(plain_path(name).casefold(), [])


class FileNames:
    """Finds files below a folder by a spelling that looks like theirs. Cost: one listing a folder, kept."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[PurePosixPath, Names] = {}

    def find(self, path: str) -> str | None:
        """The path on disk, POSIX and relative as `path` is; None if there is none, or several."""
        here = PurePosixPath()
        for part in PurePosixPath(path).parts:
            found = part if part in ("/", "..") else self._names(here).find(part)
            if found is None:
                return None
            here /= found
        return str(here)

    def alike(self, path: str) -> list[str]:
        """Entries of the path's folder that look like its last part."""
        folder = self.find(str(PurePosixPath(path).parent))
        return [] if folder is None else self._names(PurePosixPath(folder)).alike(PurePosixPath(path).name)

    def _names(self, folder: PurePosixPath) -> Names:
        if folder not in self._folders:
            try:
                self._folders[folder] = Names(entry.name for entry in (self._root / folder).iterdir())
            except OSError:
                self._folders[folder] = Names(())
        return self._folders[folder]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The beginning of a hint that names the most similar known name; empty without one.

    >>> did_you_mean("cclnet-sysy", ["cclnet-sysu", "demo"])
    'did you mean cclnet-sysu? '
    """
    similar = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f"did you mean {similar[0]}? " if similar else ""


def is_there(path: Path) -> bool:
    """Whether a path exists; False for one that no disk holds, as a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises an OSError


def similar_path(path: Path) -> Path | None:
    """An existing path that looks like a missing one; None without one."""
    found = FileNames(Path()).find(path.as_posix())
    return None if found is None or found == path.as_posix() or not is_there(Path(found)) else Path(found)
