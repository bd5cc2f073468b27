"""What there is to measure in the clustering benchmark."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
IMAGES_A_PERSON = 36
WARM_UP = 500  # images that are labelled first, so that no figure holds the loading of libraries and compiled loops

Search = Literal["exact", "ivf", "hnsw", "buckets"]


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement.

    Args:
        kind: "whole": features to labels, and the bare neighbour search beside it. "parts": the search once, everything
            after it several times. "dense": everything after the search, by published code's way and by ours.
            "approximate": labels by another search, against those of the exact one. "mapped": `vireid label` once, on a
            file of features that is mapped and not read, or with `search` "buckets" what comes after the search.
        images: How many.
        width: Of the features.
        people: How many the images show.
        device: Where the whole labelling runs.
        search: How the neighbours are found.
    """

    kind: Literal["whole", "parts", "dense", "approximate", "mapped"]
    images: int
    width: int
    people: int
    device: str = "cpu"
    search: Search = "exact"

    @property
    def name(self) -> str:
        """Under which the figures are recorded."""
        return f"{self.kind} {self.images}x{self.width} of {self.people} people, {self.search}, {self.device}"

    @property
    def searches(self) -> tuple[Search, ...]:
        """Whose lists the job starts from."""
        match self.kind:
            case "mapped" if self.search == "buckets":
                return ("buckets",)
            case "whole" | "mapped":
                return ()
            case "approximate":
                return ("exact", self.search)
            case "parts" | "dense":
                return (self.search,)

    def features_file(self, scratch: Path) -> Path:
        """Unit rows, drawn once."""
        return scratch / f"features-{self.images}x{self.width}-{self.people}.npy"

    def lists_file(self, scratch: Path, search: str) -> Path:
        """Lists of neighbours, and what finding them took."""
        return scratch / f"lists-{self.images}x{self.width}-{self.people}-{search}.npz"
