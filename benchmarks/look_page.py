"""How long does `vireid look` take at the size of SYSU-MM01, and how large is its page?

Links the images of a synthetic data set to 22,258 visible and 11,909 infrared paths of 395 people, as a manifest, and
writes the folder of a run that clustered them: most clusters hold one person, some two, a tenth are outliers. Prints
seconds and bytes of the page of its second round. Run it from the top of the repository.

    python -m benchmarks.look_page data/drawn-demo /tmp/look
"""

import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import typer

from clustering.dbscan import Clustering
from clustering.matching import match_clusters
from clustering.prototypes import cluster_prototypes
from clustering.quality import score_pairs, similarity_to_prototype
from models.modality import Modality, PerModality
from pipeline.config.experiment import digest_of, record_of
from pipeline.config.presets import load_config
from pipeline.data.dataset import read_dataset
from pipeline.data.synthetic.record import DRAWN_FILE
from pipeline.reports.look import look_at
from pipeline.reports.look_page import write_look
from pipeline.storage.label_files import RoundLabels
from pipeline.storage.run_folder import RunFolder

IMAGES = PerModality(22_258, 11_909)
PEOPLE = 395
CAMERAS = PerModality((1, 2, 4, 5), (3, 6))


def main(
    data: Annotated[Path, typer.Argument(help="A synthetic data set in SYSU-MM01's layout.")],
    folder: Annotated[Path, typer.Argument(help="Where the links and the run are made.")],
) -> None:
    """Make what is missing, then measure."""
    paths = _linked(data, folder / "images")
    people = IMAGES.map(lambda count: np.arange(count) % PEOPLE)
    _manifest(folder / "images" / "people.csv", paths, people)
    _run(folder / "run", folder / "images" / "people.csv", paths, people)
    began = perf_counter()
    look = look_at(folder / "run")
    read = perf_counter() - began
    missing, omitted = write_look(look, folder / "look.html")
    size = (folder / "look.html").stat().st_size
    sys.stdout.write(
        f"{perf_counter() - began:.1f} s, {read:.1f} s to read; {size / 1e6:.1f} MB, {len(look.pairs)} pairs, "
        f"{missing} images missing, {omitted} omitted\n"
    )


def _linked(data: Path, folder: Path) -> PerModality[list[str]]:
    tables = read_dataset("sysu", data, split="train_val").images
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DRAWN_FILE).write_bytes((data / DRAWN_FILE).read_bytes())  # the page then names them synthetic

    def link(modality: Modality) -> list[str]:
        place, table, found = folder / str(modality), tables[modality], []
        place.mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES[modality]):
            source = table.root / table.paths[number % len(table)]
            path = place / f"{number:05d}{source.suffix}"
            if not path.exists():
                os.link(source, path)
            found.append(str(path.relative_to(folder)))
        return found

    return PerModality.build(link)


def _manifest(file: Path, paths: PerModality[list[str]], people: PerModality[np.ndarray]) -> None:
    lines = ["path,modality,camera,person,split"]
    for modality, own in paths.items():
        cameras = CAMERAS[modality]
        for number, (path, person) in enumerate(zip(own, people[modality].tolist(), strict=True)):
            lines.append(f"{path},{modality},{cameras[number % len(cameras)]},{person},train")
    file.write_text("\n".join(lines) + "\n")


def _run(path: Path, data: Path, paths: PerModality[list[str]], people: PerModality[np.ndarray]) -> None:
    config = load_config("smoke", ("data.name=manifest", f"data.root={data.resolve()}", "stages.clip_rounds=0"))
    with RunFolder.open(path, record_of(config), digest_of(config)) as folder:
        for number in (1, 2):
            folder.save_labels(number, _labels(number, paths, people))
        rows = [{"round": number, "stage": "prepare", "epoch": number, "train/loss/total": 1.0} for number in (1, 2)]
        folder.write_metrics(rows)
        folder.write_timings([{"search": "", "seconds/total": 1.0} for _ in rows])


def _labels(seed: int, paths: PerModality[list[str]], people: PerModality[np.ndarray]) -> RoundLabels:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(PEOPLE, 64))

    def cluster(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = 2 * ids + generator.integers(0, 2, size=len(ids)) * (ids % 3 == 0)
        labels = np.unique(parts, return_inverse=True)[1].astype(np.int64)
        labels[generator.random(len(ids)) < 0.1] = -1
        vectors = (centres[ids] + generator.normal(scale=1.2, size=(len(ids), 64))).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels

    both = people.map(cluster)
    vectors, labels = both.map(lambda one: one[0]), both.map(lambda one: one[1])
    prototypes = vectors.map_with(cluster_prototypes, labels)
    matched = match_clusters(*prototypes)
    return RoundLabels(
        labels.map(lambda some: Clustering(some, some >= 0)),
        vectors.map_with(similarity_to_prototype, labels, prototypes),
        score_pairs(matched.visible, matched.infrared, *prototypes),
        paths.map(tuple),
    )


if __name__ == "__main__":
    typer.run(main)
