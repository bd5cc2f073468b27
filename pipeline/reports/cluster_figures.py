"""Figures of a round, from a bounded number of its images; deterministic to the byte."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from scipy.linalg import eigh

from clustering.dbscan import EpsPoint
from clustering.matching import Matching
from models.modality import Modality, PerModality

UNPAIRED = -1
"""Marks images outside the displayed pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class MapSample:
    """Images of one modality on the map: their feature rows, and the displayed pair of each."""

    rows: Int64[np.ndarray, " s"]
    pairs: Int64[np.ndarray, " s"]


def sample_pairs(matching: Matching, count: int) -> Int64[np.ndarray, " p"]:
    """Positions of at most `count` pairs, evenly spaced from the most to the least similar one."""
    order = np.argsort(-matching.similarity, kind="stable")
    chosen: Int64[np.ndarray, " p"] = order[spread(len(order), count)].astype(np.int64)
    return chosen


def spread(total: int, count: int) -> Int64[np.ndarray, " p"]:
    """At most `count` of the numbers 0 ... total-1, evenly spaced, with the first and the last.

    >>> spread(9, 3).tolist(), spread(2, 3).tolist(), spread(0, 3).tolist()
    ([0, 4, 8], [0, 1], [])
    """
    return np.linspace(0, max(0, total - 1), min(total, count)).round().astype(np.int64)


def sample_map(
    labels: PerModality[Int64[np.ndarray, " n"]],
    matching: Matching,
    generator: np.random.Generator,
    *,
    pairs: int = 10,
    images: int = 15,
    others: int = 100,
) -> PerModality[MapSample]:
    """Choose images for a map at random: of some pairs of clusters (at most `images` per cluster), and others.

    * `labels`: Cluster of each image.
    * `others`: Largest number of other images per modality.
    """
    count = len(matching.visible)
    chosen = np.sort(generator.choice(count, size=min(pairs, count), replace=False))
    clusters = PerModality(matching.visible[chosen], matching.infrared[chosen])

    def choose(own: Int64[np.ndarray, " n"], shown: Int64[np.ndarray, " p"]) -> MapSample:
        members = [_some(np.flatnonzero(own == cluster), images, generator) for cluster in shown]
        around = _some(np.flatnonzero(~np.isin(own, shown)), others, generator)
        numbers = [np.full(len(rows), number) for number, rows in enumerate(members)]
        return MapSample(
            np.concatenate([around, *members]).astype(np.int64),
            np.concatenate([np.full(len(around), UNPAIRED), *numbers]).astype(np.int64),
        )

    return labels.map_with(choose, clusters)


def principal_plane(vectors: Float32[np.ndarray, "n d"]) -> tuple[Float64[np.ndarray, "n 2"], float]:
    """Coordinates on the first two principal components, with deterministic signs, and their share of the variance.

    Missing components are zeros. Cost: two eigenvectors of an n x n matrix, 0.05 s for 500 vectors of length 2,048.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    products = centred @ centred.T
    places, shown = np.zeros((len(vectors), 2)), min(2, len(vectors))
    total = float(np.trace(products))
    if total <= 0:
        return places, 0.0
    values, directions = eigh(products, subset_by_index=(len(vectors) - shown, len(vectors) - 1))
    values = np.clip(values[::-1], 0, None)
    places[:, :shown] = directions[:, ::-1] * np.sqrt(values)
    largest = np.abs(places).argmax(axis=0)
    places *= np.where(places[largest, (0, 1)] < 0, -1.0, 1.0)
    return places, float(values.sum()) / total


def _some(rows: Int64[np.ndarray, " m"], count: int, generator: np.random.Generator) -> Int64[np.ndarray, " s"]:
    chosen: Int64[np.ndarray, " s"] = generator.choice(rows, size=min(count, len(rows)), replace=False)
    return chosen


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinguishable with every kind of colour vision, and in print.
_COLOURS = PerModality("#1f4e79", "#d95f02")
_PANELS = (
    ("clusters", "clusters"),
    ("outlier_share", "share of outliers"),
    ("largest_share", "share of the largest cluster"),
)
# Okabe and Ito, 2008, and three more.
_PAIR_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f3fbf", "#8c564b", "#a8a000",
)  # fmt: skip


def draw_eps_curve(
    curves: PerModality[Sequence[EpsPoint]], chosen: PerModality[float], title: str, file: BinaryIO
) -> None:
    """Draw clusters at other values of eps (ascending), to choose eps without labels; about 0.2 s and 60 KB.

    At a good eps the number of clusters is stable, outliers are few and no cluster dominates.
    """
    figure = _figure((10.5, 3.2))
    figure.suptitle(title)
    for axes, (name, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for modality in Modality:
            eps = [point.eps for point in curves[modality]]
            values = [getattr(point, name) for point in curves[modality]]
            style = "-" if modality is Modality.VISIBLE else "--"
            axes.plot(eps, values, style, color=_COLOURS[modality], marker="o", markersize=3, label=str(modality))
            axes.axvline(chosen[modality], color=_COLOURS[modality], linewidth=0.8, linestyle=":")
        axes.set_xlabel("eps (dotted: used)")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    _save(figure, file)


def draw_cluster_sizes(sizes: PerModality[Int64[np.ndarray, " _"]], title: str, file: BinaryIO) -> None:
    """Draw a histogram of cluster sizes; about 0.1 s and 20 KB."""
    figure = _figure((5.2, 3.2))
    axes = figure.subplots()
    largest = max(int(one.max(initial=1)) for one in sizes)
    edges = np.unique(np.linspace(0.5, largest + 0.5, min(largest, 24) + 1).round(1))
    for modality, one in sizes.items():
        label = f"{modality}: {len(one)} clusters, {int(one.sum()):,} images"
        axes.hist(one, bins=edges.tolist(), color=_COLOURS[modality], alpha=0.55, label=label)
    axes.set_xlabel("images in a cluster")
    axes.set_ylabel("clusters")
    axes.set_title(title, fontsize="medium")
    axes.legend(fontsize="small")
    _save(figure, file)


def draw_feature_map(
    places: Float64[np.ndarray, "n 2"], sample: PerModality[MapSample], share: float, title: str, file: BinaryIO
) -> None:
    """Draw a map of features: a colour per matched pair, grey for others, a marker per modality; about 0.2 s and 60 KB.

    * `places`: Coordinates, visible images first.
    * `share`: Share of the variance on the map.
    """
    figure = _figure((5.6, 4.6))
    axes = figure.subplots()
    first = 0
    for modality, some in sample.items():
        own = places[first : first + len(some.rows)]
        first += len(some.rows)
        coloured = some.pairs != UNPAIRED
        marker = "o" if modality is Modality.VISIBLE else "^"
        x, y = own.T
        axes.scatter(x[~coloured], y[~coloured], s=8, c="#b5b5b5", marker=marker, linewidths=0)
        colours = [_PAIR_COLOURS[pair % len(_PAIR_COLOURS)] for pair in some.pairs[coloured]]
        axes.scatter(x[coloured], y[coloured], s=26, c=colours, marker=marker, edgecolors="white", linewidths=0.4)
        axes.scatter([], [], s=26, c="#404040", marker=marker, label=str(modality))
    pairs = len(np.unique(np.concatenate([some.pairs[some.pairs != UNPAIRED] for some in sample])))
    axes.set_title(f"{title}: {pairs} matched pairs in colour, {share:.0%} of the variance", fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize="small")
    _save(figure, file)


def draw_similarity(
    similarity: Float[np.ndarray, "r c"], marked: Int64[np.ndarray, " r"], title: str, mark: str, file: BinaryIO
) -> None:
    """Draw similarities of visible (rows) and infrared (columns) prototypes, with one marked column per row."""
    figure = _figure((5.6, 4.8))
    axes = figure.subplots()
    picture = axes.imshow(similarity, cmap="cividis", aspect="auto", interpolation="nearest")
    size = float(np.clip(900 / max(similarity.shape), 6, 120))
    rows = np.arange(len(marked))
    axes.scatter(marked, rows, s=size, facecolors="none", edgecolors=_COLOURS.infrared, linewidths=1.2, label=mark)
    axes.set_xlabel("infrared")
    axes.set_ylabel("visible")
    axes.set_title(title, fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(picture, label="similarity")
    axes.legend(loc="upper right", fontsize="small")
    _save(figure, file)


def _figure(size: tuple[float, float]) -> "Figure":
    """A figure outside matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=90, layout="constrained")


def _save(figure: "Figure", file: BinaryIO) -> None:
    figure.savefig(file, format="png", metadata={"Software": None})
