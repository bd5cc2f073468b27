"""What does one clustering of both modalities cost, against one of each?

Features are synthetic, as in the tests: people under cameras, 36 images each; the first rows are visible. Prints one
table, adds it to `clustering.json`, and measures relabelling of both modalities too. Seconds are those of the fastest
repeat, both ways in turns, and memory is what a call adds at its peak. The number of compared pairs is (n1 + n2)^2
against n1^2 + n2^2. Run it from the top of the repository, on a machine that does nothing else;
`--visible 22258 --infrared 11909 --width 2048` is the size of SYSU-MM01.

    python -m benchmarks.joint_clustering --visible 4000 --infrared 2000 --width 512
"""

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from benchmarks.clustering_engine import write
from benchmarks.clustering_jobs import IMAGES_A_PERSON, WARM_UP
from benchmarks.clustering_machine import describe_machine
from benchmarks.clustering_probes import ENOUGH_SECONDS, timed, with_peak
from clustering.joint import label_jointly, split_by_modality
from clustering.labelling import Labelling, label_images
from clustering.relabelling import relabel_by_density
from tests.reference.feature_sets import identity_features


def main(
    visible: Annotated[int, typer.Option(help="Visible images.")] = 4_000,
    infrared: Annotated[int, typer.Option(help="Infrared images.")] = 2_000,
    width: Annotated[int, typer.Option(help="Of the features.")] = 512,
    repeats: Annotated[int, typer.Option(help="The fastest of so many counts.")] = 3,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of clustering.json.")] = Path("benchmarks/results"),
) -> None:
    """Measure, keep and print."""
    machine = describe_machine(device)
    features = identity_features(visible + infrared, (visible + infrared) // IMAGES_A_PERSON, width)
    first, second = features[:visible], features[visible:]

    def separate() -> list[Labelling]:
        return [label_images(rows, device=device) for rows in (first, second)]

    def joint() -> list[Labelling]:
        return [label_jointly(first, second, device=device)]

    label_jointly(first[:WARM_UP], second[:WARM_UP], device=device)
    taken: dict[str, list[Any]] = {"separate": [], "joint": []}
    began = perf_counter()
    while len(taken["joint"]) < repeats and perf_counter() - began < 5 * ENOUGH_SECONDS:
        for name, work in (("separate", separate), ("joint", joint)):
            (found, seconds), peak = with_peak(lambda work=work: timed(work))
            taken[name].append((seconds, peak, found))
    rows = {name: min(runs, key=lambda run: run[0]) for name, runs in taken.items()}
    pairs = (visible + infrared) ** 2 / (visible**2 + infrared**2)
    sys.stdout.write(f"{visible:,} + {infrared:,} x {width:,} on {device}; pairs compared: {pairs:.2f} times\n")
    for name, (seconds, peak, found) in rows.items():
        search = sum(one.seconds["neighbours"] for one in found)
        clusters = ", ".join(str(one.clustering.num_clusters) for one in found)
        sys.stdout.write(f"{name}: {seconds:.2f} s, search {search:.2f} s, {peak / 1e6:.0f} MB, {clusters} clusters\n")
    parts = split_by_modality(rows["joint"][2][0].clustering, first, second)
    ratio = rows["joint"][0] / rows["separate"][0]
    sys.stdout.write(f"joint over separate: {ratio:.2f} times; of both modalities: {parts.two_modality_share:.0%}\n")
    labelled = list(zip((first, second), rows["separate"][2], strict=True))
    _, relabelling = timed(lambda: [relabel_by_density(some, one.clustering) for some, one in labelled])
    sys.stdout.write(f"relabelling of both: {relabelling:.2f} s\n")
    figures = {
        name: {"seconds": seconds, "peak_bytes": peak, "clusters": [one.clustering.num_clusters for one in found]}
        for name, (seconds, peak, found) in rows.items()
    }
    file = out / "clustering.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    name = f"joint {visible}+{infrared}x{width}, exact, {device}"
    write(
        file,
        kept
        | {name: figures | {"ratio": ratio, "pairs": pairs, "relabelling_seconds": relabelling, "machine": machine}},
    )


if __name__ == "__main__":
    typer.run(main)
