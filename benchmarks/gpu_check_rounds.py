"""The GPU check's parts `rounds` and `precision`: whole rounds against the CPU's, and bfloat16 against float32.

`rounds` trains every method on synthetic people at the sizes of preset `smoke`, with the shipped demo CLIP. CCLNet's
first three rounds are those of the preset; one round with texts follows them. `precision` compares an epoch on the same
labels from the same weights, and features of untrained networks.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.ablation import rounds_of
from benchmarks.gpu_check_parts import Check, Row, Rows
from benchmarks.training_inputs import SizeName, Task, draw_task
from benchmarks.training_sides import CASES, Engine
from benchmarks.training_speed import first_images
from models.encoder import Head
from models.precision import Precision
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_config
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.methods import method_of, train
from pipeline.runs.open import open_run
from pipeline.runs.run import Run
from pipeline.runtime.device import using_device

SMALL_IMAGES = ("images.height=64", "images.width=32")
SMALL_BATCHES = ("batches.people_per_batch=4", "batches.images_per_person=3")
# Preset and changes. The supervised methods have no preset of this size: their demonstrations', made small.
METHODS = {
    "cclnet": ("smoke", ("stages.clip_rounds=1",)),
    "csdn": ("csdn-demo", ("stages.image_rounds=1", "prompts.epochs=3", "fusion.epochs=3")),
    "eees": ("eees-demo", ("stages.image_rounds=3",)),
}
TOY = {
    "cclnet": ("stages.prepare_rounds=1",),
    "csdn": ("prompts.epochs=2", "fusion.epochs=2", "prompts.warmup_epochs=1", "fusion.warmup_epochs=1"),
    "eees": ("stages.image_rounds=1",),
}
TOY_NETWORK = ("model.architecture=tiny", "model.weights=random")


def rounds(check: Check) -> Rows:
    """The first rounds of every method in float32, on the device and on the CPU."""
    for method in METHODS:
        yield method, lambda method=method: compare_rounds(check, method)


def smoke_run(check: Check, method: str, name: str, device: str) -> AnyConfig:
    """The settings of a run; its data set is drawn where it is not there yet."""
    data = check.scratch / "people"
    if not data.exists():
        size = {"height": 64, "width": 32} if check.dry_run else {}
        generate_dataset(data, size="smoke", difficulty="easy", seed=1, workers=1, **size)
    preset, changes = METHODS[method]
    changes = (*changes, *SMALL_IMAGES, "evaluation.every=100", "evaluation.trials=1")
    changes += SMALL_BATCHES if method != "cclnet" else ()
    changes += (*TOY[method], *TOY_NETWORK) if check.dry_run else ()
    execution = {
        "device": device, "precision": "float32", "runs_folder": str(check.scratch / name), "tracking": False,
        "figures": False,
    }  # fmt: skip
    return load_config(preset, changes, {"data": {"root": str(data)}, "execution": execution})


def compare_rounds(check: Check, method: str) -> Row:
    """Losses and clusters of every round, there and here."""
    both = [smoke_run(check, method, name, device) for name, device in (("there", check.device), ("here", "cpu"))]
    for config in both:
        train(config)
    there, here = (rounds_of(config)[0] for config in both)
    found = [compared_round(one, other) for one, other in zip(there, here, strict=True)]
    return {"rounds": found, "difference": max(one["difference"] for one in found)}


def compared_round(there: Mapping[str, Any], here: Mapping[str, Any]) -> Row:
    """The largest relative difference of the losses of a round, and whether as many clusters were found."""
    losses = [name for name in here if name.startswith("train/loss/")]
    clusters = [name for name in here if name.startswith("labels/") and name.endswith("/clusters")]
    differences = {name.removeprefix("train/loss/"): difference(there[name], here[name]) for name in losses}
    worst = max(differences, key=lambda name: differences[name])
    return {
        "round": here["round"], "stage": here["stage"], "difference": differences[worst], "loss": worst,
        "losses": {name: [there[name], here[name]] for name in losses},
        "same_clusters": all(there[name] == here[name] for name in clusters),
    }  # fmt: skip


def difference(one: float, other: float) -> float:
    """Relative to the second."""
    return abs(one - other) / max(abs(other), 1e-12)


def precision(check: Check) -> Rows:
    """The device's shorter numbers against float32 on the same device."""
    size: SizeName = "tiny" if check.dry_run else "sysu"
    yield "RN50 at 288 x 144", lambda: compare_epochs(check, size)
    yield "demo CLIP on synthetic people", lambda: compare_features(check)


@dataclass(frozen=True, slots=True)
class Passes:
    """Images whose features are compared, steps of the epoch, and different images that are drawn."""

    images: int
    steps: int
    pool: int

    @staticmethod
    def of(check: Check) -> "Passes":
        """What takes seconds."""
        if check.dry_run:
            return Passes(16, 2, 160)
        return Passes(8, 1, 256) if check.device == "cpu" else Passes(512, 20, 2_048)


def compare_epochs(check: Check, size: SizeName) -> Row:
    """Features before an epoch, and its mean losses, from equal weights."""
    passes = Passes.of(check)
    task = draw_task(size, passes.pool)
    exact, short = (run_epoch_in(check, task, passes, precision) for precision in ("float32", "bfloat16"))
    differences = {name: difference(value, exact[1][name]) for name, value in short[1].items()}
    return {"losses": [exact[1], short[1]], "difference": max(differences.values())} | cosines(exact[0], short[0])


def run_epoch_in(check: Check, task: Task, passes: Passes, precision: Precision) -> tuple[np.ndarray, dict[str, float]]:
    """Features of the first images, then the losses of an epoch with every term."""
    device = torch.device(check.device)
    with using_device(device, precision):
        engine = Engine(replace(task, encoder=copy.deepcopy(task.encoder)), device, precision, compiled=False)
        features = engine.extract(first_images(task, passes.images))[0].vectors
        engine.train(CASES[-1], passes.steps, engine.streamed())
    return features, engine.losses


def compare_features(check: Check) -> Row:
    """Features of an untrained run's training images."""
    with opened(smoke_run(check, "cclnet", "features", check.device)) as run:
        exact, short = (features_in(run, precision) for precision in ("float32", "bfloat16"))
    return cosines(exact, short)


@contextmanager
def opened(config: AnyConfig) -> Iterator[Run[Any, Any]]:
    """A run before its first round."""
    with open_run(config, method_of(config)) as run:
        yield run


def features_in(run: Run[Any, Any], precision: Precision) -> np.ndarray:
    """Of the visible, then the infrared images."""
    run.precision = precision
    with using_device(run.device, precision):
        return np.concatenate([bank.vectors for bank in run.extract_training_features(Head.NECK)])


def cosines(exact: np.ndarray, short: np.ndarray) -> Row:
    """The smallest and the mean cosine of the rows of both."""
    found = (exact * short).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(short, axis=1)
    return {"smallest_cosine": float(found.min()), "mean_cosine": float(found.mean()), "images": len(found)}
