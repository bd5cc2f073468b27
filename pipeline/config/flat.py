"""Nested settings as one list of dotted names."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 4
_PLACES = {"data": ("root", "images_root"), "captions": ("path",)}
"""Settings that name a place: what lies there has a digest of its own, which a run compares when it goes on."""


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings, in their order.

    >>> dict(flat({"seed": 1, "labelling": {"eps": 0.6, "searches": ["all", "indoor"]}}))
    {'seed': 1, 'labelling.eps': 0.6, 'labelling.searches': ['all', 'indoor']}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What two settings disagree about, in words; the first few, in the order of their names.

    >>> differences({"seed": 1, "labelling": {"eps": 0.6}}, {"seed": 1, "labelling": {"eps": 0.5}})
    'labelling.eps 0.6 there, 0.5 here'
    """
    then, now = dict(flat(there)), dict(flat(here))
    names = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    shown = [f"{name} {then.get(name)!r} there, {now.get(name)!r} here" for name in names[:_SHOWN]]
    return "; ".join(shown) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Twelve hex digits over everything that decides a result: all but `execution` and the places of files.

    `execution.processes` counts where it changes the result: with `batches.batch_norm = "local"`.

    >>> here, there = ({"seed": 1, "data": {"root": root}, "execution": {}} for root in ("a", "b"))
    >>> settings_digest(here) == settings_digest(there)
    True
    """
    deciding = {name: value for name, value in settings.items() if name != "execution"}
    for section in _PLACES.keys() & deciding.keys():
        deciding[section] = {name: value for name, value in settings[section].items() if name not in _PLACES[section]}
    processes = settings["execution"].get("processes", 1)
    if processes > 1 and settings["batches"]["batch_norm"] == "local":
        deciding["execution"] = {"processes": processes}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]
