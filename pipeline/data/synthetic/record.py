"""What a drawn data set says about itself: the file by which an adapter tells it from photographs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

DRAWN_FILE = "drawn.json"


def read_drawn(root: Path) -> Mapping[str, Any] | None:
    """What `drawn.json` holds; None for photographs, which have no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = root / DRAWN_FILE
    if not path.is_file():
        return None
    try:
        drawn = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", hint="draw the data set again") from error
    if not isinstance(drawn, dict):
        raise DataError(f"{path} holds no JSON object", hint="draw the data set again")
    return drawn
