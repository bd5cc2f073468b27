"""`vireid rank` and `vireid label`: evaluate or cluster features of any program."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table

from flows.cli.options import JsonOption, Output, PartialOption, PerQueryOption, one_of, renamed
from flows.cli.printing import print_json, print_line, print_searches, stdout
from pipeline.config.datasets import DIRECTIONS
from pipeline.errors import ConfigError
from pipeline.runtime.outputs import LABELS

if TYPE_CHECKING:
    from pipeline.evaluation.protocol import Direction
    from pipeline.evaluation.protocols.spec import GalleryDraws, GalleryRules
    from pipeline.evaluation.rank_files import RankReport
    from pipeline.inference.label_features import LabelReport

logger = logging.getLogger(__name__)


def rank(
    features: Annotated[Path | None, typer.Argument(help="A .npz or .parquet file with all test images.")] = None,
    protocol: Annotated[str, typer.Option(help="sysu/all, sysu/indoor, sysu/val, regdb, llcm, or pairs.")] = "sysu/all",
    query: Annotated[Path | None, typer.Option(help="The queries, with --gallery.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="The gallery.")] = None,
    direction: Annotated[
        str | None, typer.Option(help="infrared_to_visible or visible_to_infrared; both by default where both exist.")
    ] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Gallery images per person and camera (SYSU-MM01).")] = None,
    draw: Annotated[list[str] | None, typer.Option(help="agw or official (SYSU-MM01).")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of random galleries to average.")] = 10,
    permutations: Annotated[Path | None, typer.Option(help="rand_perm_cam.mat; adds the draw `official`.")] = None,
    split: Annotated[int | None, typer.Option(min=1, max=10, help="The split of RegDB.")] = None,
    _trial: Annotated[str | None, renamed("--trial", "--split")] = None,
    exclude: Annotated[str | None, typer.Option(help="none, same_person_same_camera, or same_camera (pairs).")] = None,
    rank_by: Annotated[str | None, typer.Option(help="person or image (pairs); person by default.")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Also apply k-reciprocal re-ranking.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Inner products of unnormalised features, not cosines.")] = False,
    per_query: PerQueryOption = None,
    allow_partial: PartialOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate features of any program; needs neither a GPU nor the images."""
    from pipeline.evaluation.feature_files import read_features, write_queries
    from pipeline.evaluation.rank_files import rank_files
    from pipeline.evaluation.report import suspicions

    draws, rules = _draws(draw, shots, trials, permutations), _rules(exclude, rank_by)
    towards = None if direction is None else cast("Direction", one_of("--direction", direction, DIRECTIONS))
    first, second = _files(features, query, gallery)
    report, results = rank_files(
        read_features(first),
        None if second is None else read_features(second),
        protocol,
        direction=towards,
        draws=draws,
        rules=rules,
        split=split,
        rerank="k_reciprocal" if rerank else "none",
        raw=raw,
        allow_partial=allow_partial,
        keep_queries=per_query is not None,
    )
    if per_query is not None:
        write_queries(per_query, results)
    for sentence in suspicions(report.searches):
        logger.warning("%s", sentence)
    _print_ranks(report, as_json)


def _print_ranks(report: "RankReport", as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
        return
    notes = [f"{report.dim} dimensions", f"order: {report.order}", "cosine" if report.normalised else "inner product"]
    print_searches(f"{report.protocol} ({', '.join(notes + ['partial'] * report.partial)})", report.searches)


def _draws(draw: list[str] | None, shots: list[int] | None, trials: int, permutations: Path | None) -> "GalleryDraws":
    """How galleries are sampled; given permutations add the draw `official` to the default."""
    from pipeline.data.datasets.sysu import read_permutations
    from pipeline.evaluation.protocol import DrawName
    from pipeline.evaluation.protocols.spec import GalleryDraws

    wanted = draw or (["agw"] if permutations is None else ["agw", "official"])
    return GalleryDraws(
        draws=tuple(cast(DrawName, one_of("--draw", one, ("agw", "official"))) for one in dict.fromkeys(wanted)),
        shots=tuple(dict.fromkeys(shots or [1])),
        trials=trials,
        permutations=None if permutations is None else read_permutations(permutations),
    )


def _rules(exclude: str | None, rank_by: str | None) -> "GalleryRules | None":
    """Options of protocol `pairs`; None if not given, since other protocols have none."""
    if exclude is None and rank_by is None:
        return None
    from pipeline.evaluation.protocol import ExclusionRule
    from pipeline.evaluation.protocols.spec import GalleryRules
    from pipeline.evaluation.ranking import RankBy

    known = ("none", "same_person_same_camera", "same_camera")
    return GalleryRules(
        exclude=None if exclude is None else cast(ExclusionRule, one_of("--exclude", exclude, known)),
        rank_by=cast(RankBy, one_of("--rank-by", rank_by or "person", ("person", "image"))),
    )


def _files(features: Path | None, query: Path | None, gallery: Path | None) -> tuple[Path, Path | None]:
    if features is not None and query is None and gallery is None:
        return features, None
    if features is None and query is not None and gallery is not None:
        return query, gallery
    raise ConfigError(
        "features are given as one file, or as --query and --gallery together",
        hint="`vireid rank FILE.npz --protocol llcm`, or `vireid rank --query Q.npz --gallery G.npz --protocol llcm`",
    )


CLUSTERINGS = ("dbscan", "components", "louvain")
SEARCHES = ("exact", "ivf", "hnsw")


def label(
    features: Annotated[Path, typer.Argument(help="A .npy file of n x d floats, or `features` in .npz or .parquet.")],
    k1: Annotated[int, typer.Option(min=1, help="k-reciprocal neighbours, including the image itself.")] = 30,
    k2: Annotated[int, typer.Option(min=1, help="Neighbours for query expansion.")] = 6,
    eps: Annotated[float, typer.Option(help="Largest Jaccard distance in a cluster, between 0 and 1.")] = 0.6,
    min_samples: Annotated[int, typer.Option(min=1, help="Images within eps that make a core point.")] = 4,
    method: Annotated[str, typer.Option(help="dbscan, components, or louvain.")] = "dbscan",
    neighbours: Annotated[str, typer.Option(help="exact, ivf, or hnsw.")] = "exact",
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:N.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write int64 labels here; -1 is an outlier."),
        Output("--out", LABELS),
    ] = None,
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
        method=cast(Literal["dbscan", "components", "louvain"], one_of("--method", method, CLUSTERINGS)),
        neighbour_method=cast(Literal["exact", "ivf", "hnsw"], one_of("--neighbours", neighbours, SEARCHES)),
        device=_device(device),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        _print_labels(report)


def _device(name: str) -> str:
    if name == "cpu":
        return name  # without importing torch, which takes seconds
    from pipeline.runtime.device import resolve_device

    return str(resolve_device(name))


def _print_labels(report: "LabelReport") -> None:
    found = report.to_dict()
    seconds = ", ".join(f"{stage} {spent:.2f} s" for stage, spent in found["seconds"].items())
    print_line(
        f"{found['images']:,} images: {found['clusters']:,} clusters, {found['outliers']:,} outliers, "
        f"{found['edges']:,} pairs within eps ({seconds}; {found['peak_bytes'] / 2**20:,.0f} MB)"
    )
    if found["recall"] is not None:
        print_line(f"{found['search']}: {found['recall']:.1%} of the exact neighbours")
    table = Table(title="other values of eps", title_justify="left")
    for column in ("eps", "clusters", "outliers", "largest cluster"):
        table.add_column(column, justify="right")
    for point in found["eps_curve"]:
        shares = (f"{point['outlier_share']:.1%}", f"{point['largest_share']:.1%}")
        table.add_row(f"{point['eps']:.2f}", f"{point['clusters']:,}", *shares)
    stdout().print(table)
