"""`vireid label`: pseudo-labels for features from anywhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table

from flows.cli.options import JsonOption, one_of
from flows.cli.printing import print_json, print_line, stdout

if TYPE_CHECKING:
    from pipeline.inference.label_features import LabelReport

METHODS = ("dbscan", "components", "louvain")
SEARCHES = ("exact", "ivf", "hnsw")


def label(
    features: Annotated[Path, typer.Argument(help="A .npy file of n x d floats, or a .npz with `features`.")],
    k1: Annotated[int, typer.Option(min=1, help="Neighbours, the image itself among them.")] = 30,
    k2: Annotated[int, typer.Option(min=1, help="Neighbours that a neighbourhood is averaged over.")] = 6,
    eps: Annotated[float, typer.Option(help="Largest Jaccard distance in a cluster, between 0 and 1.")] = 0.6,
    min_samples: Annotated[int, typer.Option(min=1, help="Images that found a cluster.")] = 4,
    method: Annotated[str, typer.Option(help="dbscan, components, or louvain.")] = "dbscan",
    neighbours: Annotated[str, typer.Option(help="exact, ivf, or hnsw.")] = "exact",
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:N.")] = "cpu",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write int64 labels here; -1 is an outlier.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Cluster features by DBSCAN on the k-reciprocal Jaccard distance, without a distance matrix."""
    from pipeline.inference.label_features import label_file

    report = label_file(
        features,
        out,
        k1=k1,
        k2=k2,
        eps=eps,
        min_samples=min_samples,
        method=cast(Literal["dbscan", "components", "louvain"], one_of("--method", method, METHODS)),
        neighbour_method=cast(Literal["exact", "ivf", "hnsw"], one_of("--neighbours", neighbours, SEARCHES)),
        device=_device(device),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)


def _device(name: str) -> str:
    if name == "cpu":
        return name  # without torch, which takes seconds to load
    from pipeline.runtime.device import resolve_device

    return str(resolve_device(name))


def _print(report: "LabelReport") -> None:
    found = report.to_dict()
    seconds = ", ".join(f"{stage} {spent:.2f} s" for stage, spent in found["seconds"].items())
    print_line(
        f"{found['images']:,} images: {found['clusters']:,} clusters, {found['outliers']:,} outliers, "
        f"{found['edges']:,} pairs within eps ({seconds}; {found['peak_bytes'] / 2**20:,.0f} MB)"
    )
    if found["recall"] is not None:
        print_line(f"{found['search']}: {found['recall']:.1%} of the exact neighbours")
    table = Table(title="what other values of eps would give", title_justify="left")
    for column in ("eps", "clusters", "outliers", "largest cluster"):
        table.add_column(column, justify="right")
    for point in found["eps_curve"]:
        shares = (f"{point['outlier_share']:.1%}", f"{point['largest_share']:.1%}")
        table.add_row(f"{point['eps']:.2f}", f"{point['clusters']:,}", *shares)
    stdout().print(table)
