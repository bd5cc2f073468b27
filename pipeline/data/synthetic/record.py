"""The description file by which an adapter recognises a synthetic data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

DRAWN_FILE = "drawn.json"


def read_drawn(root: Path) -> Mapping[str, Any] | None:
    """Content of `drawn.json`; None for photographs, which have no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = root / DRAWN_FILE
    if not path.is_file():
        return None
    try:
        drawn = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", hint="generate the data set again") from error
    if not isinstance(drawn, dict):
        raise DataError(f"{path} is not a JSON object", hint="generate the data set again")
    return drawn
