"""What each switch beyond CCLNet is worth on synthetic people, alone, on top of others, and left out of the bundle.

Choices are made on drawing seeds 1 and 3; seeds 2 and 4 are for the report. Rows share the rounds in which they do the
same: stage `prepare`, and the rounds of stage `clip` before terms across modalities begin. Results are kept in
`plus_ablation.json`, one by one; what it has is not run again, and a run that was interrupted goes on. Prints a table
for each drawing seed, and draws `plus_ablation.png`.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m benchmarks.plus_ablation --people 1,3 --seeds 1 --parallel 2
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from benchmarks.ablation import percent, retrieval, rounds_of, train
from benchmarks.demo_ablation import RELEASED_TEXT, hand_on
from pipeline.config.experiment import AnyConfig, planned_rounds
from pipeline.config.presets import load_config
from pipeline.console import set_up_logging
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.reports.curves import COLOURS
from pipeline.runs.open import run_path

LIGHT_TEXT = "prompts.text_weight=0.3"
EXCHANGE = "augmentation.channel=exchange"
CAMERAS = "memory.cameras=proxies"
U = ("matching.method=mutual", "swap.mode=off", "loss.contrast=unified", "loss.start=9", LIGHT_TEXT)
WHITENED = "matching.cost=whitened"
SCALED = "matching.local_scaling=3"
W = (*U, WHITENED, "loss.start=3")
PLUS = (*U, WHITENED, SCALED, "loss.start=3")
MANY = "matching.method=progressive"
JOINT = ("labelling.space=joint_balanced", "labelling.start=3", "matching.method=hungarian")
CROSS_TEXT, SHARED = "prompts.cross_weight=0.3", "prompts.shared=true"
CONFIDENT, HARD = "loss.confidence=true", "memory.hard=true"
RELABELLED, ASSIGNED = "labelling.relabel=density", "labelling.outliers=assign"
SOFT = ("labelling.soft=neighbours", "labelling.soft_neighbours=10")

SUPERVISED = "CSDN, with identities"
"""Another preset, for comparison."""

ROWS: dict[str, tuple[str, ...]] = {
    "base": (),
    "text weight .3": (LIGHT_TEXT,),
    "no text": ("prompts.text_weight=0",),
    "cosine logits": ("prompts.logits=cosine",),
    "mutual pairs": ("matching.method=mutual",),
    "progressive pairs and cross contrast": (
        "matching.method=progressive", "swap.mode=off", "loss.contrast=cross", "loss.start=9",
    ),
    "transport": ("matching.method=transport", "swap.every=none"),
    "sub-prototypes": ("matching.cost=sub_prototypes", "swap.every=none"),
    "whitened prototypes": (WHITENED, "swap.every=none"),
    "local scaling": (SCALED, "swap.every=none"),
    "channel exchange": (EXCHANGE,),
    "hard prototypes": (HARD,),
    "relabelling": (RELABELLED,),
    "outliers assigned": (ASSIGNED,),
    "soft labels": SOFT,
    "joint clustering": (*JOINT, "swap.every=none"),
    "refresh by agreement": ("prompts.refresh_agreement=0.9", "prompts.init=warm", "prompts.feature_source=current"),
    "U": U,
    "U, whitened": (*U, WHITENED),
    "W": W,
    "plus-demo": PLUS,
    "plus-demo, not whitened": (*U, SCALED, "loss.start=3"),
    "plus-demo, start 9": (*U, WHITENED, SCALED),
    "plus-demo, cross contrast": (*PLUS, "loss.contrast=cross"),
    "plus-demo, text weight 1": (*PLUS, "prompts.text_weight=1"),
    "plus-demo, no text": (*PLUS, "prompts.text_weight=0"),
    "plus-demo, Hungarian pairs": (*PLUS, "matching.method=hungarian"),
    "plus-demo, many-to-one": (*PLUS, MANY),
    "W, transport": (*W, "matching.method=transport"),
    "W, many-to-one": (*W, MANY),
    "W + cross text": (*W, CROSS_TEXT),
    "W + shared texts": (*W, SHARED),
    "W + confidence": (*W, CONFIDENT),
    "W + cosine logits": (*W, "prompts.logits=cosine"),
    "W + hard prototypes": (*W, HARD),
    "W + exchange": (*W, EXCHANGE),
    "W + exchange + distillation": (*W, EXCHANGE, "loss.distillation=1"),
    "plus-demo + relabelling": (*PLUS, RELABELLED),
    "plus-demo + outliers assigned": (*PLUS, ASSIGNED),
    "plus-demo + soft labels": (*PLUS, *SOFT),
    "plus-demo + joint clustering": (*PLUS, *JOINT, "matching.method=mutual"),
    "plus-demo + camera proxies": (*PLUS, CAMERAS),
    "camera proxies": (CAMERAS,),
    SUPERVISED: (),
}  # fmt: skip
"""Changes to preset `demo` with text weight 1.

U is unified contrast on mutual pairs, from where swapping would start, with text weight 0.3. W is U with whitened
prototypes, after the warm-up of the learning rate; `plus-demo` has local scaling besides. Both rows are without
`loss.min_mutual_share`, which would have held back none of them yet.
"""

IN_PREPARE = ("augmentation.", "memory.hard", "memory.cameras", "labelling.")
"""Settings that change stage `prepare`."""

LATE = ("loss.", "swap.", "matching.")
"""Settings that change nothing before round `loss.start` of a stage, where the row has no texts of pairs."""

PREPARE_ROUNDS = 8
SWAP_START = 9
"""`stages.prepare_rounds` and `swap.start` of preset `demo`."""

Key = tuple[str, int, int]
"""Row, drawing seed, training seed."""


def main(
    data: Annotated[Path, typer.Option(help="Folder of the generated data sets.")] = Path("data"),
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs/plus"),
    people: Annotated[str, typer.Option(help="Drawing seeds, separated by commas.")] = "1,3",
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = "1",
    rows: Annotated[str, typer.Option(help="Names of rows, separated by semicolons; all by default.")] = "",
    unpaired: Annotated[float, typer.Option(help="Share of the training people that one modality lacks.")] = 0.0,
    parallel: Annotated[int, typer.Option(help="Runs at once, one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of plus_ablation.json.")] = Path("benchmarks/results"),
) -> None:
    """Run what `plus_ablation.json` lacks, add each result to it at once, and print all."""
    names = [name.strip() for name in rows.split(";") if name.strip()] or list(ROWS)
    drawings, training = ([int(seed) for seed in some.split(",")] for some in (people, seeds))
    file = out / "plus_ablation.json"
    keys = [(name, drawing, seed) for seed in training for drawing in drawings for name in names]
    missing = [key for key in keys if (*key, unpaired) not in _finished(file)]
    for drawing in {key[1] for key in missing}:
        _generate(data, drawing, unpaired)
    jobs = {
        key: _configure(
            ROWS[key[0]], *key[1:], data, runs, unpaired, preset="csdn-demo" if key[0] == SUPERVISED else "demo"
        )
        for key in missing
    }
    starts = {
        key: [_configure(changes, *key[1:], data, runs, unpaired) for changes in _beginnings(key[0])] for key in missing
    }
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn"), initializer=set_up_logging) as pool:
        for length in range(max(map(len, starts.values()), default=0)):
            alike = {run_path(some[length]): some[length] for some in starts.values() if len(some) > length}
            list(pool.map(train, alike.values()))
            for key, some in starts.items():
                if len(some) > length:
                    hand_on(some[length], [*some, jobs[key]][length + 1])
        waiting = {pool.submit(train, config): key for key, config in jobs.items()}
        for done in as_completed(waiting):
            done.result()
            _add(file, waiting[done], unpaired, gather(jobs[waiting[done]]))
    _draw(_read(file), out / "plus_ablation.png")
    sys.stdout.write(_tables(file))


def gather(config: AnyConfig) -> dict[str, Any]:
    """Retrieval after the last round, and the quality of clusters and pairs in every round."""
    rounds, minutes = rounds_of(config)
    assert len(rounds) == len(planned_rounds(config)), f"{run_path(config)} is not finished"
    quality = {
        "pairs_right": "diagnostics/matching/precision",
        "matched": "labels/matched_share",
        "mutual": "labels/mutual_share",
        "ari_visible": "diagnostics/visible/ari_all",
        "ari_infrared": "diagnostics/infrared/ari_all",
    }
    series = {name: [row.get(key) for row in rounds] for name, key in quality.items()}
    return retrieval(rounds[-1]) | series | {"minutes": minutes}


def _beginnings(row: str) -> list[tuple[str, ...]]:
    """Changes of the runs that a row begins with, each of which goes on where the one before ended."""
    changes = ROWS[row]
    if row == SUPERVISED:
        return []
    starts = [int(change.removeprefix("loss.start=")) for change in changes if change.startswith("loss.start=")]
    start = starts[-1] if starts else SWAP_START
    if start <= PREPARE_ROUNDS:
        return []
    pairs_in_texts = any(change.startswith(("prompts.shared", "prompts.cross_weight")) for change in changes)
    in_prepare = (*IN_PREPARE, "matching.") if pairs_in_texts else IN_PREPARE
    alike = "swap.mode=off"  # no swapping before `SWAP_START` in any row
    prepare = (*(change for change in changes if change.startswith(in_prepare)), alike, "stages.clip_rounds=0")
    if pairs_in_texts:
        return [prepare]
    early = tuple(change for change in changes if not change.startswith(LATE))
    return [prepare, (*early, alike, f"stages.clip_rounds={start - 1}")]


def _folder(drawing: int, unpaired: float) -> str:
    return f"demo-{drawing}" + (f"-unpaired-{unpaired:g}" if unpaired else "")


def _generate(data: Path, drawing: int, unpaired: float) -> None:
    folder = data / _folder(drawing, unpaired)
    if not folder.exists():
        generate_dataset(folder, size="demo", seed=drawing, difficulty="moderate", unpaired=unpaired)


def _configure(
    row: tuple[str, ...], drawing: int, seed: int, data: Path, runs: Path, unpaired: float, preset: str = "demo"
) -> AnyConfig:
    folder = _folder(drawing, unpaired)
    folders = {
        "data": {"root": str(data / folder)},
        "execution": {"runs_folder": str(runs / folder), "tracking": False, "figures": False},
    }
    start = [] if preset == "csdn-demo" else [RELEASED_TEXT]
    return load_config(preset, [f"seed={seed}", *start, *row], folders)


def _read(file: Path) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads(file.read_text())["results"] if file.exists() else []
    return results


def _finished(file: Path) -> set[tuple[str, int, int, float]]:
    """Keys of results whose settings are those of the row today."""
    return {
        (one["row"], one["people"], one["seed"], one["unpaired"])
        for one in _read(file) if one["changes"] == list(ROWS.get(one["row"], ()))
    }  # fmt: skip


def _add(file: Path, key: Key, unpaired: float, found: dict[str, Any]) -> None:
    """Write a result, in place of an older one of the same row, people and seed."""
    name, drawing, seed = key
    own = {"row": name, "people": drawing, "unpaired": unpaired, "seed": seed, "changes": list(ROWS[name])}
    same = {one: value for one, value in own.items() if one != "changes"}
    others = [one for one in _read(file) if any(one[part] != value for part, value in same.items())]
    results = sorted([*others, own | found], key=lambda one: (one["people"], one["unpaired"], one["row"], one["seed"]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"results": results}, indent=1) + "\n")


def _tables(file: Path) -> str:
    results = _read(file)
    of = sorted({(one["people"], one["unpaired"]) for one in results})
    return "\n".join(
        _table(people, unpaired, [one for one in results if (one["people"], one["unpaired"]) == (people, unpaired)])
        for people, unpaired in of
    )


def _table(drawing: int, unpaired: float, results: list[dict[str, Any]]) -> str:
    apart = f", {unpaired:.0%} of the training people in one modality" if unpaired else ""
    lines = [f"people of drawing seed {drawing}{apart}", ""]
    lines += ["| row | seeds | Rank-1 | mAP | pairs right | matched | minutes |", "|---|---|---|---|---|---|---|"]
    for name in ROWS:
        own = [one for one in results if one["row"] == name]
        if own:
            numbers = [percent([one[key] for one in own]) for key in ("r1", "map")]
            last = [[one[key][-1] for one in own] for key in ("pairs_right", "matched")]
            ends = ["" if None in some else percent(some) for some in last]
            minutes = f"{sum(one['minutes'] for one in own) / len(own):.1f}"
            lines.append("| " + " | ".join([name, str(len(own)), *numbers, *ends, minutes]) + " |")
    return "\n".join(lines) + "\n"


def _draw(results: list[dict[str, Any]], path: Path) -> None:
    """Each run's mAP less that of `base` with the same people and training seed, where that was run."""
    base = {_conditions(one): one["map"] for one in results if one["row"] == "base"}
    runs = [one for one in results if one["row"] != "base" and _conditions(one) in base]
    names = [name for name in ROWS if any(one["row"] == name for one in runs)]
    figure = Figure(figsize=(9, 1.4 + 0.26 * len(names)), dpi=120, layout="constrained")
    panel = figure.subplots()
    for unpaired, drawing in sorted({_conditions(one)[:2] for one in runs}):
        own = [one for one in runs if _conditions(one)[:2] == (unpaired, drawing)]
        gains = [100 * (one["map"] - base[_conditions(one)]) for one in own]
        rows, label = [names.index(one["row"]) for one in own], f"people {drawing}" + (", unpaired" if unpaired else "")
        colour = COLOURS[(drawing - 1) % len(COLOURS)]
        panel.plot(gains, rows, "s" if unpaired else "o", color=colour, label=label)
    panel.axvline(0, color="black", linewidth=0.8)
    labels = [f"{name} (cameras used)" if CAMERAS in ROWS[name] else name for name in names]
    panel.set(yticks=range(len(names)), yticklabels=labels, xlabel="mAP above CCLNet's, in points; a dot a run")
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)


def _conditions(result: dict[str, Any]) -> tuple[float, int, int]:
    return result["unpaired"], result["people"], result["seed"]


if __name__ == "__main__":
    typer.run(main)
