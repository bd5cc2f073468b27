"""Write a manifest of two sets of folders, visible and infrared photographs of cameras, at any depth."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from models.modality import Modality, PerModality
from pipeline.data.datasets.manifest.rows import SPLITS, UNWRITABLE, ManifestRow, is_writable, parse_row
from pipeline.data.datasets.manifest.writer import (
    ManifestSummary,
    counted,
    is_junk,
    require_new_table,
    split_by_people,
    write_rows,
)
from pipeline.data.image_folders import list_folder
from pipeline.data.image_names import skipped_by_extension
from pipeline.data.roots import require_folder
from pipeline.errors import ConfigError, DataError

_EXAMPLE = "for instance --person-pattern 'p(\\d+)_'"
_SHOWN = 3
_DASHED_CLOCK = re.compile(r"[ T_]\d{2}-\d{2}")  # ISO 8601 would read the minutes as a time zone
_DIGITS = re.compile(r"(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(?:(\d{2})(\d{1,6})?)?)?")


@dataclass(frozen=True, slots=True)
class FolderPatterns:
    """Regular expressions with one group each, searched in `FOLDER/PATH`, where FOLDER is the name of the given folder.

    Without `camera` it is the first folder below the given one, or that folder itself for images directly in it.
    """

    camera: str | None = None
    person: str | None = None
    track: str | None = None
    time: str | None = None

    def compiled(self) -> Mapping[str, re.Pattern[str]]:
        """The given patterns by column.

        Raises:
            ConfigError: A pattern is no regular expression with one group.
        """
        found: dict[str, re.Pattern[str]] = {}
        for column in ("camera", "person", "track", "time"):
            text = getattr(self, column)
            if text is None:
                continue
            try:
                found[column] = re.compile(text)
            except re.error as error:
                raise ConfigError(f"--{column}-pattern {text!r} is no regular expression: {error}", _EXAMPLE) from error
            if (groups := found[column].groups) != 1:
                raise ConfigError(
                    f"--{column}-pattern {text!r} has {groups} groups: one in parentheses is the {column}",
                    hint=_EXAMPLE,
                )
        return found


def write_folders(
    folders: PerModality[Sequence[Path]],
    out: Path,
    *,
    patterns: FolderPatterns | None = None,
    same_cameras: bool = False,
    split: str = "train",
    junk_people: Sequence[str] | None = None,
    test_share: float | None = None,
    seed: int = 1,
) -> ManifestSummary:
    """Describe photographs of visible and of infrared cameras in a new CSV file `out`.

    Paths are relative to the folder of `out`; if images lie outside of it, they are relative to the folder that holds
    all given ones, which column `images_root` names. If a name of a camera occurs in both modalities, all cameras are
    called `NAME-visible` or `NAME-infrared`, because it may be two cameras; `same_cameras` declares it one. Skipped,
    and counted in notes: files of other extensions, hidden and empty files, links out of a folder, images that a
    pattern for camera or person does not match, and junk people. `test_share`, `seed` and `junk_people` are as for
    `write_manifest`.

    Raises:
        ConfigError: A pattern has no meaning, folders overlap, or an option needs people.
        DataError: A folder is missing, no image of a modality is left, or `out` exists.

    Cost: one listing a folder, and one file status an image; no image is opened.
    """
    found = (patterns or FolderPatterns()).compiled()
    _check_request(folders, out, found, split, test_share)
    base, images_root = _base(folders, out)
    reader = _Reader(found, split, junk_people)
    rows: list[ManifestRow] = []
    for modality, some in folders.items():
        before = len(rows)
        for folder in some:
            start = Path(os.path.relpath(folder.resolve() if images_root else folder.absolute(), base))
            rows += reader.rows(folder, PurePosixPath(start.as_posix()), modality)
        if len(rows) == before:
            shown = "; ".join((f"no {modality} image is left of {', '.join(map(str, some))}", *reader.notes()))
            raise DataError(shown, hint="name folders of images that can be read here, or change the patterns")
    rows = [replace(row, images_root=images_root) for row in rows]
    notes = list(reader.notes())
    rows = _told_apart(rows, same_cameras, notes)
    rows = _alike(_alike(rows, "camera", notes), "person", notes)
    if test_share is not None:
        rows = split_by_people(rows, test_share, seed, notes)
    optional = {"person", "track", "time"} & found.keys()
    if images_root:
        optional.add("images_root")
        notes.append(f"the images are not below the folder of {out.name}: its column images_root names {images_root}")
    write_rows(out, rows, optional)
    return ManifestSummary.of(out, rows, notes)


def _check_request(
    folders: PerModality[Sequence[Path]],
    out: Path,
    found: Mapping[str, re.Pattern[str]],
    split: str,
    test_share: float | None,
) -> None:
    for modality, some in folders.items():
        if not some:
            raise ConfigError(f"no {modality} folder is named", hint=f"name it with --{modality}; it is repeatable")
        for folder in some:
            require_folder(folder, f"name a folder of {modality} images with --{modality}")
    real = [(folder, folder.resolve()) for some in folders for folder in some]
    for (one, first), (other, second) in combinations(real, 2):
        if first.is_relative_to(second) or second.is_relative_to(first):
            raise ConfigError(
                f"{one} and {other} are one folder, or one in the other: an image is listed once, with one modality",
                hint="name folders that do not overlap",
            )
    require_new_table(out)
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} does not exist", hint=f"one of {', '.join(SPLITS)}")
    if "person" not in found and (split != "train" or test_share is not None):
        option = "--test-share" if split == "train" else f"--split {split}"
        raise ConfigError(f"{option} needs people, by --person-pattern", hint=_EXAMPLE)
    if test_share is not None and (split != "train" or not 0 < test_share < 1):
        raise ConfigError(
            "--test-share puts a share of the people, between 0 and 1, into test and the others into train",
            hint="omit --split, and choose for instance --test-share 0.5",
        )


def _base(folders: PerModality[Sequence[Path]], out: Path) -> tuple[Path, str]:
    """The folder that paths start from, and its name for column `images_root`, empty if it is the folder of `out`."""
    own = out.parent.absolute()
    if all(Path(os.path.relpath(folder.absolute(), own)).parts[:1] != ("..",) for some in folders for folder in some):
        return own, ""
    base = os.path.commonpath([folder.resolve() for some in folders for folder in some])
    return Path(base), base


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns files into rows; `left` has the files that are skipped, or lack a field, by the sentence about them.

    `others` are the files of other extensions.
    """

    patterns: Mapping[str, re.Pattern[str]]
    split: str
    junk_people: Sequence[str] | None
    left: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    others: list[str] = field(default_factory=list)

    def notes(self) -> Iterator[str]:
        """The number of files of each reason, and the first of them."""
        if note := skipped_by_extension(self.others):
            yield note
        for reason, paths in self.left.items():
            yield counted(reason, paths)

    def rows(self, folder: Path, start: PurePosixPath, modality: Modality) -> Iterator[ManifestRow]:
        """The rows of a folder's images; `start` leads from the base of all paths to the folder."""
        listed, name = list_folder(folder), folder.resolve().name
        self.others.extend(f"{name}/{path}" for path in listed.others)
        for reason, paths in (
            ("hidden files and folders are skipped", listed.hidden),
            ("links to folders, out of the folder, or to nothing are not followed", listed.links),
            ("folders cannot be listed", listed.closed),
        ):
            if paths:
                self.left[reason] += [f"{name}/{path}" for path in paths]
        for path in listed.images:
            row = _file_problem(folder / path) or self._row(f"{name}/{path}", start / path, modality)
            if isinstance(row, ManifestRow):
                yield row
            else:
                self.left[row].append(f"{name}/{path}")

    def _row(self, shown: str, path: PurePosixPath, modality: Modality) -> ManifestRow | str:
        """The row of an image as the reader of manifests parses it, or the reason why it is skipped."""
        name, *below = PurePosixPath(shown).parts
        values = {"camera": below[0] if len(below) > 1 else name}
        for column, pattern in self.patterns.items():
            match = pattern.search(shown)
            text = "" if match is None else match[1] or ""
            values[column] = iso_time(text) if column == "time" else text
            if not values[column] and column in ("camera", "person"):
                return f"images do not match --{column}-pattern and are skipped"
            if not values[column]:
                self.left[f"images have no {column} by --{column}-pattern and are listed without"].append(shown)
        if is_junk(values.get("person", ""), shown, self.junk_people):
            return "images of junk people are skipped (--junk-people)"
        row = parse_row(0, {"path": str(path), "modality": str(modality), "split": self.split, **values})
        return row if isinstance(row, ManifestRow) and is_writable(str(path)) else UNWRITABLE


def _file_problem(path: Path) -> str:
    """The reason why a file is skipped before its name is read; empty without one."""
    try:
        status = path.stat()
    except OSError:
        return "images cannot be opened"
    if not S_ISREG(status.st_mode):
        return "entries are no regular files"
    return "" if status.st_size else "empty files are skipped"


def iso_time(text: str) -> str:
    """A point in time as ISO 8601; empty if the text is none.

    >>> iso_time("20261128_140300"), iso_time("2026-11-28 14-03"), iso_time("2026-11-28T14:03:00+02:00"), iso_time("12")
    ('2026-11-28T14:03:00', '2026-11-28T14:03:00', '2026-11-28T14:03:00+02:00', '')
    """
    own = "" if _DASHED_CLOCK.search(text) else text.strip()
    for candidate in (own, _from_digits(text)):
        try:
            return datetime.fromisoformat(candidate).isoformat()
        except ValueError:
            continue
    return ""


def _from_digits(text: str) -> str:
    match = _DIGITS.fullmatch(re.sub(r"\D", "", text))
    if match is None:
        return ""
    year, month, day, hour, minute, second, fraction = match.groups()
    date = f"{year}-{month}-{day}"
    if hour is None:
        return date
    clock = f"{hour}:{minute}" + (f":{second}" if second else "") + (f".{fraction:0<6}" if fraction else "")
    return f"{date}T{clock}"


def _told_apart(rows: list[ManifestRow], same_cameras: bool, notes: list[str]) -> list[ManifestRow]:
    """The rows with cameras that are different ones in both modalities, unless `same_cameras`."""
    visible, infrared = PerModality.build(lambda modality: {row.camera for row in rows if row.modality is modality})
    both = sorted(visible & infrared)
    if not both:
        return rows
    shown = ", ".join(both[:_SHOWN]) + (", ..." if len(both) > _SHOWN else "")
    if same_cameras:
        notes.append(
            f"{len(both):,} cameras have both modalities, and evaluation excludes a query's own camera: {shown}"
        )
        return rows
    notes.append(
        f"{len(both):,} names of cameras are in both modalities, as different cameras such as {both[0]}-visible and "
        f"{both[0]}-infrared; --same-cameras makes them one: {shown}"
    )
    return [replace(row, camera=f"{row.camera}-{row.modality}") for row in rows]


def _alike(rows: list[ManifestRow], column: str, notes: list[str]) -> list[ManifestRow]:
    """A column of numbers and texts as texts: a manifest has one kind."""
    names = {getattr(row, column) for row in rows} - {""}
    if len({name.isdecimal() for name in names}) < 2:
        return rows
    notes.append(f"names of {column}s are numbers and texts: each begins with {column}- now")
    return [
        replace(row, person=f"person-{row.person}")
        if column == "person"
        else replace(row, camera=f"camera-{row.camera}")
        for row in rows
    ]
