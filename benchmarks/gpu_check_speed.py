"""The GPU check's parts `speed`, `labelling` and `schedule`, from what the other benchmarks measure."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32

from benchmarks.clustering_jobs import IMAGES_A_PERSON
from benchmarks.clustering_measurements import label_whole, whole_figures
from benchmarks.gpu_check_parts import Check, Row, Rows
from benchmarks.training_inputs import SIZES, Amount, SizeName, draw_task
from benchmarks.training_rounds import measure_round
from benchmarks.training_sides import Engine, PlainSide
from benchmarks.training_speed import image_flops, measure_speed
from clustering.joint import label_jointly
from clustering.labelling import Labelling
from pipeline.config.presets import load_config
from pipeline.runtime.device import resolve_precision, using_device
from pipeline.runtime.environment import peak_memory
from tests.reference.feature_sets import identity_features

Label = Callable[[Float32[np.ndarray, "n d"], str], Labelling]
SCHEDULES = ("cclnet-sysu", "plus-sysu")
SYSU = SIZES["sysu"].training
TOY_IMAGES, TOY_WIDTH = 600, 32
MOST_WORKERS = 16  # of the plain side: more take longer to start than what is measured
ENOUGH = 20.0  # seconds; then a comparison is not repeated


def amount_of(check: Check, *, whole_round: bool = False) -> Amount:
    """What of training fits into minutes; on a CPU a step."""
    on_gpu = check.device != "cpu"
    if check.dry_run:
        return replace(Amount.of("tiny", on_gpu, whole_round), steps=1, images=32, pool=SIZES["tiny"].training.visible)
    if not on_gpu:
        return Amount.of("sysu", on_gpu, whole_round)
    pool = SYSU.visible if whole_round else 4_096
    return Amount(steps=24, images=2_048, pool=pool, warm_up=3, round_steps=60, round_images=8_192)


def speed(check: Check) -> Rows:
    """Images a second by size of the batch, with and without torch.compile; the plain side beside the latter."""
    sizes: dict[str, SizeName] = {"64 + 64": "sysu", "128 + 128": "sysu-128"}
    for compiled in (False, True):
        for batch, size in sizes.items():
            measure = partial(measure_size, check, "tiny" if check.dry_run else size, compiled)
            yield batch + ", compiled" * compiled, measure


def measure_size(check: Check, size: SizeName, compiled: bool) -> Row:
    """Training and extraction."""
    amount, device = amount_of(check), torch.device(check.device)
    precision = resolve_precision("auto", device)
    with using_device(device, precision), compiling(check):
        task = draw_task(size, amount.pool)
        flops = image_flops(task.encoder)
        engine = Engine(task, device, precision, compiled)
        workers = 1 if check.dry_run else min(MOST_WORKERS, os.cpu_count() or 1)
        plain = None if compiled else PlainSide(task, device, workers)
        found = measure_speed(engine, plain, amount, repeats=1 if check.dry_run else 2, limit=ENOUGH, flops=flops)
    return found | peak_memory() | {"precision": precision, "workers": workers}


@contextmanager
def compiling(check: Check) -> Iterator[None]:
    """A dry run goes the same way, but translates nothing: that takes minutes on a CPU."""
    try:
        with torch.compiler.set_stance("force_eager") if check.dry_run else nullcontext():
            yield
    finally:
        torch.compiler.reset()


def labelling(check: Check) -> Rows:
    """Features to labels: visible images of SYSU-MM01, its images of both modalities together, and a million."""
    whole, both = "22,258 x 2,048", "34,167 x 2,048, joint"
    sizes: dict[str, tuple[int, int, Label, int]] = {
        whole: (SYSU.visible, 2_048, label_whole, 3),
        both: (sum(SYSU), 2_048, label_both, 3),
        "1,000,000 x 512": (1_000_000, 512, label_whole, 1),
    }
    for name, (images, width, label, repeats) in sizes.items():
        if check.dry_run:
            images, width, repeats = TOY_IMAGES, TOY_WIDTH, 1
        yield name, partial(measure_labelling, images, width, label, repeats, check.device)


def measure_labelling(images: int, width: int, label: Label, repeats: int, device: str) -> Row:
    """Seconds and memory."""
    features = identity_features(images, max(2, images // IMAGES_A_PERSON), width)
    found = whole_figures(features, label, device, repeats)
    found.pop("machine")
    return found | {"images": images, "width": width}


def label_both(features: Float32[np.ndarray, "n d"], device: str) -> Labelling:
    """Features to labels, the first rows being those of one modality, in the proportion of SYSU-MM01."""
    first = len(features) * SYSU.visible // sum(SYSU)
    return label_jointly(features[:first], features[first:], device=device)


def schedule(check: Check) -> Rows:
    """The stages of a round at SYSU-MM01's size, and what they make of whole schedules."""
    yield "round", lambda: measure_schedule(check)


def measure_schedule(check: Check) -> Row:
    """Every stage once."""
    amount, device = amount_of(check, whole_round=True), torch.device(check.device)
    precision = resolve_precision("auto", device)
    schedules = {name: load_config(name, ("model.weights=random",)) for name in SCHEDULES}
    with using_device(device, precision):
        engine = Engine(draw_task("tiny" if check.dry_run else "sysu", amount.pool), device, precision, compiled=False)
        return measure_round(engine, amount, schedules) | peak_memory()
