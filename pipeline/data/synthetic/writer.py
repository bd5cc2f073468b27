"""Generate a data set on disk: in parallel, the same bytes for any number of workers, complete or not at all."""

import fcntl
import glob
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from models.modality import Modality
from pipeline.console import progress
from pipeline.data.captions.files import CAPTION_SCHEMA
from pipeline.data.synthetic.cameras import LLCM_STATIONS, REGDB_STATIONS, SYSU_STATIONS, Station
from pipeline.data.synthetic.images import Studio, StudioSettings
from pipeline.data.synthetic.knobs import SyntheticKnobs, knobs_for
from pipeline.data.synthetic.layouts import (
    REGDB_SIZES,
    plan_llcm,
    plan_manifest,
    plan_regdb,
    plan_sysu,
    write_llcm_lists,
    write_manifest,
    write_regdb_lists,
    write_sysu_lists,
)
from pipeline.data.synthetic.plan import SIZES, Listing, PictureSize, Plan, Shot, Size, with_unpaired
from pipeline.errors import ConfigError, DataError
from pipeline.runtime import atomic_files
from pipeline.runtime.children import end_with_parent

logger = logging.getLogger(__name__)

GENERATOR_VERSION: Final = 1
_CHUNK: Final = 64
# Below this number of images, starting a second process costs more than it saves.
_WORTH_WORKERS: Final = 1500


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay out the same people on disk."""

    stations: tuple[Station, ...]
    plan: Callable[[Size, int, SyntheticKnobs], Plan]
    write_lists: Callable[[Path, Listing], None]
    pictures: Mapping[str, PictureSize]


LAYOUTS: Final = {
    "sysu": Layout(SYSU_STATIONS, plan_sysu, write_sysu_lists, SIZES),
    "regdb": Layout(REGDB_STATIONS, plan_regdb, write_regdb_lists, REGDB_SIZES),
    "llcm": Layout(LLCM_STATIONS, plan_llcm, write_llcm_lists, SIZES),
    "manifest": Layout(SYSU_STATIONS, plan_manifest, write_manifest, SIZES),
}


@dataclass(frozen=True, slots=True)
class SyntheticSummary:
    """The generated data set: folder, size, a digest over all pixels before JPEG, and time."""

    folder: Path
    num_people: int
    num_visible: int
    num_infrared: int
    pixel_digest: str
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images drawn and written a second, including the start of the workers."""
        return (self.num_visible + self.num_infrared) / max(self.seconds, 1e-9)


def generate_dataset(
    out: Path,
    *,
    size: str,
    layout: str = "sysu",
    seed: int = 1,
    difficulty: str = "default",
    unpaired: float = 0.0,
    height: int | None = None,
    width: int | None = None,
    workers: int | None = None,
    knobs: SyntheticKnobs | None = None,
) -> SyntheticSummary:
    """Generate a data set in a new folder `out`, which appears only when it is complete; it must be absent or empty.

    Args:
        out: The data root to create.
        size: `smoke`, `demo` or `large`.
        layout: `sysu`, `regdb`, `llcm` or `manifest`: the data set whose folders and lists are written.
        seed: Equal arguments give equal pixels on every machine.
        difficulty: `easy`, `moderate`, `default` or `hard`.
        unpaired: Share of the people of `train` who are in one modality only, half of them in either, in [0, 1].
        height: Of images, in pixels; by default that of size and layout.
        width: Likewise.
        workers: Processes; by default one a core, one for small sets. Does not change a pixel.
        knobs: Overrides those of `difficulty`, which then is only a label.

    Raises:
        ConfigError: No such size, layout, difficulty or share; unpaired people of `regdb`.
        DataError: `out` is not empty or cannot be made, or another process generates it.

    Cost: about 1.3 ms of one core an image at 64 x 128, 4.2 ms at 144 x 288; 5 KB and 20 KB on disk, or 17 KB and 81 KB
    as a bitmap of `regdb` (measured on one thread).
    """
    chosen = _known("layout", layout, LAYOUTS)
    picture = _known("size", size, chosen.pictures)
    knobs = knobs or knobs_for(difficulty)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not empty", hint="choose another folder, or remove this one")
    started = time.monotonic()
    plan = chosen.plan(size, seed, knobs)
    if unpaired != 0:
        _refuse_unpaired(layout, unpaired)
        plan = with_unpaired(plan, unpaired, seed, chosen.stations)
    settings = StudioSettings(
        seed, plan.num_people, knobs, chosen.stations, height or picture.height, width or picture.width
    )
    with _appearing_whole(out) as folder:
        rows = _draw_all(folder, plan.shots, settings, workers)
        digest = hashlib.sha256("".join(row["pixels"] for row in rows).encode()).hexdigest()
        chosen.write_lists(folder, Listing(plan, seed, tuple(row["caption"] for row in rows)))
        description: dict[str, Any] = {"size": size, "layout": layout, "difficulty": difficulty, "pixel_digest": digest}
        if unpaired != 0:
            description["unpaired"] = {
                "share": unpaired,
                **{f"{one}_only": len(who) for one, who in plan.unpaired.items()},
            }
        _write_truth(folder, rows, plan, settings, description)
    num_infrared = sum(row["modality"] == Modality.INFRARED.value for row in rows)
    seconds = time.monotonic() - started
    summary = SyntheticSummary(out, plan.num_people, len(rows) - num_infrared, num_infrared, digest, seconds)
    logger.info(
        "generated %d images of %d people: %.0f images/s", len(rows), plan.num_people, summary.images_per_second
    )
    return summary


def _known(what: str, name: str, options: Mapping[str, Any]) -> Any:
    if name not in options:
        raise ConfigError(f"no {what} {name!r} of synthetic data", hint=f"one of {', '.join(options)}")
    return options[name]


def _refuse_unpaired(layout: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"the share of unpaired people is {share}", hint="choose a number from 0 to 1")
    if layout == "regdb":
        raise ConfigError(
            "the layout regdb has no unpaired people: everyone is tested in some of its ten splits, in both modalities",
            hint="choose the layout sysu, llcm or manifest",
        )


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A sibling folder that is renamed to `out` at the end, and removed after an error."""
    folder, lock = _claim(out)
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())
        try:
            folder.replace(out)
        except OSError as error:
            raise DataError(f"{out} cannot be written: {error.strerror}", hint="choose another folder") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _claim(out: Path) -> tuple[Path, int]:
    """A new, locked sibling of `out`; left-over ones of processes that were killed are removed.

    Raises:
        DataError: Another process generates the same folder, or the parent cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _closing(os.open(out.parent, os.O_RDONLY)) as parent:
            _try_lock(parent, fcntl.LOCK_EX)
            for other in out.parent.glob(f".{glob.escape(out.name)}-[a-z0-9_]*.tmp"):
                if re.fullmatch(r"[a-z0-9_]{8}", other.name[len(out.name) + 2 : -4]) and not other.is_symlink():
                    _remove_leftover(other, out)
            folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".tmp", dir=out.parent))
            lock = os.open(folder, os.O_RDONLY)
            _try_lock(lock, fcntl.LOCK_EX)
            return folder, lock
    except OSError as error:
        raise DataError(
            f"{out} cannot be made: {error.strerror}", hint="choose a folder that you can write to"
        ) from error


def _remove_leftover(folder: Path, out: Path) -> None:
    if not folder.is_dir():
        return
    with _closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)) as lock:
        try:
            if _try_lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError as error:
            raise DataError(
                f"another process generates {out}", hint="wait until it ends, or choose another folder"
            ) from error


def _try_lock(descriptor: int, operation: int) -> bool:
    """Lock a folder; False on a file system without locks, `BlockingIOError` where another process has locked it."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    """Close a file descriptor at the end of the `with` block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _draw_all(
    folder: Path, shots: Sequence[Shot], settings: StudioSettings, workers: int | None
) -> list[dict[str, Any]]:
    for parent in sorted({folder / shot.path.parent for shot in shots}):
        parent.mkdir(parents=True)
    chunks = [shots[start : start + _CHUNK] for start in range(0, len(shots), _CHUNK)]
    if workers is None:
        workers = (os.cpu_count() or 1) if len(shots) >= _WORTH_WORKERS else 1
    if workers == 1:
        studio = Studio(settings)
        drawn: Iterable[list[dict[str, Any]]] = (_draw_chunk(folder, studio, chunk) for chunk in chunks)
        return _collected(drawn, len(chunks))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_open_studio, initargs=(folder, settings)) as pool:
        try:
            return _collected(pool.map(_draw_in_worker, chunks), len(chunks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _collected(drawn: Iterable[list[dict[str, Any]]], num_chunks: int) -> list[dict[str, Any]]:
    return [row for rows in progress(drawn, "generate images", num_chunks, f"x {_CHUNK} images") for row in rows]


_opened: list[tuple[Path, Studio]] = []


def _open_studio(folder: Path, settings: StudioSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    end_with_parent()
    _opened[:] = [(folder, Studio(settings))]


def _draw_in_worker(shots: Sequence[Shot]) -> list[dict[str, Any]]:
    folder, studio = _opened[0]
    return _draw_chunk(folder, studio, shots)


def _draw_chunk(folder: Path, studio: Studio, shots: Sequence[Shot]) -> list[dict[str, Any]]:
    rows = []
    for shot in shots:
        portrait = studio.draw(shot.person, shot.station, shot.index)
        picture = Image.fromarray(portrait.pixels)
        # A .bmp suffix writes an uncompressed bitmap.
        picture.save(folder / shot.path, quality=studio.cameras[shot.station].jpeg_quality, subsampling=0)
        rows.append(
            {
                "path": shot.path.as_posix(),
                "person": shot.person,
                "camera": shot.camera,
                "modality": portrait.modality.value,
                "pose": asdict(portrait.pose),
                "occluded": portrait.occluded,
                "shown": portrait.shown,
                "caption": portrait.caption,
                "pixels": hashlib.sha256(portrait.pixels.tobytes()).hexdigest(),
            }
        )
    return rows


def _write_truth(
    folder: Path, rows: list[dict[str, Any]], plan: Plan, settings: StudioSettings, description: Mapping[str, Any]
) -> None:
    """Write `drawn.json`, `captions.jsonl` (no person) with its description, and `truth/` (everything)."""
    (folder / "truth").mkdir()
    captions = [{name: row[name] for name in ("path", "modality", "caption")} for row in rows]
    atomic_files.write_lines(folder / "captions.jsonl", captions)
    atomic_files.write_lines(folder / "truth" / "images.jsonl", rows)
    atomic_files.write_lines(folder / "truth" / "people.jsonl", [asdict(person) for person in Studio(settings).people])
    facts = {
        "kind": "drawn",
        "note": "drawn, not photographed",
        "generator_version": GENERATOR_VERSION,
        **description,
        "seed": settings.seed,
        "height": settings.height,
        "width": settings.width,
        "knobs": settings.knobs.model_dump(),
        "counts": plan.counts(settings.stations),
    }
    atomic_files.write_json(folder / "drawn.json", facts)
    origin = {"model_id": "drawn", "revision": str(GENERATOR_VERSION), "prompt": None, "decoding": None}
    atomic_files.write_json(folder / "captions.meta.json", {"schema": CAPTION_SCHEMA, **origin, "images": len(rows)})
