"""Conditions on the gallery images that a search may find."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on gallery images: one of the cameras (empty: any), and a time span with both ends included.

    An image without a known time is outside of every span.
    """

    cameras: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
