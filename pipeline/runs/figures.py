"""Figures of a round that more than one method has: learning curves and text prototypes."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from models.modality import PerModality
from pipeline.data.images import gather_pixels
from pipeline.reports import cluster_figures as figures
from pipeline.reports.cluster_figures import spread
from pipeline.reports.curves import Curve, draw_learning_curves
from pipeline.reports.pair_figure import ShownPair, draw_pairs, sample_typical
from pipeline.runs.run import Run
from pipeline.storage.label_files import RoundLabels

SHOWN = 48
"""Rows and columns of a plotted similarity matrix."""


def draw_text_similarity(run: Run[Any, Any], texts: PerModality[Float[Tensor, "_ embed"]], *, same_order: bool) -> None:
    """Draw the similarity of visible and infrared text prototypes of any length, if figures are wanted.

    `same_order`: prototype i is of the same person in both modalities, and these pairs are marked; otherwise the most
    similar infrared one of each visible one is.
    """
    if not run.config.execution.figures:
        return
    units = texts.map(lambda some: some / some.norm(dim=1, keepdim=True))
    rows = spread(len(units.visible), SHOWN)
    similarity = (units.visible[rows] @ units.infrared.T).float().cpu().numpy()
    marked = rows if same_order else similarity.argmax(axis=1)
    shown = rows if same_order else np.unique(marked)
    legend, unit = ("the same person", "people") if same_order else ("the most similar one", "visible clusters")
    title = f"text prototypes, round {run.round.number}: {len(rows)} of {len(units.visible)} {unit}"
    draw = partial(figures.draw_similarity, similarity[:, shown], np.searchsorted(shown, marked), title, legend)
    run.record.folder.save_figure(run.round.number, "text-similarity", draw)


def draw_typical_pairs(run: Run[Any, Any], labels: RoundLabels) -> None:
    """Draw the most typical images of some matched pairs; nothing without pairs."""
    sample = sample_typical(labels)
    if not sample:
        return
    shown = [
        ShownPair(caption, run.images.map_with(lambda images, at: list(gather_pixels(images, at)), rows))
        for caption, rows in sample
    ]
    title = f"round {run.round.number}: {len(shown)} of {len(labels.pairs or ())} pairs, the most certain one first"
    run.record.folder.save_figure(run.round.number, "pairs", partial(draw_pairs, shown, title))


def draw_learning(run: Run[Any, Any], row: Mapping[str, Any], headline: str | None) -> None:
    """Draw the losses of all rounds up to `row`, and Rank-1 and mAP of the headline search, if figures are wanted."""
    if not run.config.execution.figures:
        return
    rows = [*run.state.metrics, row]
    panels = [("loss", [_curve("total", rows, "train/loss/total", 1.0)])]
    if headline is not None:
        curves = [
            _curve(label, rows, f"test/{headline}/{name}", 100.0) for label, name in (("Rank-1", "r1"), ("mAP", "map"))
        ]
        panels += [("percent", curves)] if curves[0].rounds else []
    draw = partial(draw_learning_curves, panels, f"round {run.round.number}")
    run.record.folder.save_figure(run.round.number, "learning-curves", draw)


def _curve(label: str, rows: Sequence[Mapping[str, Any]], name: str, scale: float) -> Curve:
    known = [row for row in rows if row.get(name) is not None]
    return Curve(label, tuple(row["round"] for row in known), tuple(scale * row[name] for row in known))
