"""Do stated shares of false matches hold? Synthetic people who are not in a gallery, as many as the shares need.

One group of synthetic people is the gallery, others calibrate it, and others again are the strangers on whom the shares
are counted, for single images and for the images of a person and camera as groups. The gallery's own people are
queries too: Rank-1, and the share of queries that are answered, right or wrong, at each stated share. Groups that
exist are not drawn again. Writes `calibration.json` and prints a table.

    OMP_NUM_THREADS=1 python -m benchmarks.calibration runs/plus-demo-s1-... --sets 6
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float32

from models.modality import Modality
from pipeline.console import set_up_logging
from pipeline.data.image_list import ImageList, ListedImage, list_images
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.calibration import best_scores
from pipeline.inference.embedding import embed_images
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.false_match import EXPECTED, FalseMatch
from pipeline.inference.groups import Entries, group_entries
from pipeline.inference.run_encoder import open_encoder

SHARES = (0.1, 0.01, 0.001)
CAMERAS = {Modality.VISIBLE: (1, 2, 4, 5), Modality.INFRARED: (3, 6)}
GALLERY_SEED = 100
Known = tuple[list[ListedImage], Float32[np.ndarray, "n dim"]]


def main(
    run: Annotated[str, typer.Argument(help="A run on synthetic people.")],
    data: Annotated[Path, typer.Option(help="Folder of the synthetic people.")] = Path("data/calibration"),
    sets: Annotated[int, typer.Option(help="Groups of 162 people that calibrate, and as many that are counted.")] = 6,
    workers: Annotated[int, typer.Option(help="Processes that draw.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of calibration.json.")] = Path("benchmarks/results"),
) -> None:
    """Draw, encode, count, print."""
    set_up_logging()
    seeds = range(GALLERY_SEED, GALLERY_SEED + 2 * sets + 1)
    for seed in seeds:
        if not (data / str(seed)).exists():
            generate_dataset(data / str(seed), size="demo", seed=seed, difficulty="moderate", workers=workers)
    encoder = open_encoder(run, "cpu")
    gallery = _encoded(encoder, data, seeds[:1], Modality.VISIBLE)
    own, calibrating, counted = (
        _encoded(encoder, data, some, Modality.INFRARED) for some in (seeds[:1], seeds[1 : sets + 1], seeds[sets + 1 :])
    )
    record: dict[str, Any] = {"run": Path(run).name, "sets": sets, "gallery": len(gallery[0])}
    for rule in ("", "folder"):
        there = group_entries(*gallery, "", "mean")
        asking = [group_entries(*some, rule, "mean") for some in (own, calibrating, counted)]
        record["groups" if rule else "images"] = _measured(there, *asking)
    out.mkdir(parents=True, exist_ok=True)
    (out / "calibration.json").write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(_table(record))


def _encoded(encoder: TrainedEncoder, data: Path, seeds: range, modality: Modality) -> Known:
    """Images and unit vectors; people have the name of their group and number."""
    listed, vectors = list[ListedImage](), list[Float32[np.ndarray, "n dim"]]()
    for seed in seeds:
        for camera in CAMERAS[modality]:
            images: ImageList = list_images(data / str(seed) / f"cam{camera}", modality)
            found = embed_images(encoder, images, batch_size=64)
            assert len(found.rows) == len(images)
            vectors.append(unit_rows(found.vectors, "images").astype(np.float32))
            for path in images.paths:
                person = f"{seed}/{path.partition('/')[0]}"
                listed.append(ListedImage(f"{seed}/cam{camera}/{path}", str(camera), person))
    return listed, np.concatenate(vectors)


def _measured(there: Entries, own: Entries, calibrating: Entries, counted: Entries) -> dict[str, Any]:
    calibration = FalseMatch.fit(best_scores(calibrating, there))
    strangers = best_scores(counted, there)
    similarity = own.vectors @ there.vectors.T
    first = similarity.argmax(axis=1)
    right = np.array([own.entry(at).person == there.entry(row).person for at, row in enumerate(first.tolist())])
    best = similarity.max(axis=1)
    found: dict[str, Any] = {"strangers": len(calibration.scores), "counted": len(strangers), "queries": len(own)}
    found |= {"rank1": float(right.mean()), "shares": []}
    for share in SHARES:
        if share * min(len(calibration.scores), len(strangers)) < EXPECTED:
            continue
        threshold = calibration.score_at(share)
        answered = best >= threshold
        found["shares"].append(
            {
                "stated": share,
                "threshold": threshold,
                "measured": float(np.mean(strangers >= threshold)),
                "answered": float(answered.mean()),
                "right": float(right[answered].mean()) if answered.any() else None,
            }
        )
    return found


def _table(record: dict[str, Any]) -> str:
    lines = ["| queries | strangers | Rank-1 | stated share | measured | ratio | answered | right of these |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name in ("images", "groups"):
        one = record[name]
        for row in one["shares"]:
            right = "" if row["right"] is None else f"{100 * row['right']:.1f} %"
            ratio = f"{row['measured'] / row['stated']:.2f}"
            cells = [name, f"{one['strangers']:,}", f"{100 * one['rank1']:.1f} %", f"{row['stated']:g}"]
            cells += [f"{row['measured']:.5f}", ratio, f"{100 * row['answered']:.1f} %", right]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
