"""A user's own data set: the images of the SYSU-MM01 layout in other folders, and one table that describes them."""

import csv
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.layout_sysu import plan_sysu
from pipeline.data.synthetic.lists import Listing
from pipeline.data.synthetic.plan import Plan, Size

_COLUMNS: Final = ("path", "modality", "camera", "person", "split", "caption")


def plan_manifest(size: Size, seed: int, knobs: DrawnKnobs) -> Plan:
    """Lay out the people, cameras and images that the SYSU-MM01 layout has for equal arguments, pixel by pixel."""
    plan = plan_sysu(size, seed, knobs)
    return replace(plan, shots=tuple(replace(shot, path=PurePosixPath("images") / shot.path) for shot in plan.shots))


def write_manifest(folder: Path, listing: Listing) -> None:
    """Write `manifest.csv`, one row an image in the order of the plan; paths start from the folder."""
    plan = listing.plan
    split_of = {person: split for split, people in plan.people.items() for person in people}
    modality_of = {station.number: station.modality for station in SYSU_STATIONS}
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(_COLUMNS)
        for shot, caption in zip(plan.shots, listing.captions, strict=True):
            modality = modality_of[shot.station].value
            table.writerow((shot.path, modality, shot.camera, shot.person, split_of[shot.person], caption))
