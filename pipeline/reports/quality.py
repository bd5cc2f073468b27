"""Signs of the quality of a round that need no identities: names, values and what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sign:
    """A number of a round; `percent` shows a share, otherwise two digits. `by_modality` has one for each modality."""

    title: str
    name: str
    meaning: str
    percent: bool = True
    by_modality: bool = False

    def text(self, row: Mapping[str, Any]) -> str:
        """The number, or visible/infrared; empty without any."""
        names = [self.name]
        if self.by_modality:
            names = [self.name.replace("*", modality) for modality in ("visible", "infrared")]
        values = [row.get(name) for name in names]
        if all(value is None for value in values):
            return ""
        form = ".0%" if self.percent else ".2f"
        return " / ".join("none" if value is None else format(value, form) for value in values)


SIGNS = (
    Sign("matched", "labels/matched_share", "clusters that have a partner in the other modality"),
    Sign("both", "labels/two_modality_share", "joint clusters with images of both modalities"),
    Sign("mutual", "labels/mutual_share", "clusters that are each other's nearest one"),
    Sign("similarity", "quality/pair_similarity", "median similarity of the prototypes of a pair", percent=False),
    Sign(
        "margin",
        "quality/pair_margin",
        "median lead of a partner over the next best cluster; below 0, another cluster is more similar",
        percent=False,
    ),
    Sign(
        "same",
        "quality/*/same_as_before",
        "agreement with the labels of the round before (ARI); 1 for the same clusters",
        percent=False,
        by_modality=True,
    ),
    Sign(
        "1cam",
        "quality/*/one_camera_share",
        "clusters seen by one camera only; many, if clusters follow cameras instead of people",
        by_modality=True,
    ),
    Sign(
        "silh",
        "quality/*/silhouette",
        "silhouette: how much closer images are to their own cluster than to the next one",
        percent=False,
        by_modality=True,
    ),
    Sign("text", "labels/agreement_with_text", "agreement with the clusters of the text prototypes", percent=False),
)

MEANING = (
    "These numbers need no identities: they show whether clusters are stable and separate, not whether they are right. "
    "On synthetic people, same followed the true quality best; a high similarity of pairs was no good sign. "
    "Compare rounds and settings on the same images: docs/comparing.md."
)


def quality_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a round that need no identities, by their names in `metrics.jsonl`."""
    plain = {sign.name for sign in SIGNS}
    return {name: row[name] for name in row if name in plain or name.startswith("quality/")}
