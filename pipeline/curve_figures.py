"""Learning curves of several runs in one picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

# Of Okabe and Ito, 2008: they differ for every kind of colour vision. Markers tell apart what has one colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX"


@dataclass(frozen=True, slots=True)
class Curve:
    """One run's numbers, by the rounds in which they were measured."""

    label: str
    rounds: tuple[int, ...]
    values: tuple[float, ...]


def draw_curves(curves: Sequence[Curve], title: str) -> bytes:
    """Draw one line a run over the rounds.

    Args:
        curves: At least one. One without a point keeps its colour, and stands in the legend.
        title: What is measured, with its unit.

    Returns:
        A PNG; the same bytes for the same numbers.

    Cost:
        About 0.2 s and 30 KB.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.2, 3.2), dpi=106, layout="constrained")
    axes = figure.subplots()
    for place, curve in enumerate(curves):
        axes.plot(
            curve.rounds,
            curve.values,
            color=COLOURS[place % len(COLOURS)],
            marker=_MARKERS[place // len(COLOURS) % len(_MARKERS)],
            markersize=3.5,
            linewidth=1.4,
            label=curve.label,
        )
    axes.set_xlabel("round")
    axes.set_ylabel(title, parse_math=False)  # a dollar sign is a dollar sign
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
