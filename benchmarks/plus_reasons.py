"""Why `plus-demo` ends below supervised CSDN on synthetic people: labels, pairs, gradients, searches within a modality.

Trains CCLNet, `plus-demo`, `plus-demo` without local scaling, the same without its wrong pairs and with the pairs that
the identities give (one with one, and several clusters with one), and CSDN, with one training seed. In the first steps
of each round of stage `clip`, the gradients of the text losses and of all other losses are measured on the weights that
both reach; this changes no weight. Then the last encoder searches across and within the modalities of the test images.
Results are kept in `plus_reasons.json`; a run that was interrupted goes on, without the gradients of finished rounds.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m benchmarks.plus_reasons --people 2
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import typer
from jaxtyping import Float32, Int64

from benchmarks.ablation import HEADLINE, rounds_of
from benchmarks.demo_ablation import RELEASED_TEXT
from clustering.matching import Matching
from clustering.partners import NO_PARTNER, DirectedMatching, directed
from models.modality import Modality, PerModality
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_config
from pipeline.console import set_up_logging
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.evaluation.diagnostics import majority_people
from pipeline.evaluation.protocol import excluded_pairs
from pipeline.evaluation.ranking import rank_trial
from pipeline.evaluation.searches import samples_of
from pipeline.methods import method_of
from pipeline.methods.cclnet import finding, stages
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.runs.evaluator import IdentityEvaluator
from pipeline.runs.open import open_run, reopen_run, run_path
from pipeline.training.objective import Batch, Objective

STEPS = 4
"""Steps of a round whose gradients are measured."""

W = ("plus-demo", ("matching.local_scaling=0",))
"""`plus-demo` as it was before these results."""

ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "CCLNet": ("demo", (RELEASED_TEXT,)),
    "W": W,
    "W, right pairs only": W,
    "W, one-to-one pairs by identity": W,
    "W, pairs by identity": W,
    "plus-demo": ("plus-demo", ()),
    "CSDN, with identities": ("csdn-demo", ()),
}

SEARCHES = (
    (Modality.INFRARED, Modality.VISIBLE), (Modality.VISIBLE, Modality.INFRARED),
    (Modality.INFRARED, Modality.INFRARED), (Modality.VISIBLE, Modality.VISIBLE),
)  # fmt: skip
"""Modality of queries and of the gallery."""

QUALITY = {
    "pairs_right": "diagnostics/matching/precision",
    "matched": "labels/matched_share",
    "ari_visible": "diagnostics/visible/ari_all",
    "ari_infrared": "diagnostics/infrared/ari_all",
    "map": f"test/{HEADLINE}/map",
}


def main(
    data: Annotated[Path, typer.Option(help="Folder of the generated data sets.")] = Path("data"),
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs/reasons"),
    people: Annotated[int, typer.Option(help="Drawing seed.")] = 2,
    seed: Annotated[int, typer.Option(help="Training seed.")] = 1,
    parallel: Annotated[int, typer.Option(help="Runs at once, one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of plus_reasons.json.")] = Path("benchmarks/results"),
) -> None:
    """Run what `plus_reasons.json` lacks, and print all of it."""
    folder, file = data / f"demo-{people}", out / "plus_reasons.json"
    if not folder.exists():
        generate_dataset(folder, size="demo", seed=people, difficulty="moderate")
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    jobs = {name: _configure(name, folder, runs, seed) for name in ROWS if f"{name}/{people}/{seed}" not in found}
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn"), initializer=set_up_logging) as pool:
        for name, result in zip(jobs, pool.map(examine, jobs, jobs.values()), strict=True):
            found[f"{name}/{people}/{seed}"] = result
            file.write_text(json.dumps(found, indent=1) + "\n")
    for name in ROWS:
        sys.stdout.write(f"{name}\n{json.dumps(found[f'{name}/{people}/{seed}'])}\n")


def examine(name: str, config: AnyConfig) -> dict[str, Any]:
    """Train a row of `ROWS`, and search with its last encoder."""
    torch.set_num_threads(1)
    gradients: dict[str, dict[str, float]] = {}
    with open_run(config, method_of(config)) as run:
        if ROWS[name][0] == "csdn-demo":
            method_of(config).rounds(run)
        else:
            with (
                patch.object(Objective, "losses", _measured(run, gradients)),
                patch.object(stages, "find_clusters", FINDERS.get(name, finding.find_clusters)),
            ):
                method_of(config).rounds(run)
    rounds, _ = rounds_of(config)
    quality = {key: [row.get(column) for row in rounds] for key, column in QUALITY.items()}
    return {"quality": quality, "gradients": gradients, "searches": _search(config)}


def _configure(name: str, data: Path, runs: Path, seed: int) -> AnyConfig:
    preset, changes = ROWS[name]
    own = runs / name.replace(",", "").replace(" ", "-") / data.name  # rows with other pairs have the settings of W
    execution = {"runs_folder": str(own), "tracking": False, "figures": False, "register_model": False}
    return load_config(preset, (f"seed={seed}", *changes), {"data": {"root": str(data)}, "execution": execution})


def _measured(run: Any, gradients: dict[str, dict[str, float]]) -> Any:
    """`Objective.losses` that also measures the lengths of two gradients: of texts, and of all other terms."""
    plain = Objective.losses
    steps: dict[int, list[tuple[float, float, float]]] = {}

    def losses(objective: Objective, batch: Batch) -> dict[str, torch.Tensor]:
        found, number = plain(objective, batch), run.round.number
        texts = [loss for name, loss in found.items() if name.endswith("_text")]
        others = [loss for name, loss in found.items() if not name.endswith("_text") and name != "total"]
        done = steps.setdefault(number, [])
        if texts and len(done) < STEPS:
            done.append(_lengths(run.state.encoder, texts, others))
            text, other, cosine = np.mean(done, axis=0).tolist()
            gradients[str(number)] = {"text": text, "contrast": other, "cosine": cosine}
        return found

    return losses


def _lengths(
    encoder: torch.nn.Module, texts: list[torch.Tensor], others: list[torch.Tensor]
) -> tuple[float, float, float]:
    """Lengths of the gradients of both sums on the weights that both reach, and their cosine."""
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    both = [
        torch.autograd.grad(torch.stack(some).sum(), weights, retain_graph=True, allow_unused=True)
        for some in (texts, others)
    ]
    shared = [place for place in range(len(weights)) if all(own[place] is not None for own in both)]
    first, second = (torch.cat([own[place].flatten() for place in shared]) for own in both)
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=0)
    return float(first.norm()), float(second.norm()), float(cosine)


def _right_pairs(run: Any, features: Any, assign: Any) -> Clusters:
    """The clusters and pairs of a round, without the pairs of two people."""
    clusters = finding.find_clusters(run, features, assign)
    of, pairs = _people(run, clusters), clusters.matching
    right = of.visible[pairs.visible] == of.infrared[pairs.infrared]
    return _one_to_one(clusters, Matching(pairs.visible[right], pairs.infrared[right], pairs.similarity[right]))


def _pairs_by_identity(run: Any, features: Any, assign: Any) -> Clusters:
    """The clusters of a round, each paired with the most similar one of the person on most of its images."""
    clusters = finding.find_clusters(run, features, assign)
    of = _people(run, clusters)
    forth = _same_person(of.visible, of.infrared, clusters.similarity)
    back = _same_person(of.infrared, of.visible, clusters.similarity.T)
    partners = DirectedMatching(forth[0], back[0], forth[1], back[1])
    return replace(clusters, partners=partners, matching=partners.agreed())


def _one_to_one_by_identity(run: Any, features: Any, assign: Any) -> Clusters:
    """The pairs of `_pairs_by_identity` that both clusters name."""
    clusters = _pairs_by_identity(run, features, assign)
    return _one_to_one(clusters, clusters.matching)


def _people(run: Any, clusters: Clusters) -> PerModality[Int64[np.ndarray, " clusters"]]:
    """The person on most images of each cluster."""
    evaluator = run.evaluator
    assert isinstance(evaluator, IdentityEvaluator)
    people = evaluator.dataset.training_people(evaluator.rows).map(lambda some: some.ids)
    return clusters.labels.map_with(majority_people, people)


def _one_to_one(clusters: Clusters, matching: Matching) -> Clusters:
    return replace(clusters, matching=matching, partners=directed(matching, *clusters.similarity.shape))


def _same_person(
    own: Int64[np.ndarray, " own"], others: Int64[np.ndarray, " others"], similarity: Float32[np.ndarray, "own others"]
) -> tuple[Int64[np.ndarray, " own"], Float32[np.ndarray, " own"]]:
    """Of each cluster: the most similar cluster of the same person in the other modality, and the similarity."""
    alike = np.where(own[:, None] == others, similarity, -np.inf)
    known = np.isfinite(alike).any(axis=1)
    nearest = alike.argmax(axis=1)
    values = similarity[np.arange(len(own)), nearest]
    return np.where(known, nearest, NO_PARTNER), np.where(known, values, np.nan).astype(np.float32)


def _search(config: AnyConfig) -> dict[str, dict[str, float]]:
    """Rank-1 and mAP of all test images of one modality among all of another, or of the same by other cameras."""
    with reopen_run(run_path(config), method_of, data_root=None, device="cpu") as (run, evaluator):
        assert evaluator.test is not None and evaluator.dataset.test is not None
        banks, samples = run.extract_held_out_features(evaluator.test), samples_of(evaluator.dataset.test)
    found = {}
    for query, gallery in SEARCHES:
        of_query, of_gallery = samples[query], samples[gallery]
        metrics = rank_trial(
            banks[query].vectors, banks[gallery].vectors,
            query_people=of_query.people, gallery_people=of_gallery.people,
            excluded=excluded_pairs("same_person_same_camera", of_query, of_gallery),
        )  # fmt: skip
        found[f"{query} to {gallery}"] = {"r1": float(metrics.cmc[0]), "map": metrics.map}
    return found


FINDERS = {
    "W, right pairs only": _right_pairs,
    "W, one-to-one pairs by identity": _one_to_one_by_identity,
    "W, pairs by identity": _pairs_by_identity,
}
"""Rows with other pairs than those of their preset."""


if __name__ == "__main__":
    typer.run(main)
