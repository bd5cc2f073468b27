"""Draw a whole data set to disk: in parallel, the same bytes for any number of workers, all of it or nothing."""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
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
from pipeline.data.synthetic.knobs import DrawnKnobs, knobs_for
from pipeline.data.synthetic.layout_llcm import plan_llcm, write_llcm_lists
from pipeline.data.synthetic.layout_manifest import plan_manifest, write_manifest
from pipeline.data.synthetic.layout_regdb import REGDB_SIZES, plan_regdb, write_regdb_lists
from pipeline.data.synthetic.layout_sysu import plan_sysu, write_sysu_lists
from pipeline.data.synthetic.lists import Listing
from pipeline.data.synthetic.plan import SIZES, PictureSize, Plan, Shot, Size
from pipeline.data.synthetic.studio import Studio, StudioSettings
from pipeline.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

GENERATOR_VERSION: Final = 1
_CHUNK: Final = 64
# Below this a second process costs more to start than it draws.
_WORTH_WORKERS: Final = 1500


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay the same people out on disk; a new layout is one more of these."""

    stations: tuple[Station, ...]
    plan: Callable[[Size, int, DrawnKnobs], Plan]
    write_lists: Callable[[Path, Listing], None]
    pictures: Mapping[str, PictureSize]


LAYOUTS: Final = {
    "sysu": Layout(SYSU_STATIONS, plan_sysu, write_sysu_lists, SIZES),
    "regdb": Layout(REGDB_STATIONS, plan_regdb, write_regdb_lists, REGDB_SIZES),
    "llcm": Layout(LLCM_STATIONS, plan_llcm, write_llcm_lists, SIZES),
    "manifest": Layout(SYSU_STATIONS, plan_manifest, write_manifest, SIZES),
}


@dataclass(frozen=True, slots=True)
class DrawnSummary:
    """What was drawn: where, how much of it, a digest over all pixels before JPEG, and how fast."""

    folder: Path
    num_people: int
    num_visible: int
    num_infrared: int
    pixel_digest: str
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images drawn and written a second, set-up of the workers included."""
        return (self.num_visible + self.num_infrared) / max(self.seconds, 1e-9)


def draw_dataset(
    out: Path,
    *,
    size: str,
    layout: str = "sysu",
    seed: int = 1,
    difficulty: str = "default",
    height: int | None = None,
    width: int | None = None,
    workers: int | None = None,
    knobs: DrawnKnobs | None = None,
) -> DrawnSummary:
    """Draw a data set into a new folder, which appears only when it is complete.

    Args:
        out: The data root to create; must not exist, or be empty.
        size: `smoke`, `demo` or `large`.
        layout: `sysu`, `regdb`, `llcm` or `manifest`: the data set whose folders and lists are written.
        seed: Decides everything; equal arguments give equal pixels on every machine.
        difficulty: `easy`, `moderate`, `default` or `hard`.
        height: Picture height in pixels; the usual one of size and layout when absent.
        width: Picture width in pixels; likewise.
        workers: Processes; by default one a core, one for small sets. Does not change a pixel.
        knobs: In place of those that `difficulty` names, which then is only a label.

    Raises:
        ConfigError: No such size, layout or difficulty.
        DataError: `out` holds something.

    Cost: about 1.3 ms of one core an image at 64 x 128, 4.2 ms at 144 x 288; 5 KB and 20 KB on disk, or 17 KB and
    81 KB as a bitmap of `regdb` (measured on one thread).
    """
    chosen = _known("layout", layout, LAYOUTS)
    picture = _known("size", size, chosen.pictures)
    knobs = knobs or knobs_for(difficulty)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not empty", hint="name another folder, or remove this one")
    started = time.monotonic()
    plan = chosen.plan(size, seed, knobs)
    settings = StudioSettings(
        seed, plan.num_people, knobs, chosen.stations, height or picture.height, width or picture.width
    )
    with _appearing_whole(out) as folder:
        rows = _draw_all(folder, plan.shots, settings, workers)
        digest = hashlib.sha256("".join(row["pixels"] for row in rows).encode()).hexdigest()
        chosen.write_lists(folder, Listing(plan, seed, tuple(row["caption"] for row in rows)))
        description = {"size": size, "layout": layout, "difficulty": difficulty, "pixel_digest": digest}
        _write_truth(folder, rows, plan, settings, description)
    num_infrared = sum(row["modality"] == Modality.INFRARED.value for row in rows)
    seconds = time.monotonic() - started
    summary = DrawnSummary(out, plan.num_people, len(rows) - num_infrared, num_infrared, digest, seconds)
    logger.info("drew %d images of %d people: %.0f images/s", len(rows), plan.num_people, summary.images_per_second)
    return summary


def _known(what: str, name: str, options: Mapping[str, Any]) -> Any:
    if name not in options:
        raise ConfigError(f"no {what} {name!r} of drawn data", hint=f"one of {', '.join(options)}")
    return options[name]


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """A sibling folder that takes the name `out` at the end, and is removed if the end is not reached."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".tmp", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


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
        return _collected(pool.map(_draw_in_worker, chunks), len(chunks))


def _collected(drawn: Iterable[list[dict[str, Any]]], num_chunks: int) -> list[dict[str, Any]]:
    return [row for rows in progress(drawn, "draw people", num_chunks, f"x {_CHUNK} images") for row in rows]


_opened: list[tuple[Path, Studio]] = []


def _open_studio(folder: Path, settings: StudioSettings) -> None:
    _opened[:] = [(folder, Studio(settings))]


def _draw_in_worker(shots: Sequence[Shot]) -> list[dict[str, Any]]:
    folder, studio = _opened[0]
    return _draw_chunk(folder, studio, shots)


def _draw_chunk(folder: Path, studio: Studio, shots: Sequence[Shot]) -> list[dict[str, Any]]:
    rows = []
    for shot in shots:
        portrait = studio.draw(shot.person, shot.station, shot.index)
        picture = Image.fromarray(portrait.pixels)
        # Bitmaps, which the suffix asks for, are written as they are.
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
    folder: Path, rows: list[dict[str, Any]], plan: Plan, settings: StudioSettings, description: dict[str, str]
) -> None:
    """Write `drawn.json`, `captions.jsonl` (no person) with its description, and `truth/` (everything)."""
    (folder / "truth").mkdir()
    captions = ({name: row[name] for name in ("path", "modality", "caption")} for row in rows)
    _write_lines(folder / "captions.jsonl", captions)
    _write_lines(folder / "truth" / "images.jsonl", rows)
    _write_lines(folder / "truth" / "people.jsonl", (asdict(person) for person in Studio(settings).people))
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
    _write_json(folder / "drawn.json", facts)
    origin = {"model_id": "drawn", "revision": str(GENERATOR_VERSION), "prompt": None, "decoding": None}
    _write_json(folder / "captions.meta.json", {"schema": CAPTION_SCHEMA, **origin, "images": len(rows)})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
