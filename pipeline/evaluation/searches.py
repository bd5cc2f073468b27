"""The searches of each data set, exactly as published: queries, galleries, exclusion, how a rank is counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.modality import Modality, PerModality
from pipeline.data.datasets.sysu.lists import Permutations
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.draws import Folders, draw_agw, draw_official, group_images
from pipeline.evaluation.protocol import (
    Direction,
    DrawName,
    ExclusionRule,
    RetrievalTrial,
    Search,
    Sightings,
    direction_from,
    query_modality,
)
from pipeline.evaluation.ranking import RankBy

SysuSearch = Literal["all", "indoor", "val"]
"""Which cameras queries and gallery of SYSU-MM01 come from; `val` is for validation people, and no published search."""

GalleryKind = Literal["full", "one_per_person_camera"]

DIRECTIONS: tuple[Direction, ...] = ("infrared_to_visible", "visible_to_infrared")
SYSU_CAMERAS: Mapping[SysuSearch, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "all": ((3, 6), (1, 2, 4, 5)),
    "indoor": ((3, 6), (1, 2)),
    "val": ((3,), (4, 5)),
}
"""Query cameras and gallery cameras."""

SEARCHES: Mapping[str, tuple[str, ...]] = {
    "sysu": ("sysu/all", "sysu/indoor"),
    "regdb": tuple(f"regdb/{direction}" for direction in DIRECTIONS),
    "llcm": tuple(f"llcm/{direction}" for direction in DIRECTIONS),
    "manifest": tuple(f"manifest/{direction}" for direction in DIRECTIONS),
}
"""The searches of each data set, the headline first."""


@dataclass(frozen=True, slots=True)
class GalleryDraws:
    """How galleries are drawn where a protocol draws them.

    Attributes:
        draws: Which draws; LLCM and manifests know `agw` only.
        shots: Gallery images of one person and camera; each number of them is a search of its own. SYSU-MM01 only.
        trials: How many galleries are averaged; published numbers use 10.
        permutations: The orders of the draw `official`.
    """

    draws: tuple[DrawName, ...] = ("agw",)
    shots: tuple[int, ...] = (1,)
    trials: int = 10
    permutations: Permutations | None = None


@dataclass(frozen=True, slots=True)
class GalleryRules:
    """What the protocol of a user's own data leaves open.

    Attributes:
        exclude: Which gallery images a query never sees. None takes `same_person_same_camera` if one of several cameras
            has both modalities, else `none`.
        gallery: Every gallery image, or one a person and camera, drawn as `agw` does.
        rank_by: What the rank of a query counts.
    """

    exclude: ExclusionRule | None = None
    gallery: GalleryKind = "full"
    rank_by: RankBy = "person"


def plan_search(
    search: str,
    sightings: PerModality[Sightings],
    *,
    draws: GalleryDraws | None = None,
    rules: GalleryRules | None = None,
    trial: int | None = None,
    site: str | None = None,
) -> list[list[RetrievalTrial]]:
    """The trials of a search, by its name: one list for each draw and number of shots.

    Args:
        search: `sysu/all`, `sysu/indoor`, `sysu/val`, or `regdb/`, `llcm/`, `manifest/` or `pairs/` with a direction.
        sightings: All rows of both test tables.
        draws: How galleries are drawn, where the protocol draws them.
        rules: What `manifest` and `pairs` leave open.
        trial: Which of RegDB's ten splits this is, from 1; None where it is not known.
        site: The manifest's name.

    Raises:
        ConfigError: There is no such search, or fewer than one trial or shot is asked for.
        DataError: There is no query or no gallery image, or the orders of the draw `official` do not fit.
    """
    draws, rules = draws or GalleryDraws(), rules or GalleryRules()
    if draws.trials < 1 or min(draws.shots, default=1) < 1:
        raise ConfigError(
            f"{draws.trials} trials with {', '.join(map(str, draws.shots))} shots asked for, at least 1 is needed",
            hint="published numbers use 10 trials, and 1 shot or 10",
        )
    match search.split("/"):
        case ["sysu", ("all" | "indoor" | "val") as cameras]:
            return sysu_trials(sightings, cameras, draws)
        case ["regdb", ("infrared_to_visible" | "visible_to_infrared") as direction]:
            return [regdb_trial(sightings, direction, trial)]
        case ["llcm", ("infrared_to_visible" | "visible_to_infrared") as direction]:
            return [llcm_trials(sightings, direction, draws.trials)]
        case [("manifest" | "pairs") as protocol, ("infrared_to_visible" | "visible_to_infrared") as direction]:
            prefix = protocol if site is None else f"{protocol}/{site}"
            return [manifest_trials(sightings, direction, rules, prefix, draws.trials)]
        case _:
            known = ", ".join(name for names in SEARCHES.values() for name in names)
            raise ConfigError(f"there is no search '{search}'", hint=f"choose from: {known}")


def sysu_trials(
    sightings: PerModality[Sightings], search: SysuSearch, draws: GalleryDraws | None = None
) -> list[list[RetrievalTrial]]:
    """The trials of SYSU-MM01: infrared queries, visible gallery.

    The queries are all images of cameras 3 and 6 in both published searches, also of people whom no indoor camera saw:
    such queries are invalid and counted, not wrong. The indoor gallery is not the indoor part of the `all` gallery of
    the same trial, because fewer cameras take fewer draws from the same generator.

    Args:
        sightings: Both test tables; of the validation people for `val`.
        search: `all` takes the gallery from cameras 1, 2, 4 and 5, `indoor` from 1 and 2, `val` from 4 and 5.
        draws: Which draws, shots and trials.

    Returns:
        For each draw and number of shots, one trial for each of the seeds 0, 1, ...: of the full test set 3,803
        queries, and a gallery of 301 or 112 for one shot.

    Raises:
        DataError: There is no query or no gallery image, or the orders of the draw `official` do not fit.

    Source:
        Wu et al., ICCV 2017, and wuancong/SYSU-MM01; for the draw `agw`, mangye16/Cross-Modal-Re-ID-baseline.
    """
    draws = draws or GalleryDraws()
    query_cameras, gallery_cameras = SYSU_CAMERAS[search]
    rows = sightings.infrared.query_rows
    query = rows[np.isin(sightings.infrared.cameras[rows], query_cameras)]
    folders = group_images(sightings.visible, gallery_cameras)
    for found, role, wanted in ((query, "query", query_cameras), (folders, "gallery", gallery_cameras)):
        if len(found) == 0:
            raise DataError(
                f"sysu/{search}: no {role} image, of cameras {', '.join(map(str, wanted))}, among "
                f"{len(sightings.visible):,} visible and {len(sightings.infrared):,} infrared test images",
                hint="check the test split of the data set",
            )
    plans = []
    for draw in draws.draws:
        for shots in draws.shots:
            name = f"sysu/{search}/{shots}-shot/{draw}"
            kind = Search(name, Modality.INFRARED, draw, shots, "person", "same_room")
            galleries = (_draw(draw, folders, sightings.visible, draws, trial, shots) for trial in range(draws.trials))
            plans.append([RetrievalTrial(kind, trial, query, gallery) for trial, gallery in enumerate(galleries)])
    return plans


def regdb_trial(
    sightings: PerModality[Sightings], direction: Direction, trial: int | None = None
) -> list[RetrievalTrial]:
    """The one trial that a model of RegDB is tested on: all images of one modality in all of the other.

    Nothing is excluded, and a rank counts images. The ten published trials are ten splits of the people: each needs a
    model of its own, and results are averaged over the models.

    Args:
        sightings: Both test tables of one split.
        direction: What is looked for in what.
        trial: Which of the ten splits, from 1; None where it is not known.

    Source:
        mangye16/Cross-Modal-Re-ID-baseline, test.py. Differs: there the two sides carry made-up cameras so that its
        camera rule hides nothing.
    """
    split = "one-trial" if trial is None else f"trial-{trial}"
    query = query_modality(direction)
    kind = Search(f"regdb/{split}/{direction}", query, None, None, "image", "none")
    one = RetrievalTrial(kind, trial or 0, sightings[query].query_rows, sightings[query.other].gallery_rows)
    _check_not_empty(one)
    return [one]


def llcm_trials(sightings: PerModality[Sightings], direction: Direction, trials: int = 10) -> list[RetrievalTrial]:
    """The trials of LLCM: all images of one modality, looked for among one image a person and camera of the other.

    The same person in the query's own camera is hidden. Query and gallery are never exchanged: the released test script
    does so for visible queries, which gives numbers that mean something else.

    Args:
        sightings: Both test tables.
        direction: What is looked for in what.
        trials: How many galleries are drawn; published numbers use 10.

    Source:
        Zhang and Wang, CVPR 2023; ZYK100/LLCM, with its threads 34 and 35 on the exchanged direction.
    """
    query = query_modality(direction)
    kind = Search(f"llcm/{direction}/1-shot/agw", query, "agw", 1, "person", "same_person_same_camera")
    folders, rows = group_images(sightings[query.other]), sightings[query].query_rows
    plan = [RetrievalTrial(kind, trial, rows, draw_agw(folders, trial)) for trial in range(trials)]
    _check_not_empty(plan[0])
    return plan


def manifest_trials(
    sightings: PerModality[Sightings], direction: Direction, rules: GalleryRules, prefix: str, trials: int = 10
) -> list[RetrievalTrial]:
    """The trials of a user's own data: one with the full gallery, or several with drawn galleries.

    Args:
        sightings: Both test tables, which say what may be query and what gallery.
        direction: What is looked for in what.
        rules: What such data leave open.
        prefix: What the search is filed under: `manifest/site-a`.
        trials: How many galleries are drawn where galleries are drawn.
    """
    query = query_modality(direction)
    exclude = rules.exclude or _usual_exclusion(sightings)
    rows, name = sightings[query].query_rows, f"{prefix}/{direction}/{rules.gallery}"
    if rules.gallery == "full":
        kind = Search(name, query, None, None, rules.rank_by, exclude)
        plan = [RetrievalTrial(kind, 0, rows, sightings[query.other].gallery_rows)]
    else:
        kind = Search(name, query, "agw", 1, rules.rank_by, exclude)
        folders = group_images(sightings[query.other])
        plan = [RetrievalTrial(kind, trial, rows, draw_agw(folders, trial)) for trial in range(trials)]
    _check_not_empty(plan[0])
    return plan


def possible_directions(sightings: PerModality[Sightings]) -> tuple[Direction, ...]:
    """The directions that have both queries and gallery images."""
    return tuple(
        direction_from(query)
        for query in (Modality.INFRARED, Modality.VISIBLE)
        if len(sightings[query].query_rows) and len(sightings[query.other].gallery_rows)
    )


def _usual_exclusion(sightings: PerModality[Sightings]) -> ExclusionRule:
    """A camera that has both modalities shows one scene in both: finding it there again is no achievement.

    Data of one single camera, or without cameras, would be left with nothing to find: there nothing is excluded.
    """
    visible, infrared = sightings.visible.cameras, sightings.infrared.cameras
    shared = np.intersect1d(visible, infrared).size > 0 and np.union1d(visible, infrared).size > 1
    return "same_person_same_camera" if shared else "none"


def _draw(
    draw: DrawName, folders: Folders, gallery: Sightings, draws: GalleryDraws, trial: int, shots: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if draw == "agw":
        return draw_agw(folders, trial, shots)
    if draws.permutations is None:
        raise DataError(
            "the draw `official` needs the published orders of the images, rand_perm_cam.mat",
            hint="put evaluation/data_split/rand_perm_cam.mat of wuancong/SYSU-MM01 into exp/ of the data set "
            "(`vireid rank` takes --permutations FILE); the draw `agw` works without it",
        )
    return draw_official(folders, gallery.paths, draws.permutations, trial, shots)


def _check_not_empty(trial: RetrievalTrial) -> None:
    for role, rows in (("query", trial.query), ("gallery", trial.gallery)):
        if len(rows) == 0:
            modality = trial.search.query if role == "query" else trial.search.query.other
            raise DataError(
                f"{trial.search.name}: no {modality} {role} image",
                hint="check the test split of the data set, or the `modalities` and the direction of feature files",
            )
