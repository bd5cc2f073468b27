"""How many images a protocol is published with: features of more or fewer give numbers that no table can hold."""

import logging
from collections.abc import Mapping

import numpy as np

from models.modality import Modality, PerModality
from pipeline.data.check import CheckRow
from pipeline.data.datasets.llcm import counts as llcm_counts
from pipeline.data.datasets.regdb import counts as regdb_counts
from pipeline.data.datasets.sysu import counts as sysu_counts
from pipeline.data.split_counts import SplitCounts
from pipeline.errors import DataError
from pipeline.evaluation.protocol import Sightings
from pipeline.evaluation.searches import SYSU_CAMERAS, SysuSearch

logger = logging.getLogger(__name__)

PUBLISHED_TESTS: Mapping[str, SplitCounts] = {
    "regdb": regdb_counts.PUBLISHED_COUNTS["test"],
    "llcm": llcm_counts.PUBLISHED_COUNTS["test"],
}
"""Images and people that a model is tested on, where no camera has a count of its own."""


def check_counts(protocol: str, sightings: PerModality[Sightings], allow_partial: bool) -> bool:
    """Compare the images with what the protocol is published with; extra people are refused, not dropped.

    Args:
        protocol: `sysu/all`, `sysu/indoor`, `sysu/val`, `regdb`, `llcm`; any other has no published counts.
        sightings: All rows of both modalities.
        allow_partial: Go on with a warning.

    Returns:
        Whether counts differ.

    Raises:
        DataError: They differ, and the user has not allowed it.
    """
    match protocol.split("/"):
        case ["sysu", ("all" | "indoor" | "val") as search]:
            rows = _sysu_rows(search, sightings)
        case [("regdb" | "llcm") as name]:
            published = PUBLISHED_TESTS[name]
            rows = [
                CheckRow(f"{modality} images", published.images[modality], len(sightings[modality]))
                for modality in Modality
            ]
            rows.append(CheckRow("people", published.people, _num_people(sightings)))
        case _:
            rows = []
    failures = [f"{row.name}: found {row.found:,}, expected {row.expected:,}" for row in rows if not row.passed]
    if not failures:
        return False
    message = f"these are not the test images of {protocol}: {'; '.join(failures)}"
    if not allow_partial:
        raise DataError(
            message,
            hint="give the features of all test images and of no others; --allow-partial goes on, and marks the result",
        )
    logger.warning("%s", message)
    return True


def _sysu_rows(search: SysuSearch, sightings: PerModality[Sightings]) -> list[CheckRow]:
    """Cameras that the search does not look at may be left out, but may not hold something else."""
    split = "val" if search == "val" else "test"
    published = sysu_counts.PUBLISHED_COUNTS[split]
    query_cameras, gallery_cameras = SYSU_CAMERAS[search]
    cameras = np.concatenate([one.cameras for one in sightings])
    rows = [CheckRow("people", sysu_counts.PUBLISHED_PEOPLE[split], _num_people(sightings))]
    for camera, (images, _) in published.items():
        found = int(np.count_nonzero(cameras == camera))
        if found or camera in (*query_cameras, *gallery_cameras):
            rows.append(CheckRow(f"images of camera {camera}", images, found))
    elsewhere = int(np.count_nonzero(~np.isin(cameras, list(published))))
    return [*rows, CheckRow("images of other cameras", 0, elsewhere)]


def _num_people(sightings: PerModality[Sightings]) -> int:
    return len(np.unique(np.concatenate([one.people for one in sightings])))
