"""How do the signs of quality that need no identities follow the true quality?

Trains short runs of CCLNet with preset `smoke` on a synthetic data set, good and bad ones: its own settings, other
values of eps, random weights, and a learning rate that destroys the features. Every round is a point: a sign at the
bottom, the true quality at the left, which is the share of right pairs and the mean ARI of both modalities. Prints
Spearman's rank correlation over all rounds and draws the figure of docs/comparing.md.

    python -m benchmarks.quality_signs data/drawn-smoke runs/signs docs/images/quality-signs.png
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import spearmanr

from pipeline.config.presets import load_config
from pipeline.console import set_up_logging
from pipeline.methods import train
from pipeline.reports.curves import COLOURS
from pipeline.reports.look import Look, look_at
from pipeline.runs.open import run_path
from pipeline.storage.run_reader import RecordedRun, read_run

SHORT = (
    "stages.clip_rounds=0", "stages.prepare_rounds=4", "evaluation.every=9", "evaluation.trials=1",
    "execution.tracking=false", "execution.figures=false", "execution.register_model=false", "execution.device=cpu",
)  # fmt: skip
EPS = ("labelling.visible.eps={0}", "labelling.infrared.eps={0}")
VARIANTS: dict[str, tuple[str, ...]] = {
    "preset smoke": (),
    "seed 2": ("seed=2",),
    "eps 0.45": tuple(one.format(0.45) for one in EPS),
    "eps 0.75": tuple(one.format(0.75) for one in EPS),
    "random weights": ("model.architecture=tiny", "model.weights=random"),
    "learning rate 0.03": ("optimisation.learning_rate=0.03",),
}
SIGNS = {
    "mutual share": ("labels/mutual_share",),
    "matched share": ("labels/matched_share",),
    "similarity of pairs": ("quality/pair_similarity",),
    "margin of pairs": ("quality/pair_margin",),
    "same as before (ARI)": ("quality/visible/same_as_before", "quality/infrared/same_as_before"),
    "one-camera share": ("quality/visible/one_camera_share", "quality/infrared/one_camera_share"),
    "silhouette": ("quality/visible/silhouette", "quality/infrared/silhouette"),
}
TRUTH = {
    "right pairs": ("diagnostics/matching/precision",),
    "ARI": ("diagnostics/visible/ari_all", "diagnostics/infrared/ari_all"),
}


def main(
    data: Annotated[Path, typer.Argument(help="A synthetic data set in SYSU-MM01's layout.")],
    runs: Annotated[Path, typer.Argument(help="Folder of the runs; finished ones are not repeated.")],
    figure: Annotated[Path, typer.Argument(help="The figure to write.")],
) -> None:
    """Train, print and draw."""
    set_up_logging()
    found = {}
    for name, changes in VARIANTS.items():
        sections = {"data": {"root": data}, "execution": {"runs_folder": runs}}
        config = load_config("smoke", (*SHORT, *changes), sections)
        if not run_path(config).exists() or read_run(run_path(config)).state != "finished":
            train(config)
        found[name] = read_run(run_path(config))
    for sign, names in SIGNS.items():
        for truth, true_names in TRUTH.items():
            points = _points(list(found.values()), names, true_names)
            sys.stdout.write(f"{sign} against {truth}: {_correlation(points):+.2f} over {len(points)} rounds\n")
    for name, score in (("margin", lambda pairs: pairs.margin), ("similarity", lambda pairs: pairs.similarity)):
        looks = [look_at(run.path, number) for run in found.values() for number in run.rounds]
        shares = [_separated(look, score(look.pairs)) for look in looks]
        sys.stdout.write(f"a right pair has the larger {name} than a wrong one: {np.nanmean(shares):.2f}\n")
    _draw(found, figure)


def _separated(look: Look, score: np.ndarray) -> float:
    """Share of comparisons of a right with a wrong pair in which the right one has the higher score."""
    wrong = np.array([look.is_wrong(place) for place in range(len(score))], bool)
    higher = np.sign(score[~wrong, None] - score[None, wrong])
    return float((1 + higher.mean()) / 2) if higher.size else np.nan


def _points(runs: list[RecordedRun], names: tuple[str, ...], true_names: tuple[str, ...]) -> np.ndarray:
    rows: list[Any] = [row for run in runs for row in run.rounds.values()]
    known = [row for row in rows if all(row.get(name) is not None for name in (*names, *true_names))]
    pairs = [(_mean(row, names), _mean(row, true_names)) for row in known]
    return np.array(pairs).reshape(-1, 2)


def _mean(row: dict[str, float], names: tuple[str, ...]) -> float:
    return sum(row[name] for name in names) / len(names)


def _correlation(points: np.ndarray) -> float:
    return float(spearmanr(points[:, 0], points[:, 1]).statistic) if len(points) > 2 else np.nan


def _draw(runs: dict[str, RecordedRun], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.1 * len(SIGNS), 4.6), dpi=90, layout="constrained")
    for axes, (truth, true_names) in zip(figure.subplots(2, len(SIGNS), sharey="row"), TRUTH.items(), strict=True):
        for place, (sign, names) in enumerate(SIGNS.items()):
            for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
                points = _points([run], names, true_names)
                axes[place].plot(
                    points[:, 0], points[:, 1], "o-", color=colour, markersize=4, linewidth=0.7, label=name
                )
            correlation = _correlation(_points(list(runs.values()), names, true_names))
            axes[place].set_title(f"{correlation:+.2f}", fontsize="medium")
            axes[place].set_xlabel(sign, fontsize="small")
            axes[place].tick_params(labelsize=7)
            axes[place].grid(alpha=0.3)
        axes[0].set_ylabel(truth)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(runs), fontsize="small")
    figure.savefig(file, metadata={"Software": None})


if __name__ == "__main__":
    typer.run(main)
