"""Statistics of captions, before training."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Int64

from models.modality import Modality, PerModality

CONTEXT_LENGTH: Final = 77  # tokens of a text that CLIP reads, start and end included
# fmt: off
COLOUR_WORDS: Final = frozenset({
    "beige", "black", "blue", "blond", "blonde", "brown", "burgundy", "cream", "cyan", "gold", "golden", "gray",
    "green", "grey", "khaki", "lavender", "magenta", "maroon", "navy", "olive", "orange", "pink", "purple", "red",
    "silver", "tan", "teal", "turquoise", "violet", "white", "yellow",
})
# fmt: on
"""Colour names: the basic words of English and those that captions use for clothes."""
_BIN: Final = 10


@dataclass(frozen=True, slots=True)
class ModalityCaptions:
    """Statistics of the captions of one modality: shares in [0, 1], and lengths in tokens, start and end included.

    A duplicate equals an earlier caption, word for word. `histogram` counts captions by `0-9`, `10-19`, ... tokens.
    """

    images: int
    coverage: float
    duplicate_share: float
    mean_tokens: float
    p95_tokens: int
    max_tokens: int
    truncated_share: float
    colour_share: float
    histogram: dict[str, int]

    def __str__(self) -> str:
        return (
            f"{self.images:,} images, {self.coverage:.1%} with one, {self.duplicate_share:.1%} repeated, "
            f"{self.mean_tokens:.1f} tokens (95 % within {self.p95_tokens}, at most {self.max_tokens}), "
            f"{self.truncated_share:.1%} over {CONTEXT_LENGTH}, {self.colour_share:.1%} name a colour"
        )


@dataclass(frozen=True, slots=True)
class CaptionReport:
    """Statistics of both modalities."""

    modalities: PerModality[ModalityCaptions]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types, by modality."""
        return {modality.value: asdict(one) for modality, one in self.modalities.items()}


def describe_captions(
    texts: PerModality[tuple[str, ...]], count_tokens: Callable[[list[str]], Int64[np.ndarray, " _"]]
) -> CaptionReport:
    """Compute the statistics; `count_tokens` includes start and end, before truncation."""

    def describe(modality: Modality) -> ModalityCaptions:
        some = texts[modality]
        tokens = count_tokens(list(some))
        assert len(tokens) == len(some), "every caption has one length"
        return ModalityCaptions(
            images=len(some),
            coverage=_share([bool(text) for text in some]),
            duplicate_share=1.0 - len(set(some)) / len(some),
            mean_tokens=float(tokens.mean()),
            p95_tokens=int(np.percentile(tokens, 95, method="inverted_cdf")),
            max_tokens=int(tokens.max()),
            truncated_share=_share((tokens > CONTEXT_LENGTH).tolist()),
            colour_share=_share([names_colour(text) for text in some]),
            histogram=_histogram(tokens),
        )

    return CaptionReport(PerModality.build(describe))


def names_colour(text: str) -> bool:
    """Whether a word of the text is the name of a colour.

    >>> names_colour("a man in a Dark-Blue coat"), names_colour("a man in a dark coat, covered")
    (True, False)
    """
    return not COLOUR_WORDS.isdisjoint(re.findall(r"[a-z]+", text.lower()))


def _histogram(tokens: Int64[np.ndarray, " n"]) -> dict[str, int]:
    counts = Counter((tokens // _BIN * _BIN).tolist())
    return {f"{first}-{first + _BIN - 1}": counts[first] for first in sorted(counts)}


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks)
