"""Names of the images to forget, and whether a recorded path is one of them."""

import hashlib
import os
import re
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

_DIGEST = re.compile(r"\bsha256:([0-9a-f]{64})\b")


class ImageNames:
    """The images to forget, by the names that records have for them.

    A record keeps a path relative to a folder, which some records name and others do not. Where it is named and exists,
    the path has to lead to one of the images. Otherwise a path counts if it is the end of an image's path, so `a/1.jpg`
    may be an image of another folder. A text that holds the SHA-256 of an image's bytes counts, too.
    """

    def __init__(self, images: Iterable[tuple[Path, str]]) -> None:
        """Each image by a folder and its path from there."""
        self._images = tuple(dict.fromkeys(images))
        self._ends: dict[int, frozenset[str]] = {}
        self._roots: dict[Path, str | None] = {}

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The images, absolute."""
        return tuple(dict.fromkeys(Path(os.path.abspath(root / path)) for root, path in self._images))  # noqa: PTH100

    @cached_property
    def whole(self) -> frozenset[str]:
        """Absolute paths: as named, and with links of folders or files followed."""
        real = cache(os.path.realpath)
        names = {str(file) for file in self.files}
        names |= {f"{real(root)}/{path}" for root, path in self._images if not path.startswith("/")}
        names |= {f"{real(file.parent)}/{file.name}" for file in self.files}
        return frozenset(names | {os.path.realpath(file) for file in self.files if file.is_symlink()})

    @cached_property
    def digests(self) -> frozenset[str]:
        """SHA-256 of the files that can be read. Cost: reads all of them, once."""
        return frozenset(digest for file in self.files if (digest := _digest(file)) is not None)

    def match(self, recorded: str, root: Path | None = None) -> bool:
        """Whether a recorded path is that of an image to forget; `root` is the folder that it starts from, if known."""
        path = recorded.removeprefix("./")
        if path.startswith("/"):
            return path in self.whole
        if root is not None and root not in self._roots:
            self._roots[root] = os.path.realpath(root) if root.is_dir() else None
        real = None if root is None else self._roots[root]
        return path in self._ends_of(path.count("/") + 1) if real is None else f"{real}/{path}" in self.whole

    def match_text(self, text: str) -> bool:
        """Whether a text is the name of an image, or has names with digests, as `a.jpg sha256:12; b.jpg sha256:34`."""
        digests = list(_DIGEST.finditer(text))
        if not digests:
            return bool(text) and self.match(text.strip())
        starts = [0, *(found.end() for found in digests)]
        given = [text[start : found.start()].strip(" ;") for start, found in zip(starts, digests, strict=False)]
        return any(map(self.match, given)) or any(found[1] in self.digests for found in digests)

    def any_below(self, folder: Path) -> bool:
        """Whether an image is in a folder, at any depth."""
        start = f"{os.path.realpath(folder)}/"
        return any(name.startswith(start) for name in self.whole)

    def _ends_of(self, parts: int) -> frozenset[str]:
        if parts not in self._ends:
            names = (PurePosixPath(name).parts for name in self.whole)
            self._ends[parts] = frozenset("/".join(name[-parts:]) for name in names if len(name) > parts)
        return self._ends[parts]


def _digest(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
