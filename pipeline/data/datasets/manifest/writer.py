"""Write a manifest from folders: camera, person and modality are read from paths by a pattern of the user."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from models.modality import Modality, PerModality
from pipeline.data.datasets.manifest.checks import mixed_names
from pipeline.data.datasets.manifest.rows import REQUIRED, SPLITS, UNWRITABLE, ManifestRow, is_writable, parse_row
from pipeline.data.image_names import is_readable_name, skipped_by_extension
from pipeline.data.listing import walk_images
from pipeline.data.roots import require_folder
from pipeline.data.values import MODALITY_NAMES
from pipeline.errors import ConfigError, DataError
from pipeline.runtime.names import plain
from pipeline.runtime.outputs import MANIFEST, write_output
from pipeline.runtime.seeds import numpy_generator

UNNAMED_CAMERAS = PerModality("1", "2")
"""Cameras of a pattern without `{camera}`. One for both modalities would exclude every match from evaluation."""

FIELDS = ("camera", "person", "name", "modality", "split", "_")

COLUMNS = ("path", "modality", "camera", "person", "split", "track", "time", "images_root")
"""All columns in the order in which they are written."""

_EXAMPLE = "for instance --pattern 'cam{camera}/{person}/{name}' --infrared-cameras 3,6"
_RENAME = "rename files and folders, or use a pattern that excludes these"
_KEEP_JUNK = "--junk-people names others, --junk-people none keeps all"
_JUNK = re.compile(r"-[0-9]+")
_JUNK_OF_MARKET = re.compile(r"0000_c[0-9]+.*")  # background of Market-1501, in its file names
_SHOWN = 5
_SHOWN_SKIPPED = 3
_FIELD = re.compile(r"\{(\w*)\}")


Match = tuple[str, re.Match[str]]
"""A path, and how it matches the pattern."""

NamePeople = Callable[[Sequence[str]], tuple[Mapping[str, str], Sequence[str]]]
"""From paths to the people of some of them, and notes."""


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """Path and counts of a written manifest, with notes for the user."""

    path: Path
    images: int
    people: int
    visible: int
    infrared: int
    cameras: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, rows: Sequence[ManifestRow], notes: Iterable[str]) -> "ManifestSummary":
        """Count the rows of a manifest."""
        kinds = Counter(row.modality for row in rows)
        people, cameras = {row.person for row in rows if row.person}, {row.camera for row in rows}
        visible, infrared = PerModality.build(lambda modality: kinds[modality])
        return cls(path, len(rows), len(people), visible, infrared, len(cameras), tuple(notes))

    def __str__(self) -> str:
        counts = f"{self.visible:,} visible and {self.infrared:,} infrared images"
        counts += f" of {self.people:,} people" if self.people else f" of {self.cameras:,} cameras"
        return "\n".join([f"{self.path}: {counts}", *(f"note: {note}" for note in self.notes)])


def write_manifest(
    folder: Path,
    out: Path,
    *,
    pattern: str,
    infrared_cameras: Sequence[str] = (),
    modality_names: Mapping[str, str] | None = None,
    split: str = "train",
    split_names: Mapping[str, str] | None = None,
    junk_people: Sequence[str] | None = None,
    test_share: float | None = None,
    seed: int = 1,
    name_people: NamePeople | None = None,
) -> ManifestSummary:
    """Describe the images below a folder in a new CSV file `out`, with paths relative to the folder.

    The modality follows from `infrared_cameras` (all others are visible) or from `{modality}` in the pattern, whose
    texts `modality_names` translates (`{"Thermal": "infrared"}`); it is never guessed from pixels, because gray
    photographs exist. `split_names` translates the texts of `{split}` (`{"bounding_box_test": "gallery"}`). Images of
    `junk_people` are excluded; by default those of negative numbers, and of `0000` in file names like those of
    Market-1501, which show no person. `pattern` contains `{camera}`, `{person}`, `{name}`, `{modality}`, `{split}`, and
    `{}` for a part without a meaning; a field is a stretch of one path part, as short as possible. `test_share`, from 0
    to 1, puts the images of that share of the people, chosen by `seed`, into `test` and the others into `train`.
    `name_people` names the person of some images where the pattern names none; in a split that needs people, the others
    are excluded.

    Images whose paths are not text, or have a backslash or a line end, are skipped and counted.

    Raises:
        ConfigError: The pattern or a name in it has no meaning, or the modality is undefined.
        DataError: No image matches the pattern, a camera or person would not be read back, or `out` exists.
    """
    names = {name: str(modality) for name, modality in MODALITY_NAMES.items()} | _folded(modality_names)
    splits = {name: name for name in SPLITS} | _folded(split_names)
    expression = _compile(pattern.replace("\\", "/").removeprefix("./"))
    _check_request(folder, out, expression, infrared_cameras, names, split, test_share, name_people is not None)
    _check_splits(expression, splits, split_names)
    others: list[str] = []
    found = [str(path) for path in walk_images(folder, PurePosixPath(), is_image=is_readable_name, others=others)]
    images = [path for path in found if is_writable(path)]
    unwritable = [path for path in found if not is_writable(path)]
    skipped = [note for note in (skipped_by_extension(others), counted(UNWRITABLE, unwritable)) if note]
    matches = [(path, match) for path in images if (match := expression.fullmatch(path))]
    matched = [path for path, _ in matches]
    if not matches:
        shown = "".join(f"; {one}" for one in (*(f"the first image is {one}" for one in images[:1]), *skipped))
        raise DataError(f"none of {len(images):,} images below {folder} is named like {pattern}{shown}", hint=_EXAMPLE)
    matches, junk = _without_junk(matches, junk_people)
    if not matches:
        raise DataError(f"no image below {folder} is left: {_junk_note(junk)}", hint=_KEEP_JUNK)
    _check_cameras([match for _, match in matches], infrared_cameras)
    _check_texts(matches, "modality", names, tuple(Modality))
    _check_texts(matches, "split", splits, SPLITS)
    matches, people, people_notes = _with_people(matches, name_people, split)
    rows = [_row(path, match, infrared_cameras, names, splits, split, people) for path, match in matches]
    for mistake in mixed_names(rows):
        raise DataError(f"{folder}: {mistake.message}", hint=_RENAME)
    notes = [*_notes(images, matched, expression, named=bool(people)), *skipped, *people_notes]
    if junk:
        notes.append(_junk_note(junk))
    if test_share is not None:
        rows = split_by_people(rows, test_share, seed, notes)
    write_rows(out, rows, ("person",) if people or "person" in expression.groupindex else ())
    return ManifestSummary.of(out, rows, notes)


def _compile(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    fields: set[str] = set()
    end = 0
    for field in _FIELD.finditer(pattern):
        name = "" if field[1] == "_" else field[1]
        if name and name not in FIELDS:
            raise ConfigError(f"--pattern knows no {{{name}}}", hint=f"one of {', '.join(FIELDS)}; {_EXAMPLE}")
        if name in fields:
            raise ConfigError(f"--pattern has {{{name}}} twice", hint="write {} for the second")
        parts.append(re.escape(pattern[end : field.start()]))
        parts.append(rf"(?P<{name}>[^/]+?)" if name else r"[^/]+?")
        fields |= {name} - {""}
        end = field.end()
    parts.append(re.escape(pattern[end:]))
    return re.compile("".join(parts))


def _check_request(
    folder: Path,
    out: Path,
    expression: re.Pattern[str],
    infrared_cameras: Sequence[str],
    names: Mapping[str, str],
    split: str,
    test_share: float | None,
    named: bool,
) -> None:
    fields = expression.groupindex
    require_folder(folder, "name the folder that holds the images")
    require_new_table(out)
    if out.resolve().is_relative_to(folder.resolve()) and out.resolve().parent != folder.resolve():
        raise ConfigError(f"{out} is among the images", hint=f"write it to {folder}, or outside")
    if ("modality" in fields) == bool(infrared_cameras):
        raise ConfigError(
            "either {modality} in the pattern or --infrared-cameras must name the infrared images",
            hint=f"the modality is never guessed from pixels; {_EXAMPLE}",
        )
    if infrared_cameras and "camera" not in fields:
        raise ConfigError("--infrared-cameras needs {camera} in the pattern", hint=_EXAMPLE)
    if unknown := [modality for modality in names.values() if modality not in set(Modality)]:
        raise ConfigError(f"{unknown[0]!r} is not visible or infrared", hint="--modality-names 'Thermal=infrared'")
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} does not exist", hint=f"one of {', '.join(SPLITS)}")
    if named and {"person", "split"} & {*fields}:
        raise ConfigError("--feedback needs a pattern without {person} and {split}", hint="write {} for them")
    if split != "train" and "person" not in fields and not named:
        raise ConfigError(f"--split {split} needs {{person}} in the pattern", hint=_EXAMPLE)
    says_split = "split" in fields or split != "train"
    if test_share is not None and ("person" not in fields or says_split or not 0 < test_share < 1):
        raise ConfigError(
            "--test-share puts a share of the people, between 0 and 1, into test and the others into train: "
            "it needs {person} in the pattern, no {split} there and no --split",
            hint=_EXAMPLE,
        )


def require_new_table(out: Path) -> None:
    """Refuse an output that exists, or is no `.csv` file."""
    if out.exists():
        raise DataError(f"{out} exists", hint="name another file with --out, or remove this one")
    if out.suffix.lower() != ".csv":
        raise ConfigError(f"{out} is no .csv file", hint="name the file with --out SITE.csv")


def _folded(names: Mapping[str, str] | None) -> dict[str, str]:
    return {plain(name).casefold(): value for name, value in (names or {}).items()}


def _check_splits(
    expression: re.Pattern[str], splits: Mapping[str, str], split_names: Mapping[str, str] | None
) -> None:
    example = "--split-names 'bounding_box_train=train,query=query,bounding_box_test=gallery'"
    if unknown := [split for split in splits.values() if split not in SPLITS]:
        raise ConfigError(f"split {unknown[0]!r} does not exist", hint=f"one of {', '.join(SPLITS)}: {example}")
    if split_names and "split" not in expression.groupindex:
        raise ConfigError("--split-names needs {split} in the pattern", hint=example)


def _check_texts(matches: Sequence[Match], field: str, names: Mapping[str, str], choices: Sequence[str]) -> None:
    """Refuse texts of a field that have no meaning, all at once; upper and lower case are the same."""
    first: dict[str, str] = {}
    for path, match in matches:
        if field in match.groupdict() and plain(match[field]).casefold() not in names:
            first.setdefault(match[field], path)
    if first:
        one, *others = sorted(first)[:_SHOWN]
        more = f", nor have {', '.join(map(repr, others))}" if others else ""
        entries = ",".join(f"{text}=..." for text in (one, *others))
        raise ConfigError(
            f"{first[one]}: the {field} {one!r} has no meaning{more}",
            hint=f"add --{field}-names '{entries}', with one of {', '.join(choices)} for each ...",
        )


def _without_junk(matches: Sequence[Match], junk_people: Sequence[str] | None) -> tuple[list[Match], Counter[str]]:
    """The images of people, and the number of excluded images of each junk person."""
    kept: list[Match] = []
    junk: Counter[str] = Counter()
    for path, match in matches:
        person = match.groupdict().get("person", "")
        if is_junk(person, path, junk_people):
            junk[person] += 1
        else:
            kept.append((path, match))
    return kept, junk


def is_junk(person: str, path: str, junk_people: Sequence[str] | None) -> bool:
    """Whether an image is of a junk person: one of `junk_people`, or, if None, of those that `write_manifest` names."""
    if junk_people is not None:
        return person in junk_people
    of_market = person == "0000" and _JUNK_OF_MARKET.fullmatch(PurePosixPath(path).name) is not None
    return of_market or _JUNK.fullmatch(person) is not None


def _with_people(
    matches: list[Match], name_people: NamePeople | None, split: str
) -> tuple[list[Match], Mapping[str, str], list[str]]:
    """The images, those without a person only in `train`; the people of images by path; and notes."""
    if name_people is None:
        return matches, {}, []
    people, notes = name_people([path for path, _ in matches])
    if split == "train":
        return matches, people, [*notes]
    named = [one for one in matches if one[0] in people]
    if not named:
        raise DataError("no mark names the person of an image", hint="omit --split, or name the folder of the gallery")
    return named, people, [*notes, f"{len(matches) - len(named):,} images of unknown people are excluded"]


def _junk_note(junk: Counter[str]) -> str:
    people = ", ".join(f"{person} ({count:,})" for person, count in sorted(junk.items())[:10])
    return f"{sum(junk.values()):,} images of junk people are excluded: {people}; {_KEEP_JUNK}"


def _check_cameras(matches: Sequence[re.Match[str]], infrared_cameras: Sequence[str]) -> None:
    """Refuse infrared cameras without images: a typing mistake would make their images visible."""
    found = {match["camera"] for match in matches} if infrared_cameras else set()
    for camera in infrared_cameras:
        if not any(_is_listed(one, [camera]) for one in found):
            shown = ", ".join(sorted(found)[:10]) + (", ..." if len(found) > 10 else "")
            raise ConfigError(f"no image is of the infrared camera {camera}; found: {shown}", hint=_EXAMPLE)


def _row(
    path: str,
    match: re.Match[str],
    infrared_cameras: Sequence[str],
    names: Mapping[str, str],
    splits: Mapping[str, str],
    split: str,
    people: Mapping[str, str],
) -> ManifestRow:
    """The row as the reader parses it: what the reader would refuse is refused here."""
    found = match.groupdict()
    if "modality" in found:
        modality = Modality(names[plain(found["modality"]).casefold()])
    else:
        modality = Modality.INFRARED if _is_listed(found["camera"], infrared_cameras) else Modality.VISIBLE
    cells = {
        "path": path,
        "modality": str(modality),
        "camera": found.get("camera", UNNAMED_CAMERAS[modality]),
        "person": found.get("person", people.get(path, "")),
        "split": splits[plain(found["split"]).casefold()] if "split" in found else split,
    }
    row = parse_row(0, cells)
    if not isinstance(row, ManifestRow):
        raise DataError(f"{path!r}: {row[0].message}", hint=f"{_RENAME}, or --junk-people for people to exclude")
    return row


def _is_listed(camera: str, cameras: Sequence[str]) -> bool:
    """Whether a camera is in a list; `03` and `3` are the same number."""
    return any(camera == one or (camera.isdecimal() and one.isdecimal() and int(camera) == int(one)) for one in cameras)


def counted(reason: str, paths: Sequence[str]) -> str:
    """A note on skipped files: their number, the reason, and the first three as text; empty without any."""
    shown = ", ".join(sorted(paths)[:_SHOWN_SKIPPED]) + (", ..." if len(paths) > _SHOWN_SKIPPED else "")
    return f"{len(paths):,} {reason}: {shown}".encode(errors="backslashreplace").decode() if paths else ""


def split_by_people(rows: Sequence[ManifestRow], test_share: float, seed: int, notes: list[str]) -> list[ManifestRow]:
    """The rows with a share of the people in `test` and the others in `train`; their number goes into `notes`."""
    people = sorted({row.person for row in rows}, key=_in_order)
    if len(people) < 2:
        raise DataError("one person cannot be split into training and test", hint="omit --test-share")
    count = min(max(round(test_share * len(people)), 1), len(people) - 1)
    order = numpy_generator(seed, "manifest", "test people").permutation(len(people))
    tested = {people[position] for position in order[:count].tolist()}
    notes.append(f"{len(tested):,} people are in test, chosen with seed {seed}")
    return [replace(row, split="test" if row.person in tested else "train") for row in rows]


def _notes(images: Sequence[str], matched: Sequence[str], expression: re.Pattern[str], *, named: bool) -> Iterator[str]:
    left = sorted(set(images) - set(matched))
    if left:
        yield f"{len(left):,} images do not match the pattern and are excluded, first: {left[0]}"
    if "camera" not in expression.groupindex:
        visible, infrared = UNNAMED_CAMERAS
        yield f"the pattern names no camera: visible images get camera {visible}, infrared ones camera {infrared}"
    if "person" not in expression.groupindex and not named:
        yield "the pattern names no person: the manifest can be trained on, not evaluated"


def _in_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (0, name)


def write_rows(out: Path, rows: Sequence[ManifestRow], optional: Collection[str]) -> None:
    """Write the rows by person, camera and path, with the columns that every manifest has and some `optional` ones."""
    columns = [name for name in COLUMNS if name in REQUIRED or name in optional]
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in sorted(rows, key=lambda row: (_in_order(row.person), _in_order(row.camera), row.path)):
        table.writerow([str(getattr(row, name)) for name in columns])
    content = text.getvalue().encode()

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_output(out, write, MANIFEST, "--out")
