"""Whether a run was trained on synthetic people, by its own record. Importable without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.synthetic.record import shows_synthetic
from pipeline.errors import CheckpointError
from pipeline.runtime import atomic_files
from pipeline.storage import layout as run_files

_SYNTHETIC = "drawn"  # one of `pipeline.data.images.Kind`


def is_synthetic(run: Path) -> bool:
    """Whether the images of a run show synthetic people: where its numbers appear, so does the word `synthetic`.

    It is recorded in `environment.json`; for runs of earlier versions, in `evaluation.json` or the data's `drawn.json`.
    """
    for name, section in ((run_files.ENVIRONMENT, "data_set"), (run_files.EVALUATION, "data")):
        kind = _section(_read(run / name), section).get("kind")
        if kind is not None:
            return bool(kind == _SYNTHETIC)
    root = _section(_section(_read(run / run_files.CONFIG), "config"), "data").get("root")
    return isinstance(root, str) and shows_synthetic(Path(root))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return atomic_files.read_json(path) or {}
    except CheckpointError:
        return {}  # commands that need the file report it


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = content.get(name)
    return part if isinstance(part, Mapping) else {}
