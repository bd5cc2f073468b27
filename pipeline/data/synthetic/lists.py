"""What layouts write beside the images: the values they write from, and lists of paths and labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.synthetic.plan import Plan, Shot


@dataclass(frozen=True, slots=True)
class Listing:
    """All that lists say about a drawn data set; one caption a shot, in the order of the plan."""

    plan: Plan
    seed: int
    captions: tuple[str, ...]


def write_labelled_list(path: Path, shots: Iterable[Shot], people: Iterable[int]) -> None:
    """Write one line an image, `path label`: the shots of these people in the order given.

    A label is a person's place among `people`, from 0: it means something in lists of the same people only.
    """
    labels = {person: label for label, person in enumerate(people)}
    lines = [f"{shot.path} {labels[shot.person]}\n" for shot in shots if shot.person in labels]
    path.write_text("".join(lines), encoding="utf-8")
