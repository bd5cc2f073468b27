"""Image files that cannot be read, counted by the kind of their fault."""

import re
from collections import defaultdict
from collections.abc import Iterable

from pipeline.data.image_files import Unreadable

_UNSUPPORTED = "of an unsupported kind of TIFF"
_KINDS = (
    ("empty", r"an empty file"),
    ("truncated", r"truncated|unexpected end|too short|not enough (image )?data"),
    ("of a kind that needs a plugin", r"with a plugin only"),
    (_UNSUPPORTED, r"unsupported kind of TIFF"),
    ("not an image", r"no image\b|a drawing of the kind"),
    ("too large", r"pixels, more than|more than [0-9,]+ pixels"),
    ("without a finite pixel", r"no pixel has a finite value"),
    ("impossible to open", r"No such file|[Pp]ermission|not a regular file|[Ii]s a directory|Input/output error"),
)
_OTHERS = "damaged"
_SHOWN = 3


def _kind_of(reason: str) -> str:
    """The kind of a fault, by the reason that `pipeline.data.image_files.reason_of` gives.

    >>> _kind_of("damaged image file: image file is truncated (7 bytes not processed)"), _kind_of("broken PNG file")
    ('truncated', 'damaged')
    """
    return next((kind for kind, pattern in _KINDS if re.search(pattern, reason, re.IGNORECASE)), _OTHERS)


def fault_lines(unreadable: Iterable[Unreadable]) -> list[str]:
    """One phrase for each kind of fault: the number of images, the first with its reason, and two more.

    >>> fault_lines([Unreadable("a.jpg", "an empty file"), Unreadable("b.jpg", "an empty file")])
    ['2 empty: a.jpg (an empty file), b.jpg']
    """
    lines: list[str] = []
    for kind, some in _by_kind(unreadable).items():
        first, *others = some[:_SHOWN]
        shown = ", ".join((f"{first.path} ({first.reason})", *(one.path for one in others)))
        lines.append(f"{len(some):,} {kind}: {shown}" + (", ..." if len(some) > _SHOWN else ""))
    return lines


def fault_hint(unreadable: Iterable[Unreadable]) -> str:
    """What mends such files.

    >>> fault_hint([Unreadable("a.jpg", "an empty file")])
    'copy these files again from their source'
    """
    kinds = set(_by_kind(unreadable))
    steps = ["save the TIFFs as 16-bit integers or 32-bit floats"] if _UNSUPPORTED in kinds else []
    if kinds != {_UNSUPPORTED}:
        steps.append(f"copy {'the others' if steps else 'these files'} again from their source")
    return ", ".join(steps)


def _by_kind(unreadable: Iterable[Unreadable]) -> dict[str, list[Unreadable]]:
    """The images of each kind, in the order of the kinds."""
    found: defaultdict[str, list[Unreadable]] = defaultdict(list)
    for one in unreadable:
        found[_kind_of(one.reason)].append(one)
    return {kind: found[kind] for kind in (*(kind for kind, _ in _KINDS), _OTHERS) if kind in found}
