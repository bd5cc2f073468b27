"""Images per second of both sides in turns, and the share of the device's own speed that vireid's side reaches."""

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training_inputs import Amount, Task
from benchmarks.training_sides import CASES, Case, Engine, PlainSide, timed
from models.encoder import DualStemEncoder, Head
from models.modality import PerModality
from models.precision import Precision
from pipeline.data.images import TrainingImages
from pipeline.data.pixel_supply import PixelSupply

BACKWARD = 3  # a step takes three times the multiplications of its forward pass
BURSTS = 5

Side = Callable[[], float]


def measure_speed(
    engine: Engine, plain: PlainSide | None, amount: Amount, *, repeats: int, limit: float, flops: Mapping[str, float]
) -> dict[str, Any]:
    """Training in the plainest and in the fullest case, and extraction; both sides one after the other, repeatedly.

    Args:
        engine: Ours.
        plain: The other one; None measures ours alone, without a ratio.
        amount: How many steps and images.
        repeats: Measurements of each side; the median counts.
        limit: Seconds after which a comparison is not repeated.
        flops: What an image takes in each row, from `image_flops`.
    """
    supplies = {"streamed": engine.streamed()}
    if engine.device.type == "cuda":
        supplies["resident"] = engine.resident()
    peak = matmul_peak(engine.device, engine.precision, toy=engine.task.name == "tiny")
    found: dict[str, Any] = {"peak_flops": peak}
    for case in (CASES[0], CASES[-1]):
        warm_up(engine, plain, supplies, case, amount.warm_up)
        ours = {name: ours_training(engine, case, amount.steps, supply) for name, supply in supplies.items()}
        sides = ours | ({} if plain is None else {"plain": plain_training(plain, case, amount.steps)})
        shown = amount.steps * sum(at.shape[1] for at in engine.task.batches.positions)
        found[f"train, {case.name}"] = compared(
            alternate(sides, repeats, limit), shown, flops[f"train, {case.name}"], peak
        )
    images = first_images(engine.task, amount.images)
    few = first_images(engine.task, min(len(images), engine.extraction_batch + len(images) % engine.extraction_batch))
    if amount.warm_up:
        alternate(extractions(engine, plain, supplies, few), 1, limit)
    seconds = alternate(extractions(engine, plain, supplies, images), repeats, limit)
    return found | {"extract": compared(seconds, len(images), flops["extract"], peak)}


def ours_training(engine: Engine, case: Case, steps: int, supply: PerModality[PixelSupply]) -> Side:
    """Ours, ready to be called."""
    return lambda: engine.train(case, steps, supply)


def plain_training(plain: PlainSide, case: Case, steps: int) -> Side:
    """The other one."""
    return lambda: plain.train(case, steps)


def extractions(
    engine: Engine, plain: PlainSide | None, supplies: Mapping[str, PerModality[PixelSupply]], images: TrainingImages
) -> dict[str, Side]:
    """Both sides' extraction; ours from each supply of pixels."""

    def ours(supply: PerModality[PixelSupply]) -> Side:
        return lambda: engine.extract(images, supply.visible)[1]

    sides = {name: ours(supply) for name, supply in supplies.items()}
    return sides if plain is None else sides | {"plain": lambda: plain.extract(len(images))}


def warm_up(
    engine: Engine, plain: PlainSide | None, supplies: Mapping[str, PerModality[PixelSupply]], case: Case, steps: int
) -> None:
    """Let libraries choose and compile what they need."""
    if steps:
        for supply in supplies.values():
            engine.train(case, steps, supply)
        if plain is not None:
            plain.train(case, steps)


def first_images(task: Task, count: int) -> TrainingImages:
    """The first visible images, which have the same positions in every supply."""
    images = task.images.visible
    return TrainingImages(images.pixels, images.rows[:count], images.cameras[:count], images.modality)


def alternate(sides: Mapping[str, Side], repeats: int, limit: float) -> dict[str, list[float]]:
    """Seconds of each side in turns, so that a change of the machine's pace meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    began = perf_counter()
    for repeat in range(repeats):
        if repeat and perf_counter() - began > limit:
            break
        for name, side in sides.items():
            seconds[name].append(side())
    return seconds


def compared(seconds: Mapping[str, list[float]], images: int, flops: float, peak: float) -> dict[str, Any]:
    """Images per second, share of the peak, and ours over plain where that was measured."""
    rates = {name: images / median(taken) for name, taken in seconds.items()}
    ours = {name: rate for name, rate in rates.items() if name != "plain"}
    return {
        "images": images,
        "flops_per_image": flops,
        "seconds": dict(seconds),
        "images_per_second": rates,
        "ratio": {name: rate / rates["plain"] for name, rate in ours.items() if "plain" in rates},
        "share_of_peak": {name: rate * flops / peak for name, rate in ours.items()},
    }


def image_flops(encoder: DualStemEncoder) -> dict[str, float]:
    """Multiplications and additions that the network needs for an image; call it before the encoder is compiled."""
    neck, both = (forward_flops(encoder, frozenset(heads)) for heads in ({Head.NECK}, {Head.NECK, Head.PROJECTION}))
    trained = {f"train, {case.name}": BACKWARD * (both if case.text else neck) for case in CASES}
    return {"extract": neck} | trained


def forward_flops(encoder: DualStemEncoder, heads: frozenset[Head]) -> float:
    """Of a forward pass, for each of its images: twice the multiplications of convolutions and products."""
    device = next(encoder.parameters()).device
    black = PerModality.build(lambda _: torch.zeros(1, 3, *encoder.image_size, device=device))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(black, heads)
    return counter.get_total_flops() / 2


def matmul_peak(device: torch.device, precision: Precision, *, toy: bool = False) -> float:
    """Multiplications and additions a second of a large product in the network's precision: the best of some bursts."""
    on_gpu = device.type == "cuda"
    size, products = (256, 1) if toy else (8_192, 20) if on_gpu else (2_048, 2)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def burst() -> None:
        for _ in range(products):
            torch.mm(left, right, out=out)

    burst()
    best = min(timed(burst, device)[1] for _ in range(BURSTS))
    return 2 * size**3 * products / best
