"""Files of a run that name or show images: panels, queries, labels, skipped images; in its folder and in MLflow."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.config.datasets import MANIFEST, TABLES
from pipeline.data.datasets.manifest.adapter import FILE_NAMES
from pipeline.data.datasets.manifest.checks import folder_of_paths
from pipeline.data.datasets.manifest.rows import read_rows
from pipeline.errors import CheckpointError, DataError, VireidError
from pipeline.privacy.archives import label_names, rename_in_labels
from pipeline.privacy.names import ImageNames
from pipeline.privacy.tables import Match, names_in, without
from pipeline.privacy.trace import Findings, Lock, Order, Trace
from pipeline.runtime import atomic_files
from pipeline.runtime.sqlite_files import SqliteFileError
from pipeline.storage.layout import CONFIG, ENVIRONMENT, FORGOTTEN, LOCK, PHOTOGRAPHS, TRACKING, WRITTEN
from pipeline.tracking.places import ARTIFACTS, artifact_places
from pipeline.tracking.replay import read_note

DATABASE = "mlflow.db"

_LABELS = re.compile(r"round-\d+\.npz")
_QUERIES = re.compile(r"round-\d+\.json")
_OF_PHOTOGRAPHS = "|".join(sorted(PHOTOGRAPHS))
# Of a run's folder; of MLflow, which adds the step; and what a kill has left of either.
_PANEL = re.compile(
    rf"({_OF_PHOTOGRAPHS})[-+].*\.(jpg|png|webp)|\.(round-\d+\.(npz|json)|({_OF_PHOTOGRAPHS})-.*)\.tmp"
    r"|\.artifact\.uploading\..*"
)
_ENVIRONMENT = re.compile(re.escape(ENVIRONMENT))
_SKIPPED = "skipped"
_SEARCHED = re.compile("|".join(one.pattern for one in (_LABELS, _QUERIES, _PANEL)))
_RECORDS = (*WRITTEN, TRACKING, LOCK)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Folders with files of one run; the first one has its `config.json`. `what` is the noun for messages."""

    folders: tuple[Path, ...]
    what: str
    lock: Lock | None = None

    def matching(self, pattern: re.Pattern[str]) -> list[Path]:
        """Files of these names in the folders and in those directly below."""
        files = (file for folder in self.folders for form in ("*", "*/*") for file in sorted(folder.glob(form)))
        return [file for file in files if pattern.fullmatch(file.name) and file.is_file()]


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, maybe a damaged one."""
    try:
        record = atomic_files.read_json(folder / CONFIG)
    except CheckpointError:
        return (folder / LOCK).is_file()
    return record is not None and {"digest", "config"} <= record.keys()


def own_files(*folders: Path) -> list[Path]:
    """Files in folders of a run that are searched as a run's, or that never name an image: others may be outputs."""
    records = [folder / name for folder in folders for name in _RECORDS]
    return records + RunFiles(folders, "").matching(_SEARCHED)


def search_run(folder: Path, names: ImageNames, found: Findings) -> bool:
    """Add the traces of a run's folder; returns whether the run has used the images."""
    used = _search(RunFiles((folder,), "run folder", Lock(folder, LOCK, "run folder")), names, found)
    try:
        note = read_note(folder) if used else None
    except CheckpointError:
        note = None
    if note is not None and note.store is not None:
        found.unclear.append(f"{folder} is also recorded in MLflow at {note.store}, which is not searched")
    return used


def search_mlflow(runs: Path, names: ImageNames, found: Findings) -> list[Path]:
    """Add the traces of MLflow's artifacts in a folder of runs, also of runs whose folders are gone.

    Returns the `own_files` among them.
    """
    places: list[tuple[str, ...]] = []
    if (runs / DATABASE).is_file():
        try:
            places = artifact_places(runs / DATABASE)
        except SqliteFileError as error:
            found.unread.append(f"{runs / DATABASE} cannot be read: {error}")
    groups = [tuple(_local(place, runs) for place in group) for group in places]
    remote = sorted({place.rpartition("/")[0] for group in places for place in group if _local(place, runs) is None})
    found.unclear += [f"MLflow keeps artifacts in {place}, which is not searched" for place in remote[:3]]
    known = {folder for group in groups for folder in group if folder is not None}
    here = sorted((runs / ARTIFACTS).glob("*/artifacts"))
    groups += [(folder,) for folder in here if folder not in known]  # of a lost database
    own: list[Path] = []
    for group in groups:
        folders = tuple(folder for folder in group if folder is not None and folder.is_dir())
        if folders:
            _search(RunFiles(folders, "record in MLflow"), names, found)
            own += own_files(*folders)
    return own


def _local(place: str, runs: Path) -> Path | None:
    """The folder of an address, spelled from `runs` if it is there; None for one that is not on this disk."""
    parts = urlsplit(place)
    if parts.scheme not in ("", "file"):
        return None
    folder, real = Path(unquote(parts.path)).resolve(), runs.resolve()
    return runs / folder.relative_to(real) if folder.is_relative_to(real) else folder


def _search(run: RunFiles, names: ImageNames, found: Findings) -> bool:
    place, root = run.folders[0], _data_folder(run.folders[0])
    there = root is not None and root.is_dir()
    named, earlier = dict[Path, int](), False
    for file in run.matching(_LABELS):
        try:
            paths = [str(path) for array in label_names(file).values() for path in array]
        except DataError as error:
            found.unread.append(error.message)
            continue
        named[file] = sum(names.match(path, root) for path in paths)
        earlier |= any(path.startswith(FORGOTTEN) for path in paths)
    match = partial(names.match, root=root)
    queries = {file: _count_in(file, match, found) for file in run.matching(_QUERIES)}
    skipped = {file: _count_in(file, match, found, _SKIPPED) for file in run.matching(_ENVIRONMENT)}
    trained = any(named.values())
    used = trained or any(queries.values()) or (root is not None and there and names.any_below(root))
    panels = run.matching(_PANEL)
    if panels and used:
        found.traces.append(_panels(run, panels))
    elif panels and not there:
        found.unclear.append(
            f"{place} has {len(panels)} panels of images, and its data set {root or ''} is not there: they are kept, "
            "since it is not known whom they show"
        )
    found.traces += [
        *_rewritten(
            run, "labels", named, "paths replaced by numbers", lambda file: rename_in_labels(file, names, root)
        ),
        *_rewritten(run, "worst queries", queries, "rewritten without them", lambda file: _drop_entries(file, match)),
        *_rewritten(run, "skipped images", skipped, "paths replaced by numbers", lambda file: _rename(file, match)),
    ]
    if trained or earlier:
        found.trained.append(f"{place}, {run.what}: the weights were trained on images that are forgotten")
    elif used and not named:
        found.trained.append(f"{place}, {run.what}: the weights may have been trained on them")
    return used


def _panels(run: RunFiles, panels: Sequence[Path]) -> Trace:
    def forget() -> None:
        for panel in panels:
            panel.unlink(missing_ok=True)

    deed = "removed: they do not record whom they show"
    return Trace(run.folders[0], f"panels of images: {len(panels)}, {run.what}", None, deed, forget, run.lock)


def _rewritten(
    run: RunFiles, what: str, counts: Mapping[Path, int], deed: str, forget: Callable[[Path], None]
) -> Iterator[Trace]:
    """One trace for all files of a kind in a run."""
    files = [file for file, count in counts.items() if count]

    def forget_all() -> None:
        for file in files:
            forget(file)

    if files:
        what = f"files of {what}: {len(files)}, {run.what}"
        yield Trace(run.folders[0], what, max(counts.values()), deed, forget_all, run.lock, Order.LABELS)


def _drop_entries(file: Path, match: Match) -> None:
    atomic_files.write_json(file, without(atomic_files.read_json(file), match))


def _rename(file: Path, match: Match) -> None:
    """Replace the paths of skipped images by numbers: as many images stay skipped, as a resumed run has to have."""
    content = atomic_files.read_json(file) or {}
    reasons = enumerate(content[_SKIPPED].items())
    renamed = {f"{FORGOTTEN}{row:06d}" if match(path) else path: reason for row, (path, reason) in reasons}
    atomic_files.write_json(file, content | {_SKIPPED: renamed})


def _count_in(file: Path, match: Match, found: Findings, part: str | None = None) -> int:
    """The names of images to forget in a JSON file, or among the keys of an object in it."""
    try:
        content: Any = atomic_files.read_json(file) or {}
    except VireidError as error:
        found.unread.append(error.message)
        return 0
    return len(names_in(content if part is None else [*(content.get(part) or ())], match))


def _data_folder(place: Path) -> Path | None:
    """The folder that the paths of a run start from, by its settings."""
    try:
        content: Any = atomic_files.read_json(place / CONFIG) or {}
    except CheckpointError:
        return None
    settings = content.get("config", content)
    data = settings.get("data") if isinstance(settings, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("root"), str):
        return None
    if data.get("images_root"):
        return Path(data["images_root"])
    root = Path(data["root"])
    file = next((one for one in (root, *(root / name for name in FILE_NAMES)) if one.is_file()), None)
    if file is not None and data.get("name") == MANIFEST.name:
        return _start_of_paths(file, file.stat().st_mtime_ns)
    return root.parent if root.is_file() or (not root.exists() and root.suffix.lower() in TABLES) else root


@cache
def _start_of_paths(manifest: Path, _changed: int) -> Path:
    """The folder that a manifest's paths start from; read once, because many runs have the same manifest."""
    try:
        return folder_of_paths(manifest, read_rows(manifest)[0], None)
    except DataError:
        return manifest.parent
