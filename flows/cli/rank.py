"""`vireid rank`: the numbers of features from anywhere, under any protocol."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli.options import JsonOption, one_of, renamed
from flows.cli.printing import print_json, print_searches
from pipeline.config.datasets import DIRECTIONS
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.evaluation.protocol import Direction
    from pipeline.evaluation.protocols.spec import GalleryDraws, GalleryRules
    from pipeline.evaluation.rank_files import RankReport

logger = logging.getLogger(__name__)


def rank(
    features: Annotated[Path | None, typer.Argument(help="A .npz file with all test images.")] = None,
    protocol: Annotated[str, typer.Option(help="sysu/all, sysu/indoor, sysu/val, regdb, llcm, or pairs.")] = "sysu/all",
    query: Annotated[Path | None, typer.Option(help="A .npz file with the queries, beside --gallery.")] = None,
    gallery: Annotated[Path | None, typer.Option(help="A .npz file with the images that are searched.")] = None,
    direction: Annotated[
        str | None, typer.Option(help="infrared_to_visible or visible_to_infrared; both by default where both exist.")
    ] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Gallery images a person and camera (SYSU-MM01).")] = None,
    draw: Annotated[list[str] | None, typer.Option(help="agw or official (SYSU-MM01).")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Galleries that are averaged.")] = 10,
    permutations: Annotated[Path | None, typer.Option(help="rand_perm_cam.mat; adds the draw `official`.")] = None,
    split: Annotated[int | None, typer.Option(min=1, max=10, help="Which split of RegDB the features are of.")] = None,
    _trial: Annotated[str | None, renamed("--trial", "--split")] = None,
    exclude: Annotated[str | None, typer.Option(help="none, same_person_same_camera, or same_camera (pairs).")] = None,
    rank_by: Annotated[str | None, typer.Option(help="person or image (pairs); person by default.")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Also rank by k-reciprocal neighbourhoods.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Inner products of features as they are, not cosines.")] = False,
    per_query: Annotated[Path | None, typer.Option(help="Write what each query found to this .npz file.")] = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Go on when counts differ.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate features that any program has written; needs neither a GPU nor the images."""
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
    _print(report, as_json)


def _print(report: "RankReport", as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
        return
    notes = [f"{report.dim} dimensions", f"order: {report.order}", "cosine" if report.normalised else "inner product"]
    print_searches(f"{report.protocol} ({', '.join(notes + ['partial'] * report.partial)})", report.searches)


def _draws(draw: list[str] | None, shots: list[int] | None, trials: int, permutations: Path | None) -> "GalleryDraws":
    """How galleries are drawn; whoever hands in the published orders wants them used, beside the usual draw."""
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
    """What `pairs` leaves open; None where nothing of it was said, since other protocols leave nothing open."""
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
