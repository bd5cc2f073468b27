"""The figures of a round: which there are, of what part of the round, under which names. Nothing reads them back."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float
from torch import Tensor

from clustering.labelling import Labelling
from clustering.matching import Matching
from models.modality import PerModality
from pipeline.config.rounds import Round
from pipeline.evaluation.figures import draw_panel, look_up
from pipeline.evaluation.protocol import sightings_of
from pipeline.features import FeatureBank
from pipeline.methods.cclnet.method import ClusterRun
from pipeline.reports import cluster_figures as figures
from pipeline.reports.cluster_figures import principal_plane, prototypes_of, sample_map, sample_pairs, spread
from pipeline.reports.curves import Curve, draw_learning_curves
from pipeline.runs.run import Run
from pipeline.runs.search_plan import plan_test
from pipeline.runtime.seeds import numpy_generator

SHOWN = 48
"""Rows and columns of a matrix of similarities: as many as a reader can tell apart."""

QUERIES = 6
"""Queries of a retrieval panel."""


def draw_clusters(
    run: ClusterRun,
    round_: Round,
    features: PerModality[FeatureBank],
    labels: PerModality[Labelling],
    matching: Matching,
) -> None:
    """Draw eps curve, sizes of clusters, map of features and similarity of prototypes, if figures are wanted.

    Cost:
        Under a second; it does not grow with the number of images, but for counting them.
    """
    if not run.config.execution.figures:
        return
    settings, title = run.config.labelling, f"round {round_.number}"
    with run.timed("figures"):
        own = labels.map(lambda labelling: labelling.labels.labels)
        curves, eps = labels.map(lambda labelling: labelling.curve), (settings.visible.eps, settings.infrared.eps)
        _save(run, round_, "eps-curve", partial(figures.draw_eps_curve, curves, PerModality(*eps), title))
        sizes = own.map(lambda some: np.bincount(some[some >= 0]))
        _save(run, round_, "cluster-sizes", partial(figures.draw_cluster_sizes, sizes, title))
        sample = sample_map(own, matching, numpy_generator(run.config.seed, "figures", "map", round_.number))
        places, share = principal_plane(
            np.concatenate([features[modality].vectors[some.rows] for modality, some in sample.items()])
        )
        _save(run, round_, "feature-map", partial(figures.draw_feature_map, places, sample, share, title))
        chosen = sample_pairs(matching, SHOWN)
        if len(chosen) == 0:
            return
        clusters = PerModality(matching.visible[chosen], matching.infrared[chosen])
        visible, infrared = PerModality.build(
            lambda modality: prototypes_of(features[modality].vectors, own[modality], clusters[modality])
        )
        similarity, title = visible @ infrared.T, f"prototypes, {title}: {len(chosen)} of {len(matching.visible)} pairs"
        draw = partial(figures.draw_similarity, similarity, np.arange(len(chosen)), title, "matched")
        _save(run, round_, "prototype-similarity", draw)


def draw_texts(
    run: Run[Any, Any], round_: Round, texts: PerModality[Float[Tensor, "_ embed"]], *, same_order: bool
) -> None:
    """Draw how similar the texts of the modalities are, if figures are wanted.

    Args:
        run: Whose figures these are.
        round_: The round in which the texts are used, or were learned.
        texts: One a cluster or person, of any length; at least one a modality.
        same_order: Whether text i is about the same in both modalities, which is then marked; else the most similar
            infrared text of each visible one is.
    """
    if not run.config.execution.figures:
        return
    with run.timed("figures"):
        units = texts.map(lambda some: some / some.norm(dim=1, keepdim=True))
        rows = spread(len(units.visible), SHOWN)
        similarity = (units.visible[rows] @ units.infrared.T).float().cpu().numpy()
        marked = rows if same_order else similarity.argmax(axis=1)
        shown = rows if same_order else np.unique(marked)
        words = ("the same person", "people") if same_order else ("the most similar one", "visible clusters")
        title = f"texts, round {round_.number}: {len(rows)} of {len(units.visible)} {words[1]}"
        draw = partial(figures.draw_similarity, similarity[:, shown], np.searchsorted(shown, marked), title, words[0])
        _save(run, round_, "text-similarity", draw)


def draw_retrieval(run: Run[Any, Any], round_: Round, features: PerModality[FeatureBank] | None) -> None:
    """Draw some queries of the headline search with what they found, the same ones in every round, if wanted.

    Args:
        run: Whose figure this is.
        round_: The round that the encoder has finished.
        features: Of the test images; None where there are none.

    Cost:
        One product of six queries with all features of the gallery's modality; about 0.1 s and 100 KB.
    """
    images, test = run.images.test, run.dataset.test
    if not run.config.execution.figures or features is None or images is None or test is None:
        return
    with run.timed("figures"):
        trial = plan_test(run.dataset, run.config, final=False)[0][0]
        generator = numpy_generator(run.config.seed, "figures", "queries")
        chosen = np.sort(generator.choice(len(trial.query), size=min(QUERIES, len(trial.query)), replace=False))
        found = look_up(trial, trial.query[chosen], features, sightings_of(test))
        _save(run, round_, "retrieval", partial(draw_panel, found, images))


def draw_learning(run: Run[Any, Any], round_: Round, row: Mapping[str, Any]) -> None:
    """Draw the losses of all rounds so far, and what the headline search found, if figures are wanted.

    Args:
        run: Whose figure this is; it has the numbers of earlier rounds.
        round_: The round that ends.
        row: Its numbers.
    """
    if not run.config.execution.figures:
        return
    with run.timed("figures"):
        rows = [*run.state.metrics, row]
        panels = [("loss", [_curve("total", rows, "train/loss/total", 1.0)])]
        if run.headline_search is not None:
            search = f"test/{run.headline_search}"
            found = [
                _curve(label, rows, f"{search}/{name}", 100.0) for label, name in (("Rank-1", "r1"), ("mAP", "map"))
            ]
            panels += [("percent", found)] if found[0].rounds else []
        _save(run, round_, "learning-curves", partial(draw_learning_curves, panels, f"round {round_.number}"))


def _curve(label: str, rows: Sequence[Mapping[str, Any]], name: str, scale: float) -> Curve:
    known = [row for row in rows if row.get(name) is not None]
    return Curve(label, tuple(row["round"] for row in known), tuple(scale * row[name] for row in known))


def _save(run: Run[Any, Any], round_: Round, name: str, draw: Callable[[BinaryIO], None]) -> None:
    run.record.folder.save_figure(round_.number, name, draw)
