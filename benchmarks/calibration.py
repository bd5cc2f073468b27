"""Do stated shares of false matches hold? Synthetic people who are not in a gallery, as many as the shares need.

The gallery has the visible images of 162 synthetic people. Strangers are further people of the same site: each passes
one of its two infrared cameras, with three images, which are also searched as a group. Two hundred times, a third of
them calibrates and the others are counted, split by person; also with the fewest strangers that a share accepts.
People of other sites, with other cameras, are counted by the calibration of all strangers, a site at a time. The
gallery's own people are queries too: Rank-1, and the share that is answered, right or wrong, at each stated share.

Only scores are kept, in parts below --data, and a repeated call resumes. Writes `calibration.json`, prints tables.

    OMP_NUM_THREADS=1 python -m benchmarks.calibration runs/demo-s1-...
"""

import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import Float32
from PIL import Image

from models.modality import Modality
from pipeline.console import progress, set_up_logging
from pipeline.data.image_files import decode_image
from pipeline.data.image_list import ListedImage, list_images
from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.images import Studio, StudioSettings
from pipeline.data.synthetic.knobs import knobs_for
from pipeline.data.synthetic.plan import SIZES
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.calibration import best_scores
from pipeline.inference.embedding import embed_images
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.false_match import EXPECTED, FalseMatch
from pipeline.inference.groups import Entries, Grouping, group_entries
from pipeline.inference.run_encoder import open_encoder
from pipeline.runtime import atomic_files

SHARES = (0.1, 0.01, 0.001)
GROUPINGS = {"images": Grouping(), "query groups": Grouping("folder"), "groups": Grouping("folder", "folder")}
DIFFICULTY = "moderate"
CAMERAS = {Modality.VISIBLE: (1, 2, 4, 5), Modality.INFRARED: (3, 6)}
SITE = 100
PEOPLE = 162
IMAGES = 3
PART = 500
Known = tuple[list[ListedImage], Float32[np.ndarray, "n dim"]]
Scores = dict[str, np.ndarray]
"""The best scores of strangers for each grouping, [people, images] or [people, 1]."""


def main(
    run: Annotated[str, typer.Argument(help="A run on synthetic people.")],
    data: Annotated[Path, typer.Option(help="Folder of the gallery and of parts.")] = Path("data/calibration"),
    strangers: Annotated[int, typer.Option(min=30_000, help="Strangers of the gallery's site.")] = 55_000,
    sites: Annotated[int, typer.Option(help="Other sites, each with a thousand strangers.")] = 10,
    splits: Annotated[int, typer.Option(help="Splits into strangers that calibrate and others.")] = 200,
    out: Annotated[Path, typer.Option(help="Folder of calibration.json.")] = Path("benchmarks/results"),
) -> None:
    """Draw, encode, count, print."""
    set_up_logging()
    torch.set_num_threads(1)
    encoder = open_encoder(run, "cpu")
    gallery, own = _gallery(encoder, data / "gallery")
    there = {name: group_entries(*gallery, one.gallery, one.by) for name, one in GROUPINGS.items()}
    parts = data / f"parts-{encoder.digest[:12]}"
    parts.mkdir(exist_ok=True)
    scores = _strangers(encoder, there, SITE, range(PEOPLE + 1, PEOPLE + strangers + 1), parts)
    others = [_strangers(encoder, there, SITE + site, range(1, 1001), parts) for site in range(1, sites + 1)]
    record: dict[str, Any] = {"run": Path(run).name, "strangers": strangers, "gallery": len(gallery[0])}
    record |= {"splits": splits, "sites": sites}
    for name, grouping in GROUPINGS.items():
        asking = group_entries(*own, grouping.query, grouping.by)
        record[name] = {"shares": _measured(scores[name], [site[name] for site in others], splits)}
        record[name] |= _answers(FalseMatch.fit(scores[name].ravel()), asking, there[name])
    out.mkdir(parents=True, exist_ok=True)
    (out / "calibration.json").write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write("\n".join(_tables(record)) + "\n")


def _gallery(encoder: TrainedEncoder, folder: Path) -> tuple[Known, Known]:
    """Visible images, and infrared ones, of the gallery's people: unit vectors, a folder a person and camera."""
    if not folder.exists():
        generate_dataset(folder, size="demo", seed=SITE, difficulty=DIFFICULTY, workers=1)
    found: list[Known] = []
    for modality in Modality:
        listed, vectors = list[ListedImage](), list[Float32[np.ndarray, "n dim"]]()
        for camera in CAMERAS[modality]:
            images = list_images(folder / f"cam{camera}", modality)
            embedded = embed_images(encoder, images, batch_size=64, workers=1)
            assert len(embedded.rows) == len(images)
            vectors.append(unit_rows(embedded.vectors, "images").astype(np.float32))
            listed += [ListedImage(f"cam{camera}/{path}", str(camera), path.partition("/")[0]) for path in images.paths]
        found.append((listed, np.concatenate(vectors)))
    return found[0], found[1]


def _strangers(
    encoder: TrainedEncoder, there: dict[str, Entries], site: int, people: Sequence[int], parts: Path
) -> Scores:
    """Scores of people of a site, by their numbers."""
    height, width = SIZES["demo"].height, SIZES["demo"].width
    settings = StudioSettings(site, max(people), knobs_for(DIFFICULTY), SYSU_STATIONS, height, width)
    studio: Studio | None = None
    found: list[Scores] = []
    for start in progress(range(0, len(people), PART), f"site {site}", -(-len(people) // PART), f"x {PART} people"):
        part = parts / f"{site}-{people[start]:06d}-{len(people[start : start + PART])}.npz"
        if not part.exists():
            studio = studio or Studio(settings)
            scores = _scores(encoder, there, studio, people[start : start + PART])
            atomic_files.replace_file(part, lambda file, scores=scores: np.savez(file, **scores))
        with np.load(part) as kept:
            found.append({name: kept[name] for name in GROUPINGS})
    return {name: np.concatenate([one[name] for one in found]) for name in GROUPINGS}


def _scores(encoder: TrainedEncoder, there: dict[str, Entries], studio: Studio, people: Sequence[int]) -> Scores:
    files, pixels = list[ListedImage](), list[np.ndarray]()
    for person, image, jpeg in _photographs(studio, people):
        files.append(ListedImage(f"{person}/{image}.jpg", ""))
        pixels.append(decode_image(jpeg, encoder.height, encoder.width, encoder.reading).pixels)
    batches = [np.stack(pixels[start : start + 64]) for start in range(0, len(pixels), 64)]
    found = np.concatenate([encoder.encode(batch, Modality.INFRARED) for batch in batches])
    vectors = unit_rows(found, "strangers").astype(np.float32)
    return {
        name: best_scores(group_entries(files, vectors, one.query, one.by), there[name]).reshape(len(people), -1)
        for name, one in GROUPINGS.items()
    }


def _photographs(studio: Studio, people: Sequence[int]) -> Iterator[tuple[int, int, bytes]]:
    for person in people:
        station = CAMERAS[Modality.INFRARED][person % 2]
        for image in range(1, IMAGES + 1):
            file = io.BytesIO()
            picture = Image.fromarray(studio.draw(person, station, image).pixels)
            picture.save(file, "JPEG", quality=studio.cameras[station].jpeg_quality, subsampling=0)
            yield person, image, file.getvalue()


def _measured(scores: np.ndarray, others: list[np.ndarray], splits: int) -> dict[str, Any]:
    """Counted over stated shares: median, 5 % and 95 % over splits, and over other sites."""
    rng = np.random.default_rng(0)
    third = len(scores) // 3
    fewest = [math.ceil(round(EXPECTED / share) / scores.shape[1]) for share in SHARES]
    thirds, few = list[list[float]](), list[list[float]]()
    for _ in range(splits):
        order = rng.permutation(len(scores))
        calibration, counted = FalseMatch.fit(scores[order[:third]].ravel()), scores[order[third:]]
        thirds.append([_ratio(calibration, counted, share) for share in SHARES])
        fits = [FalseMatch.fit(scores[order[:number]].ravel()) for number in fewest]
        few.append([_ratio(fit, counted, share) for fit, share in zip(fits, SHARES, strict=True)])
    everyone = FalseMatch.fit(scores.ravel())
    sites = [[_ratio(everyone, one, share) for share in SHARES] for one in others]
    names = ("a third calibrates", "fewest", "other sites")
    spreads = [np.quantile(one, (0.5, 0.05, 0.95), axis=0).round(3).T.tolist() for one in (thirds, few, sites)]
    return {
        str(share): {"counted": round(share * counted.size)}
        | {name: one[at] for name, one in zip(names, spreads, strict=True)}
        for at, share in enumerate(SHARES)
    }


def _ratio(calibration: FalseMatch, counted: np.ndarray, share: float) -> float:
    return float(np.mean(counted >= calibration.score_at(share))) / share


def _answers(calibration: FalseMatch, own: Entries, there: Entries) -> dict[str, Any]:
    """How many queries of the gallery's own people are answered, and how many of these rightly."""
    similarity = own.vectors @ there.vectors.T
    first, best = similarity.argmax(axis=1), similarity.max(axis=1)
    right = np.array(own.people()) == np.array(there.people())[first]
    found: dict[str, Any] = {"queries": len(own), "rank1": float(right.mean()), "answered": {}}
    for share in SHARES:
        answered = best >= calibration.score_at(share)
        found["answered"][str(share)] = [float(answered.mean()), float(right[answered].sum() / max(1, answered.sum()))]
    return found


def _tables(record: dict[str, Any]) -> Iterator[str]:
    yield "| queries | stated share | counted | ratio | 5 to 95 % | with the fewest strangers | other sites |"
    yield "|---|---|---|---|---|---|---|"
    for name in GROUPINGS:
        for share, one in record[name]["shares"].items():
            middle, low, high = one["a third calibrates"]
            cells = [name, share, f"{one['counted']:,}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
            cells += [f"{part[0]:.2f}, {part[1]:.2f} to {part[2]:.2f}" for part in (one["fewest"], one["other sites"])]
            yield "| " + " | ".join(cells) + " |"
    yield ""
    yield "| queries | Rank-1 | stated share | answered | right of these |"
    yield "|---|---|---|---|---|"
    for name in GROUPINGS:
        rank1 = f"{100 * record[name]['rank1']:.1f} %"
        for share, (answered, right) in record[name]["answered"].items():
            yield f"| {name} | {rank1} | {share} | {100 * answered:.1f} % | {100 * right:.1f} % |"


if __name__ == "__main__":
    typer.run(main)
