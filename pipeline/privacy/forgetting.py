"""Forget images: search all places, remove what is found in an order that survives a kill, and search again."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.file_kinds import what_is
from pipeline.errors import ConfigError, DataError, VireidError
from pipeline.inference.embedding import forget_parts, has_parts
from pipeline.inference.milvus_address import SCHEME, MilvusAddress, address_of, is_database
from pipeline.privacy.archives import archive_traces
from pipeline.privacy.databases import database_traces
from pipeline.privacy.forms import Form, form_of
from pipeline.privacy.galleries import gallery_traces
from pipeline.privacy.indexes import CHUNKS, belongs_to_index, holds_index, index_traces
from pipeline.privacy.runs import DATABASE, is_run, own_files, search_mlflow, search_run
from pipeline.privacy.selection import Selection, rows_of
from pipeline.privacy.stores import belongs_to_store, is_store, store_traces
from pipeline.privacy.tables import drop_lines, text_traces
from pipeline.privacy.trace import Findings, Trace
from pipeline.tracking.places import ARTIFACTS

FEEDBACK = Path("feedback.csv")
"""The default file of marks on search results."""

_PARTS = ".parts"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Places:
    """Where to search: folders of runs and of indexes, which may be missing; further files, folders and galleries.

    A gallery is the address of a collection in Milvus, see `address_of`.
    """

    runs: Path
    indexes: Path
    also: tuple[Path, ...] = ()

    def existing(self) -> list[Path]:
        """Those that exist, and the default file of marks on search results; files that the user names come first."""
        return [place for place in (*self._files(), FEEDBACK, self.runs, self.indexes) if place.exists()]

    def missing(self) -> list[Path]:
        """Those that do not exist."""
        return [place for place in (self.runs, self.indexes, *self._files()) if not place.exists()]

    def galleries(self) -> tuple[MilvusAddress, ...]:
        """The addresses; ConfigError if one is none of Milvus."""
        found = (address_of(place) for place in self.also)
        return tuple(dict.fromkeys(address for address in found if address is not None))

    def _files(self) -> list[Path]:
        return [place for place in self.also if address_of(place) is None]


def search(selection: Selection, places: Places) -> Findings:
    """Find where the images of a selection are kept.

    Cost: reads the paths in every index, store, label file, table, archive and page, and the beginning of other files.
    """
    walk = _Walk(selection)
    for address in places.galleries():
        walk.gallery(address)
    for place in places.existing():
        walk.enter(place, named=place in (*places.also, FEEDBACK))
    return walk.result(places.also)


class _Walk:
    """One search; pages come last, because they show panels of the runs that were found."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._found = Findings()
        self._runs: list[str] = []
        self._texts: list[tuple[Path, bool]] = []
        self._seen: set[Path] = set()
        self._others: list[Path] = []

    def gallery(self, address: MilvusAddress) -> None:
        if address.file is not None:
            self._seen.add(Path(os.path.realpath(address.file)))
        traces = gallery_traces(address, self._selection.names, self._selection.manifest, self._found)
        self._collect(traces)

    def result(self, also: Sequence[Path]) -> Findings:
        """What is found; `also` are the places whose files of unknown kinds are counted."""
        names, found = self._selection.names, self._found
        for file, named in self._texts:
            problems = found.unread if named else found.unclear  # a file of another program, most likely
            self._collect(text_traces(file, names, found.unclear, self._runs, named=named), problems)
        others = [file for file in self._others if any(file.is_relative_to(place) for place in also)]
        if others:
            found.unclear.append(f"{len(others):,} files of other kinds are not searched, first: {others[0]}")
        self._found.traces.sort(key=lambda trace: trace.order)
        return self._found

    def enter(self, place: Path, *, named: bool = False) -> None:
        real = Path(os.path.realpath(place))
        if real in self._seen or (place.is_symlink() and not named):
            return
        self._seen.add(real)
        try:
            if place.is_dir():
                self._folder(place, named)
            elif place.is_file():
                self._file(place, named)
            elif named:
                self._found.unread.append(f"{place} is no regular file")
        except OSError as error:
            self._found.unread.append(f"{place} cannot be read: {error.strerror}")

    def _folder(self, folder: Path, named: bool) -> None:
        """Search a folder as what it is, then whatever else it holds."""
        names, found = self._selection.names, self._found
        rest = sorted(folder.iterdir())
        if is_store(folder):
            self._collect(store_traces(folder, names))
            goes = any(trace.place == folder for trace in found.traces)
            rest = [] if goes else [entry for entry in rest if not belongs_to_store(entry.name)]
        elif holds_index(folder):
            self._collect(index_traces(folder, names, self._selection.manifest))
            rest = [entry for entry in rest if not belongs_to_index(entry.name)]
        elif is_database(folder):
            problems = found.unread if named else found.unclear
            problems.append(f"{folder} is not searched: name its galleries with --also {SCHEME}{folder}")
            rest = []
        elif is_run(folder):
            if search_run(folder, names, found):
                self._runs.append(folder.name)
            self._ignore(own_files(folder))
            if Path(os.path.realpath(folder.parent)) not in self._seen and (folder.parent / DATABASE).is_file():
                found.unclear.append(f"{folder.parent / DATABASE} is not searched: name its folder with --runs")
        elif folder.name.endswith(_PARTS) and has_parts(folder):
            deed = "removed: they do not record which images they hold; `vireid embed` embeds those again"
            found.traces.append(Trace(folder, CHUNKS, None, deed, lambda: forget_parts(folder), certain=False))
            rest = []
        elif (folder / DATABASE).is_file() or (folder / ARTIFACTS).is_dir():
            self._ignore(search_mlflow(folder, names, found))
        for entry in rest:
            self.enter(entry)

    def _ignore(self, files: Sequence[Path]) -> None:
        self._seen.update(Path(os.path.realpath(file)) for file in files)

    def _file(self, file: Path, named: bool) -> None:
        names, found = self._selection.names, self._found
        problems = found.unread if named else found.unclear
        form = form_of(file)
        if form is Form.ARCHIVE:
            self._collect(archive_traces(file, names, problems, named=named))
        elif form is Form.DATABASE:
            self._collect(database_traces(file, names))
        elif form is Form.TEXT:
            self._texts.append((file, named))
        elif form is Form.LEFT:
            found.unread.append(f"{file} was left by a killed command, and cannot be searched: remove it")
        elif form is Form.OTHER and named:
            found.unread.append(f"{file} cannot be searched: it is {what_is(file)}")
        elif form is Form.OTHER:
            self._others.append(file)

    def _collect(self, traces: Iterator[Trace], problems: list[str] | None = None) -> None:
        try:
            self._found.traces += traces
        except VireidError as error:
            (self._found.unread if problems is None else problems).append(f"{error.message} ({error.hint})")


@dataclass(frozen=True, slots=True)
class Sources:
    """What of the images' sources goes, too: their files, and the rows of a manifest whose paths start from `root`."""

    manifest: Path | None = None
    root: Path | None = None
    delete_files: bool = False
    delete_rows: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a search found, and what remains of it.

    Attributes:
        title: The images.
        traces: Place, content, number of images, and what is done, of each trace that was found.
        done: Whether they were removed; if not, nothing was changed.
        left: Sentences about what is still there and should not be; empty unless `done`.
        unread: Sentences about places that may hold the images, and cannot be read.
        notes: Sentences about what is kept.
        trained: Sentences about weights.
    """

    title: str
    searched: str
    traces: tuple[dict[str, Any], ...]
    done: bool
    left: tuple[str, ...]
    unread: tuple[str, ...]
    notes: tuple[str, ...]
    trained: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the images are found nowhere any more."""
        return self.done and not self.left and not self.unread

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self) | {"complete": self.complete}


def forget(selection: Selection, places: Places, sources: Sources, *, really: bool) -> Report:
    """Find the traces of images; `really` removes them and searches again. A killed call resumes when repeated.

    Files and rows of the sources are removed last, once nothing else is left.

    Raises:
        ConfigError: Rows are to be deleted, and no manifest is named.
        DataError: No place exists; or no image exists, and none is found.
        CheckpointError: Another process uses one of the places; nothing was changed.

    Cost: 35 s and 2 GB for an index of 300,000 images x 512, 8 s without `really` (measured on one core).
    """
    if sources.delete_rows and sources.manifest is None:
        raise ConfigError("--delete-rows needs a manifest", hint="name it with --manifest")
    first = search(selection, places)
    galleries = [address for address in places.galleries() if address not in first.absent]
    searched, absent = ", ".join(map(str, (*galleries, *places.existing()))), (*places.missing(), *first.absent)
    if not searched:
        raise DataError(
            f"nothing to search: {', '.join(map(str, absent))} do not exist",
            hint="call the command where runs and indexes are, or name them with --runs, --indexes and --also",
        )
    missing = [f"{place} does not exist: it is not searched" for place in absent]
    there = [file for file in selection.names.files if file.exists()]
    lines = [] if sources.manifest is None else rows_of(sources.manifest, sources.root, selection.names)
    if not (there or lines or first.unread or any(trace.certain for trace in first.traces)):
        raise DataError(
            f"{selection.title}: no such file exists, and nothing of them is found in {searched}",
            hint="check the paths; --root names the folder that they start from, --also further places",
        )
    traces = [trace.to_dict() for trace in first.traces] + _source_rows(sources, len(there), len(lines))
    left, last = [], first
    if really:
        left = remove(first)
        last = search(selection, places)
        left = left or [f"{trace.place}: {trace.what}" for trace in last.traces]
        if not left and not last.unread:
            left = _remove_sources(selection, sources, lines)
    notes = [*selection.notes, *missing, *last.unclear, *first.remains, *_kept_sources(sources, len(there), len(lines))]
    ends = (really, tuple(left), tuple(last.unread), tuple(notes), tuple(first.trained))
    return Report(selection.title, searched, tuple(traces), *ends)


def _kept_sources(sources: Sources, files: int, rows: int) -> Iterator[str]:
    if files and not sources.delete_files:
        yield (
            f"{files:,} of the image files exist: training, embedding and searching read them again unless they are "
            "moved, or deleted with --delete-files"
        )
    if rows and not sources.delete_rows:
        yield f"{sources.manifest} names {rows:,} of them; --delete-rows removes these rows"


def _source_rows(sources: Sources, files: int, rows: int) -> list[dict[str, Any]]:
    found = []
    if sources.delete_files and files:
        found.append({"place": "", "what": "image files", "images": files, "deed": "deleted"})
    if sources.delete_rows and rows:
        what = {"place": str(sources.manifest), "what": "rows of the manifest"}
        found.append({**what, "images": rows, "deed": "deleted"})
    return found


def remove(found: Findings) -> list[str]:
    """Remove all traces; returns sentences about those that could not be removed.

    All locks are taken first, so that a place in use changes nothing.

    Raises:
        CheckpointError: Another process uses one of the places.
    """
    failed: list[str] = []
    with ExitStack() as stack:
        for lock in dict.fromkeys(trace.lock for trace in found.traces):
            if lock is not None:
                stack.enter_context(lock.held())
        for trace in found.traces:
            try:
                trace.forget()
            except VireidError as error:
                failed.append(f"{trace.place}: {error.message} ({error.hint})")
            except OSError as error:
                failed.append(f"{trace.place} cannot be changed: {error.strerror or error}")
    return failed


def _remove_sources(selection: Selection, sources: Sources, lines: Sequence[int]) -> list[str]:
    """Delete the image files, then the rows that name them; returns sentences about what is still there."""
    failed: list[str] = []
    if sources.delete_files:
        for file in selection.names.files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                failed.append(f"{file} cannot be deleted: {error.strerror}")
        existing = sorted(name for name in selection.names.whole if Path(name).exists())
        failed += [f"{name} exists: another name of it was a link" for name in existing[:_SHOWN] if not failed]
    if sources.delete_rows and lines and not failed:
        assert sources.manifest is not None
        drop_lines(sources.manifest, lines)
    return failed
