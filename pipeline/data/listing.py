"""Names in the folders of a data set, in a fixed order, and text files of users."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from pipeline.errors import DataError

logger = logging.getLogger(__name__)

_IMAGE = re.compile(r".+\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE | re.DOTALL)


def is_image_name(name: str) -> bool:
    """Whether the extension is that of an image.

    >>> is_image_name("female_back_v_02396_193.BMP"), is_image_name("notes.txt"), is_image_name(".jpg")
    (True, False, False)
    """
    return _IMAGE.fullmatch(name) is not None


def sorted_names(folder: Path) -> list[str]:
    """The names in a folder by code point, without dot files and `Thumbs.db`; empty without a folder."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return sorted(name for name in names if not name.startswith(".") and name.lower() != "thumbs.db")


def walk_images(root: Path, folder: PurePosixPath, above: frozenset[Path] = frozenset()) -> Iterator[PurePosixPath]:
    """The images below `root / folder` at any depth, relative to `root`, a folder's names by code point.

    Links are followed, except to a folder that is being walked (`above`, for the recursion). Cost: One listing a
    folder, and a file status only for names that are not image names.
    """
    here = (root / folder).resolve()
    if here in above:
        return
    for name in sorted_names(root / folder):
        if is_image_name(name):
            yield folder / name
        elif (root / folder / name).is_dir():
            yield from walk_images(root, folder / name, above | {here})


def images_by_person(
    root: Path, folder: str, pattern: re.Pattern[str], unexpected: list[str], image: re.Pattern[str] = _IMAGE
) -> Iterator[tuple[int, PurePosixPath]]:
    """Person and path of each image in `folder/PERSON/`, names by code point; other entries go to `unexpected`."""
    for person in sorted_names(root / folder):
        place = PurePosixPath(folder, person)
        if not (pattern.fullmatch(person) and (root / place).is_dir()):
            unexpected.append(str(place))
            continue
        for name in sorted_names(root / place):
            if image.fullmatch(name):
                yield int(person), place / name
            else:
                unexpected.append(str(place / name))


def require_layout(root: Path, title: str, folders: Iterable[str], missing_files: Iterable[str], hint: str) -> None:
    """Refuse a root that lacks folders of a data set's layout, or the given files."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", hint=hint)
    missing = [*(f"{folder}/" for folder in folders if not (root / folder).is_dir()), *missing_files]
    if missing:
        raise DataError(f"{root} is not laid out like {title}: no {', '.join(missing)}", hint=hint)


def report_unexpected(root: Path, unexpected: Sequence[str]) -> None:
    """Log once how many entries were skipped because they are no images of the layout."""
    if unexpected:
        logger.info("%s: skipped %d entries that are no images, first: %s", root, len(unexpected), unexpected[0])


def read_text(path: Path, *, kind: str, origin: str) -> str:
    """Read a UTF-8 file, with or without a byte order mark; line ends are kept, because file names may contain them.

    Raises:
        DataError: The file (a `kind`) is missing (with `origin` as the hint), unreadable, or not UTF-8; the line is
            named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no {kind} {path}", hint=origin) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="check the file") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}:{line}: not UTF-8: {error}", hint="save it again in that encoding") from error
