"""Values of tables as people and programs write them: modalities, numbers of people and cameras."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from models.modality import Modality
from pipeline.runtime.names import plain

MODALITY_NAMES: Final[Mapping[str, Modality]] = {
    **dict.fromkeys(("visible", "vis", "rgb"), Modality.VISIBLE),
    **dict.fromkeys(("infrared", "ir", "nir", "thermal"), Modality.INFRARED),
}
"""Accepted names of modalities, in upper or lower case."""

MAX_DIGITS: Final = 18  # what an int64 holds in any case
_ABSENT: Final = ("nan", "NaN", "<NA>", "None", "null", "NULL")
_WHOLE: Final = re.compile(r"(-?[0-9]+)[.,]0+")
_ROUNDED: Final = re.compile(r"[0-9](?:[.,][0-9]+)?[eE]\+[0-9]+")
_SHEET_ERROR: Final = re.compile(r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!)")
_NEGATIVE: Final = re.compile(r"-[0-9]+")


def modality_named(text: str) -> Modality | None:
    """The modality of a name such as `IR` or `Visible`; None for another name."""
    return MODALITY_NAMES.get(plain(text).casefold())


def name_or_number(text: str) -> str:
    """One spelling for a person or camera: `0012`, `12.0` and `12,0` are `12`; `nan` and `None` are empty."""
    text = plain(text)
    if text in _ABSENT:
        return ""
    whole = _WHOLE.fullmatch(text)
    text = text if whole is None else whole[1]
    return str(int(text)) if text.isdecimal() and len(text) <= MAX_DIGITS else text


def moment(text: str) -> datetime:
    """A date, or a date with a time, in ISO 8601; without a time zone it is UTC.

    Raises:
        ValueError: It is none.

    >>> moment("2026-11-28 14:03").isoformat(), moment("2026-11-28T14:03:00+02:00").isoformat()
    ('2026-11-28T14:03:00+00:00', '2026-11-28T12:03:00+00:00')
    """
    found = datetime.fromisoformat(plain(text))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def value_problem(text: str) -> str | None:
    """The reason why `name_or_number` gave neither the name nor the number of a person or camera, if so."""
    if _NEGATIVE.fullmatch(text):
        return "is negative"
    if text.isdecimal() and len(text) > MAX_DIGITS:
        return f"has more than {MAX_DIGITS} digits"
    if _ROUNDED.fullmatch(text):
        return "is a number that a spreadsheet rounded: format the column as text, and enter the numbers again"
    return "is an error of the spreadsheet's formula" if _SHEET_ERROR.fullmatch(text) else None
