"""Which images to forget: those of a list, of a person, or of a camera."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.modality import Modality
from pipeline.config.datasets import TABLES
from pipeline.data.datasets.manifest.checks import find_files, folder_of_paths
from pipeline.data.datasets.manifest.rows import read_rows
from pipeline.data.image_list import list_images
from pipeline.data.path_list import read_path_list
from pipeline.data.values import moment, name_or_number
from pipeline.errors import ConfigError, DataError, VireidError
from pipeline.inference.index import IndexedFile, is_index, read_files, read_record
from pipeline.inference.milvus_address import MilvusAddress
from pipeline.inference.milvus_gallery import find_milvus
from pipeline.privacy.names import ImageNames

_LIST = ".txt"


@dataclass(frozen=True, slots=True)
class _Criterion:
    """A person, or a camera and a time; None selects all."""

    person: str | None = None
    camera: str | None = None
    before: datetime | None = None

    def fits(self, camera: str, person: str, time: str, changed: float | None) -> bool:
        """Whether an image fits, by the manifest's values and the modification time of its file in s."""
        if self.person not in (None, person) or self.camera not in (None, camera):
            return False
        if self.before is None:
            return True
        taken = moment(time) if time else None if changed is None else datetime.fromtimestamp(changed, UTC)
        return taken is not None and taken < self.before


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The images to forget: `title` names them, `manifest` selected them or is None, `notes` state how."""

    title: str
    names: ImageNames
    manifest: Path | None
    notes: tuple[str, ...] = ()


def images_of_list(source: Path, root: Path | None = None) -> Selection:
    """The images of a list of paths (`.txt`), a manifest, a folder, or one image; listed files may be gone.

    Raises:
        ConfigError: `root` does not apply.
        DataError: There is no such file or folder, or it names no image.
    """
    if source.suffix.lower() == _LIST and source.is_file():
        start = root or source.parent
        images = [(start, path) for path in read_path_list(source, start, may_be_gone=True)]
    else:
        is_manifest = source.suffix.lower() in TABLES
        found = list_images(source, None if is_manifest else Modality.VISIBLE, (), root)
        images = [(found.root, path) for path in found.paths]
    if not images:
        raise DataError(f"{source} names no image", hint="a line is the path of an image; see docs/using.md")
    return Selection(f"{len(images):,} images of {source}", ImageNames(images), None)


def images_of_person(
    person: str, manifest: Path, root: Path | None, indexes: Path, galleries: Sequence[MilvusAddress] = ()
) -> Selection:
    """The images of a person, by the name in a manifest and in the indexes and galleries that were made from it.

    * `indexes`: A folder of indexes.
    * `galleries`: Collections in Milvus.

    Raises:
        ConfigError: The file is no manifest, or the name is empty.
        DataError: It is missing or damaged, or neither it nor an index or a gallery of it names the person.
    """
    name = _name("--person", person)
    return _selected(f"person {name}", manifest, root, (indexes, galleries), _Criterion(person=name))


def images_of_camera(
    camera: str,
    before: str | None,
    manifest: Path,
    root: Path | None,
    indexes: Path,
    galleries: Sequence[MilvusAddress] = (),
) -> Selection:
    """The images of a camera, all of them or those from `before` a date in ISO 8601, which is UTC without a time zone.

    An image's time is that of the manifest, or else the modification time of its file. Raises as `images_of_person`,
    and `ConfigError` for a date that is none.
    """
    name, limit = _name("--camera", camera), None if before is None else _date(before)
    what = f"camera {name}" + ("" if limit is None else f" from before {limit:%Y-%m-%d %H:%M} UTC")
    return _selected(what, manifest, root, (indexes, galleries), _Criterion(camera=name, before=limit))


def _name(option: str, text: str) -> str:
    name = name_or_number(text.strip())
    if not name:
        raise ConfigError(f"{option} is empty", hint="give the name in the manifest's column")
    return name


def _date(text: str) -> datetime:
    try:
        return moment(text)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"--before {text!r} is not a date", hint="write 2026-11-28, or with a time 2026-11-28T14:03+01:00"
        ) from error


def _selected(
    what: str,
    manifest: Path,
    root: Path | None,
    places: tuple[Path, Sequence[MilvusAddress]],
    wanted: _Criterion,
) -> Selection:
    if manifest.suffix.lower() not in TABLES:
        raise ConfigError(f"--manifest {manifest} is no manifest", hint="a manifest is a .csv, .tsv or .jsonl file")
    listed = list_images(manifest, None, (), root)
    facts = [(*listed.known_of(row), _changed(listed.root / path)) for row, path in enumerate(listed.paths)]
    images = [
        (listed.root, path)
        for path, (camera, person, _, time, changed) in zip(listed.paths, facts, strict=True)
        if wanted.fits(camera, person, time, changed)
    ]
    names = ImageNames([*images, *_indexed(places[0], manifest, wanted), *_in_milvus(places[1], manifest, wanted)])
    if not len(names):
        searched = ", ".join(map(str, (places[0], *places[1])))
        raise DataError(
            f"{manifest} names no image of {what}, and neither does an index of it in {searched}",
            hint="the names are those in the manifest's columns; see docs/privacy.md",
        )
    times = [(time, changed) for camera, _, _, time, changed in facts if camera == wanted.camera]
    notes = _origin_of_times(times) if wanted.before is not None else ()
    return Selection(f"{len(names):,} images of {what} ({manifest})", names, manifest, notes)


def _origin_of_times(times: Sequence[tuple[str, float | None]]) -> tuple[str, ...]:
    counts = (
        (sum(bool(time) for time, _ in times), "{} times are those of the manifest"),
        (sum(not time and changed is not None for time, changed in times), "{} times are modification times of files"),
        (sum(not time and changed is None for time, changed in times), "{} images with neither are not selected"),
    )
    return tuple(text.format(f"{count:,}") for count, text in counts if count)


def _changed(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except (OSError, ValueError):
        return None


def _indexed(indexes: Path, manifest: Path, wanted: _Criterion) -> Iterator[tuple[Path, str]]:
    """Images that indexes of a manifest still hold, although it may not name them any more."""
    for folder in sorted(indexes.glob("*")):
        try:
            if not (folder.is_dir() and is_index(folder)):
                continue
            record = read_record(folder)
            files = read_files(folder, record) if Path(record.source) == manifest.resolve() else ()
        except VireidError:
            continue  # the search reports it
        yield from _fitting(Path(record.root), files, wanted)


def _in_milvus(galleries: Sequence[MilvusAddress], manifest: Path, wanted: _Criterion) -> Iterator[tuple[Path, str]]:
    """Those that galleries of a manifest still hold."""
    for address in galleries:
        with contextlib.suppress(VireidError):  # the search reports it
            gallery = find_milvus(address, None)
            if gallery is not None and Path(gallery.record.source) == manifest.resolve():
                yield from _fitting(gallery.root, (file for _, file in gallery.store.files()), wanted)


def _fitting(root: Path, files: Iterable[IndexedFile], wanted: _Criterion) -> Iterator[tuple[Path, str]]:
    return ((root, file.path) for file in files if wanted.fits(file.camera, file.person, file.time, file.changed / 1e9))


def rows_of(manifest: Path, root: Path | None, names: ImageNames) -> list[int]:
    """The lines of a manifest at which rows with images to forget begin; DataError if it is no manifest."""
    rows, _ = read_rows(manifest)
    start = folder_of_paths(manifest, rows, root)
    found, _, _ = find_files(rows, start)
    return [row.line for row in found if names.match(row.path, start)]
