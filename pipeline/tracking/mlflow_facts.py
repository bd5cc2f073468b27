"""What MLflow's pages of a run show besides its numbers: source, data set, description, figures with a slider."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)
from PIL import Image

from pipeline.config.datasets import options_of
from pipeline.storage.layout import FIGURES, MEDIA_TYPES
from pipeline.storage.origin import is_synthetic
from pipeline.storage.run_folder import RunFolder
from pipeline.storage.run_reader import headline_of
from pipeline.tracking.description import describe

_NOTE_DIGEST = "vireid.note"
_IMAGES = "images"  # MLflow's folder of images with a step
_CONTEXTS = {"training": "training", "validation": "validation", "test": "testing"}
_DIGEST_LENGTH = 12


def source_tags(folder: RunFolder) -> dict[str, str]:
    """Version of this package, and git commit where it is a checkout."""
    made_with = folder.read_environment() or {}
    version = (made_with.get("versions") or {}).get("usl-vireid") or ""
    tags = {MLFLOW_SOURCE_TYPE: "LOCAL", MLFLOW_SOURCE_NAME: f"usl-vireid {version}".strip()}
    return tags | ({MLFLOW_GIT_COMMIT: str(made_with["commit"])} if made_with.get("commit") else {})


def is_measured(folder: RunFolder) -> bool:
    """Whether a run's data set has images for evaluation; for a run of an earlier version, whether it was measured."""
    images = ((folder.read_environment() or {}).get("data_set") or {}).get("images")
    if images is None:
        return headline_of(folder.read_metrics()) is not None
    return bool({"validation", "test"} & images.keys())


def log_data_set(client: MlflowClient, run_id: str, folder: RunFolder) -> None:
    """Log the data set as an input of each part; a second call adds nothing."""
    made_with = folder.read_environment() or {}
    digests, counts = made_with.get("data") or {}, (made_with.get("data_set") or {}).get("images") or {}
    data: Mapping[str, Any] = folder.config.get("data") or {}
    if not digests or "name" not in data:
        return
    title = options_of(data["name"]).title or str((made_with.get("data_set") or {}).get("name") or data["name"])
    name = f"{title}, synthetic" if is_synthetic(folder.path) else title
    source = json.dumps({"uri": str(data.get("root"))})
    inputs = [
        DatasetInput(
            Dataset(
                f"{name}, {part}",
                digest.removeprefix("sha256:")[:_DIGEST_LENGTH],
                "local",
                source,
                profile=json.dumps(counts.get(part) or {}),
            ),
            [InputTag(MLFLOW_DATASET_CONTEXT, _CONTEXTS[part])],
        )
        for part, digest in digests.items()
    ]
    client.log_inputs(run_id, datasets=inputs)


def log_description(client: MlflowClient, run_id: str, folder: RunFolder) -> None:
    """Write or renew the description, unless a user has changed it in MLflow."""
    text = describe(folder.path)
    tags = client.get_run(run_id).data.tags
    there = tags.get(MLFLOW_RUN_NOTE, "")
    if text is None or there == text or (there and _digest(there) != tags.get(_NOTE_DIGEST)):
        return
    client.set_tag(run_id, _NOTE_DIGEST, _digest(text))
    client.set_tag(run_id, MLFLOW_RUN_NOTE, text)


def log_figures(client: MlflowClient, run_id: str, number: int, files: Sequence[Path], time_ms: int | None) -> None:
    """Log the figures among the files of a round as images with the round as step; known ones are skipped.

    Cost: MLflow keeps a PNG and a small WebP of each figure.
    """
    figures = [path for path in files if path.parent.name == FIGURES and path.suffix in MEDIA_TYPES]
    if not figures:
        return
    known = {Path(item.path).name for item in client.list_artifacts(run_id, _IMAGES)}
    for path in figures:
        key, time = path.stem.rpartition("-")[0], time_ms or path.stat().st_mtime_ns // 1_000_000
        start = f"{key}+step+{number}+timestamp+{time}+"
        if any(name.startswith(start) and name.endswith(".webp") for name in known):
            continue
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError):
            continue  # a damaged figure; its file is with the round
        client.log_image(run_id, image, key=key, step=number, timestamp=time, synchronous=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
