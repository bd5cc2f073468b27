"""The search protocol of SYSU-MM01: infrared queries, and galleries of all visible cameras or of the indoor ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.modality import Modality, PerModality
from pipeline.config import datasets
from pipeline.data.check import CheckRow
from pipeline.data.datasets.sysu import (
    CAMERA_COUNTS,
    LIST_FOLDER,
    MODALITY_OF_CAMERA,
    PERMUTATION_FILE,
    PUBLISHED_PEOPLE,
    read_permutations,
)
from pipeline.errors import DataError
from pipeline.evaluation.protocol import DrawName, RetrievalTrial, Samples, Search
from pipeline.evaluation.protocols.spec import (
    FileRules,
    Folders,
    GalleryDraws,
    Plans,
    SearchOptions,
    SearchProtocol,
    draw_agw,
    draw_official,
    group_images,
    num_people,
)

CAMERAS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "all": ((3, 6), (1, 2, 4, 5)),
    "indoor": ((3, 6), (1, 2)),
    "val": ((3,), (4, 5)),
}
"""Query cameras and gallery cameras of each search; `val` is for validation people, not published."""

PUBLISHED_ORDERS = 10


def plan_sysu(search: str, samples: PerModality[Samples], options: SearchOptions) -> Plans:
    """The trials of SYSU-MM01: `all`, `indoor`, or `val`, whose `samples` are those of the validation people.

    Queries of both published searches are all images of cameras 3 and 6, also of people whom no indoor camera saw:
    such queries are invalid and counted, not wrong. The indoor gallery is not the indoor part of the `all` gallery of
    the same trial, because fewer cameras consume fewer random numbers of the same generator.

    Returns:
        For each draw and number of shots, one trial for each of the seeds 0, 1, ...: of the full test set 3,803
        queries, and a gallery of 301 or 112 for one shot.

    Raises:
        DataError: There is no query or no gallery image, or the orders of the draw `official` do not fit.

    Source: Wu et al., ICCV 2017, and wuancong/SYSU-MM01; for the draw `agw`, mangye16/Cross-Modal-Re-ID-baseline.
    """
    draws = options.draws
    query_cameras, gallery_cameras = CAMERAS[search]
    rows = samples.infrared.query_rows
    query = rows[np.isin(samples.infrared.cameras[rows], query_cameras)]
    folders = group_images(samples.visible, gallery_cameras)
    for found, role, wanted in ((query, "query", query_cameras), (folders, "gallery", gallery_cameras)):
        if len(found) == 0:
            raise DataError(
                f"sysu/{search}: no {role} image, of cameras {', '.join(map(str, wanted))}, among "
                f"{len(samples.visible):,} visible and {len(samples.infrared):,} infrared test images",
                hint="check the test split of the data set",
            )
    plans = []
    for draw in draws.draws:
        for shots in draws.shots:
            name = f"sysu/{search}/{shots}-shot/{draw}"
            kind = Search(name, Modality.INFRARED, draw, shots, "person", "same_room")
            galleries = (_draw(draw, folders, samples.visible, draws, trial, shots) for trial in range(draws.trials))
            plans.append([RetrievalTrial(kind, trial, query, gallery) for trial, gallery in enumerate(galleries)])
    return plans


def _draw(
    draw: DrawName, folders: Folders, gallery: Samples, draws: GalleryDraws, trial: int, shots: int
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


def _add_official(root: Path, draws: GalleryDraws, final: bool) -> GalleryDraws:
    """The last evaluation of a run adds the draw `official` where its file is present and holds enough orders."""
    path = root / LIST_FOLDER / PERMUTATION_FILE
    if final and "official" not in draws.draws and path.is_file() and draws.trials <= PUBLISHED_ORDERS:
        draws = replace(draws, draws=(*draws.draws, "official"))
    return replace(draws, permutations=read_permutations(path)) if "official" in draws.draws else draws


def _count_rows(name: str, samples: PerModality[Samples]) -> list[CheckRow]:
    """Cameras that the search does not use may be absent, but must have the published counts otherwise."""
    search = name.partition("/")[2]
    split = "val" if search == "val" else "test"
    searched = {camera for cameras in CAMERAS[search] for camera in cameras}
    cameras = np.concatenate([one.cameras for one in samples])
    rows = [CheckRow("people", PUBLISHED_PEOPLE[split], num_people(samples))]
    for camera, (images, _) in CAMERA_COUNTS[split].items():
        found = int(np.count_nonzero(cameras == camera))
        if found or camera in searched:
            rows.append(CheckRow(f"images of camera {camera}", images, found))
    elsewhere = int(np.count_nonzero(~np.isin(cameras, list(MODALITY_OF_CAMERA))))
    return [*rows, CheckRow("images of other cameras", 0, elsewhere)]


SYSU = SearchProtocol(
    datasets.SYSU,
    plan_sysu,
    validation=("val",),
    prepare_draws=_add_official,
    files=FileRules(
        ("sysu/all", "sysu/indoor", "sysu/val"),
        cameras=6,
        infrared_cameras=(3, 6),
        query=Modality.INFRARED,
        count_rows=_count_rows,
    ),
)
