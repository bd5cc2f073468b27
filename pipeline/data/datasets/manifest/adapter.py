"""A user's own data set: a table with path, modality, camera, person and split of each image.

`vireid data manifest FOLDER --pattern ...` writes one from folders, or any program that writes CSV or JSON lines.

    path,modality,camera,person,split
    cam1/0007/0001.jpg,visible,1,7,train
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.modality import Modality, PerModality
from pipeline.config import datasets
from pipeline.data.check import MAKE_AGAIN, CheckRow, DatasetCheck, drawn_split_counts, unpaired_notes
from pipeline.data.datasets.manifest.checks import (
    FEW_PEOPLE,
    ROLES,
    alike_names,
    find_files,
    find_mistakes,
    folder_of_paths,
    numbers_of,
    overlaps,
    retrievals,
    useless_splits,
)
from pipeline.data.datasets.manifest.rows import ManifestRow, Mistake, read_rows
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.roots import describe_absent
from pipeline.data.synthetic.record import read_drawn
from pipeline.data.truth import UNKNOWN_PERSON, Dataset, ImageRow, Roles, SplitTables, build_tables
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

MAX_SHOWN = 20
_OF_A_KIND = 3
FILE_NAMES = ("manifest.csv", "manifest.jsonl")

_NAME_ROOT = "name the folder that paths start from: --root, or data.images_root"
_MEND = "mend these lines; docs/data-sets.md describes the columns"


@dataclass(frozen=True, slots=True)
class _Manifest:
    """A manifest: its file, the folder that its paths start from, its rows, their mistakes, and notes on its paths."""

    path: Path
    root: Path
    rows: tuple[ManifestRow, ...]
    mistakes: tuple[Mistake, ...]
    notes: tuple[str, ...]

    def shown(self) -> list[str]:
        """The first mistakes, each with its line; of many of one kind the first three, and their number."""
        kinds = Counter(one.kind for one in self.mistakes if one.kind)
        last = {one.kind: one.line for one in sorted(self.mistakes, key=lambda mistake: mistake.line)}
        seen: Counter[str] = Counter()
        shown: list[str] = []
        for one in sorted(self.mistakes, key=lambda mistake: mistake.line):
            seen[one.kind] += bool(one.kind)
            if seen[one.kind] > _OF_A_KIND:
                continue
            text = f"{self.path.name}:{one.line}: {one.message}" if one.line else one.message
            if seen[one.kind] == _OF_A_KIND < kinds[one.kind]:
                text += f" [and {kinds[one.kind] - _OF_A_KIND:,} more like it, the last in line {last[one.kind]}]"
            shown.append(text)
        return shown[:MAX_SHOWN]


def read_manifest(path: Path, *, images_root: Path | None = None, allow_overlap: bool = False) -> Dataset:
    """List the images that a manifest names; paths start from `images_root`, by default as `folder_of_paths`.

    Names of people and cameras that are texts are numbered in sorted order. If some training row names no person, no
    training row does. Without rows `train` the tables of training are empty. There are validation tables if rows have
    split `val`, and test tables, with roles, if rows have split `query`, `gallery` or `test`. No image is opened.

    Raises:
        DataError: The file is no manifest, or rows are wrong; all mistakes are found at once and the first 20 shown.
    """
    manifest = _open(path, images_root, allow_overlap)
    if manifest.mistakes:
        shown = manifest.shown()
        more = "; ..." if len(shown) == MAX_SHOWN else ""
        number = f"{len(manifest.mistakes):,} mistake{'' if len(manifest.mistakes) == 1 else 's'}"
        raise DataError(f"{number} in {manifest.path}: {'; '.join(shown)}{more}", hint=_advice(manifest))
    for note in (*manifest.notes, *_notes(manifest.rows)):
        logger.info("%s: %s", manifest.path.name, note)
    for warning in _warnings(manifest.rows):
        logger.warning("%s: %s", manifest.path.name, warning)
    cameras = numbers_of(row.camera for row in manifest.rows)
    people = numbers_of(row.person for row in manifest.rows)

    def tables(rows: Iterable[ManifestRow], purpose: str) -> SplitTables:
        rows = list(rows)
        everyone_known = all(row.person for row in rows)
        entries = PerModality.build(
            lambda modality: tuple(
                ImageRow(people[row.person] if everyone_known else UNKNOWN_PERSON, cameras[row.camera], row.path)
                for row in {row.path: row for row in rows if row.modality is modality}.values()
            )
        )
        return build_tables(
            manifest.root,
            entries,
            purpose=purpose,
            advice=_MEND,
            fills_root=False,
            may_be_empty=purpose == "training",
        )

    training = tables((row for row in manifest.rows if row.split == "train"), "training")
    held_out = [row for row in manifest.rows if row.split == "val"]
    tested = [row for row in manifest.rows if row.split in ("query", "gallery", "test")]
    test = _with_roles(tables(tested, "test"), tested) if tested else None
    return Dataset(
        name=datasets.site_name(manifest.path),
        kind="custom" if read_drawn(manifest.root) is None else "drawn",
        root=manifest.root,
        training=training,
        validation=tables(held_out, "validation") if held_out else None,
        test=test,
        images=tables(manifest.rows, "the data set").images,
        overlap=bool(overlaps(manifest.rows)),
    )


def check_manifest(path: Path, *, images_root: Path | None = None, allow_overlap: bool = False) -> DatasetCheck:
    """Find all mistakes of a manifest; a synthetic one is also compared with its recorded counts."""
    manifest = _open(path, images_root, allow_overlap)
    rows = [CheckRow("mistakes", 0, len(manifest.mistakes), _advice(manifest))]
    drawn, notes = read_drawn(manifest.root), [*manifest.notes, *_notes(manifest.rows)]
    # A user's manifest of synthetic images may put them into other splits.
    as_drawn = manifest.path.name == FILE_NAMES[0] and manifest.path.parent.samefile(manifest.root)
    if drawn is not None and drawn.get("layout") == "manifest" and as_drawn:
        found = Counter((row.split, row.modality) for row in manifest.rows)
        for split, counts in drawn_split_counts(drawn, ("train", "val", "test")).items():
            rows += [
                CheckRow(f"{split}, {modality} images", counts.images[modality], found[split, modality], MAKE_AGAIN)
                for modality in Modality
            ]
        notes += unpaired_notes(drawn)
    return DatasetCheck(tuple(rows), tuple(manifest.shown()), (*notes, *_warnings(manifest.rows)))


def _open(path: Path, images_root: Path | None, allow_overlap: bool) -> _Manifest:
    if path.is_dir():
        inside = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if len(inside) != 1:
            tables = [one.name for one in sorted(path.iterdir()) if one.suffix.lower() in datasets.TABLES]
            there = f", and holds {', '.join(tables[:MAX_SHOWN])}" if tables and not inside else ""
            raise DataError(
                f"{path} is a folder with {len(inside)} of {', '.join(FILE_NAMES)}{there}",
                hint="name the manifest's file; `vireid data manifest` writes one from folders",
            )
        (path,) = inside
    rows, mistakes = read_rows(path)
    root = folder_of_paths(path, rows, images_root)
    if not root.is_dir():
        raise DataError(
            describe_absent(root), hint="name the folder that paths start from: --root, or data.images_root"
        )
    rows, absent, notes = find_files(rows, root)
    if not mistakes or rows:
        # With rows missing, a split may only seem to be empty.
        useless = [] if mistakes else useless_splits(rows)
        mistakes = [*mistakes, *absent, *find_mistakes(rows, allow_overlap), *useless]
    return _Manifest(path, root, tuple(rows), tuple(mistakes), tuple(notes))


def _advice(manifest: _Manifest) -> str:
    absent = sum(one.kind == "file missing" for one in manifest.mistakes)
    if absent and absent == len(manifest.rows):
        return f"none of the images is there: {_NAME_ROOT}"
    return _MEND


def _with_roles(tables: SplitTables, rows: Sequence[ManifestRow]) -> SplitTables:
    uses: dict[str, frozenset[str]] = {}
    for row in rows:
        uses[row.path] = uses.get(row.path, frozenset()) | ROLES[row.split]

    def roles(paths: Sequence[str]) -> Roles:
        return Roles(
            query=np.array(["query" in uses[path] for path in paths], dtype=bool),
            gallery=np.array(["gallery" in uses[path] for path in paths], dtype=bool),
        )

    return SplitTables(tables.images, tables.people, tables.images.map(lambda table: roles(table.paths)))


def _notes(rows: Sequence[ManifestRow]) -> list[str]:
    notes = [
        f"{split}: {sum(row.modality is Modality.VISIBLE for row in part):,} visible and "
        f"{sum(row.modality is Modality.INFRARED for row in part):,} infrared images, "
        f"{len({row.person for row in part if row.person}):,} people, {len({row.camera for row in part})} cameras"
        for split in ROLES
        if (part := [row for row in rows if row.split == split])
    ]
    for column in ("camera", "person"):
        numbers = numbers_of(getattr(row, column) for row in rows)
        if any(not name.isdecimal() for name in numbers):
            first = ", ".join(f"{number} = {name}" for name, number in list(numbers.items())[:MAX_SHOWN])
            more = ", ..." if len(numbers) > MAX_SHOWN else ""
            notes.append(f"{column}s are numbered in sorted order: {first}{more}")
    training = [row for row in rows if row.split == "train"]
    if not training:
        notes.append("no row is of split train: the manifest is for evaluation, not for training")
    unknown = sum(not row.person for row in training)
    if 0 < unknown < len(training):
        notes.append(f"{unknown:,} training rows name no person: the names in the others are ignored")
    return notes


def _warnings(rows: Sequence[ManifestRow]) -> list[str]:
    warnings = list(alike_names(rows))
    for direction in retrievals(rows):
        searched = f"{direction.query} queries in {direction.query.other} images"
        if direction.valid < direction.queries:
            warnings.append(f"{searched}: {direction.valid:,} of {direction.queries:,} have a permitted match")
        if direction.people < FEW_PEOPLE:
            warnings.append(f"{searched}: {direction.people} people, so ranks beyond that repeat the last value")
    return warnings


SPEC = DatasetSpec(
    datasets.MANIFEST,
    read_manifest,
    check_manifest,
    "images of your own are described by a manifest, which `vireid data manifest` writes",
    parts=(FILE_NAMES[0],),
)
