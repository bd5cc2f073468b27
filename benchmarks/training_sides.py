"""The two sides of the training benchmark, with the same images, labels, prototypes and texts: an epoch, an extraction.

vireid's side is the engine itself. The plain side is `benchmarks/plain_training.py` with one Adam over all parameters;
what it waits for its first batch, until its new worker processes are at work, is not counted against it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.plain_images import PlainImages, PlainPairs, plain_loader, training_transform
from benchmarks.plain_training import PlainMemory, PlainNetwork, plain_extract, plain_network, plain_train_epoch
from benchmarks.training_inputs import SEED, Task, labels_of_pool, on_device, positions_in_pool
from models.encoder import Head
from models.memory import PrototypeMemory, memory_update
from models.modality import Modality, PerModality
from models.precision import Precision
from models.swap import CrossModalSwap
from pipeline.data.images import StoredImages
from pipeline.data.pixel_supply import PixelSupply, ResidentPixels, StreamedPixels
from pipeline.data.transforms.augmentation import training_views
from pipeline.features import FeatureBank, extract_features
from pipeline.methods.cclnet.contrast import CrossModal, Partners
from pipeline.methods.cclnet.objective import TextLoss, cluster_objective
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.runtime.seeds import torch_generator
from pipeline.training.loop import Compute, EpochSteps, run_epoch
from pipeline.training.optimiser import build_image_optimiser

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """Which losses and updates an epoch has."""

    text: bool
    swap: bool
    unified: bool = False

    @property
    def name(self) -> str:
        """As tables and records spell it."""
        return ("clip" if self.text else "prepare") + ", swap" * self.swap + ", unified" * self.unified


CASES = (Case(False, False), Case(False, True), Case(True, False), Case(True, True))
"""Of CCLNet."""
PLUS_CASES = (Case(False, False, unified=True), Case(True, False, unified=True))
"""What presets `plus-...` have besides: contrast across modalities in place of swapping."""


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a call returns, and its seconds until the device has finished."""
    finish(device)
    began = perf_counter()
    result = work()
    finish(device)
    return result, perf_counter() - began


def finish(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Engine:
    """vireid's side; the task's encoder moves to the device and is trained."""

    def __init__(self, task: Task, device: torch.device, precision: Precision, compiled: bool) -> None:
        self.task = task
        self.device = device
        self.precision = precision
        self.encoder = task.encoder.to(device)
        if compiled:
            self.encoder.compile_network()
        self.losses: dict[str, float] = {}  # of the last epoch
        self.optimisers = {text: self._optimiser(text) for text in (False, True)}
        self.extraction_batch = 64 if device.type == "cpu" else 512

    def streamed(self) -> PerModality[PixelSupply]:
        """Pixels that stay in memory, read one batch ahead."""
        return self.task.images.map(lambda some: StreamedPixels(some, self.device))

    def resident(self) -> PerModality[PixelSupply]:
        """Pixels on the device."""
        return self.task.images.map(lambda some: ResidentPixels(some, self.device))

    def train(self, case: Case, steps: int, pixels: PerModality[PixelSupply]) -> float:
        """Seconds of an epoch; its memories are made before it."""
        task, config = self.task, self.task.config
        memories = on_device(task.prototypes, self.device).map(PrototypeMemory)
        texts = on_device(task.texts, self.device)
        prototypes = texts.map_with(
            lambda rows, own: TextPrototypes(
                rows, own.labels, rows[:, None], np.full(len(rows), -1), np.zeros(len(rows), np.float32)
            ),
            task.labels,
        )
        views = training_views(
            recipe=config.augmentation.recipe,
            padding=config.augmentation.padding,
            normalisation=config.images.normalisation,
            generator=torch_generator(SEED, "augment"),
        )
        swap = CrossModalSwap(
            mode="released",
            trigger=config.swap.trigger,
            scale=config.swap.scale,
            min_similarity=config.matching.floor,
            every=config.swap.every,
        )
        batches = task.steps(steps)

        def epoch() -> dict[str, float]:
            objective = cluster_objective(
                task.labels.map(lambda own: own.labels),
                memories,
                temperature=config.memory.temperature,
                update=memory_update(config.memory.update, config.memory.momentum),
                swap=swap if case.swap else None,
                text=TextLoss(prototypes, config.prompts.text_weight, config.prompts.smoothing) if case.text else None,
                cross_modal=unified_contrast(task.size.people) if case.unified else None,
            )
            shown = EpochSteps(pixels, batches.positions, views, batches.clusters_per_batch, "images_per_cluster")
            compute = Compute(self.device, self.precision)
            return run_epoch(self.encoder, self.optimisers[case.text], objective, shown, compute)

        self.losses, seconds = timed(epoch, self.device)
        return seconds

    def extract(
        self, images: StoredImages, pixels: PixelSupply | None = None, head: Head = Head.NECK
    ) -> tuple[FeatureBank, float]:
        """Features of some images, and the seconds that they took."""
        return timed(
            lambda: extract_features(
                self.encoder,
                images,
                heads=(head,),
                batch_size=self.extraction_batch,
                device=self.device,
                normalisation=self.task.config.images.normalisation,
                pixels=pixels,
                precision=self.precision,
            ),
            self.device,
        )

    def _optimiser(self, text: bool) -> torch.optim.Optimizer:
        optimisation = self.task.config.optimisation
        return build_image_optimiser(
            self.encoder,
            roles={"stem", "trunk", "neck"} | ({"attention_pool"} if text else set()),
            learning_rate=optimisation.learning_rate * optimisation.warmup_factor,
            weight_decay=optimisation.weight_decay,
            bias_factor=optimisation.bias_factor,
        )


def unified_contrast(people: int) -> CrossModal:
    """Every cluster is paired with that of the same person."""
    one = Partners(np.arange(people), np.ones(people, np.float32), np.full((people, 0), -1))
    return CrossModal(PerModality(one, one), "unified")


class PlainSide:
    """The plain side, in float32 whatever ours computes in; on a GPU convolutions may round, as torch lets them."""

    def __init__(self, task: Task, device: torch.device, workers: int) -> None:
        config = task.config
        self.task = task
        self.device = device
        self.workers = workers
        self.network: PlainNetwork = plain_network(task.clip, config.images.height, config.images.width).to(device)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(),
            lr=config.optimisation.learning_rate * config.optimisation.warmup_factor,
            weight_decay=config.optimisation.weight_decay,
        )
        self.extraction_batch = 64 if device.type == "cpu" else 512

    def train(self, case: Case, steps: int) -> float:
        """Seconds of an epoch, from its first batch on; its memories are made before it."""
        task, config = self.task, self.task.config
        batches = task.steps(steps)
        labels = task.images.map(lambda some: labels_of_pool(some, task.size.people))
        pairs = PlainPairs(
            pixels=task.images.map(lambda some: some.pixels),
            labels=labels,
            positions=task.images.map_with(positions_in_pool, batches.positions),
            transforms=PerModality.build(
                lambda modality: training_transform(
                    modality, config.images.height, config.images.width, config.augmentation.padding
                )
            ),
            text_rows=labels,
        )
        batch_size = batches.positions.visible.shape[1]
        loader = Waiting(plain_loader(pairs, batch_size=batch_size, workers=self.workers, device=self.device))
        memories = on_device(task.prototypes, self.device).map(PlainMemory)
        _, seconds = timed(
            lambda: plain_train_epoch(
                self.network,
                self.optimiser,
                loader,
                memories,
                temperature=config.memory.temperature,
                momentum=config.memory.momentum,
                swap=case.swap,
                text=on_device(task.texts, self.device) if case.text else None,
                text_weight=config.prompts.text_weight,
                smoothing=config.prompts.smoothing,
                device=self.device,
            ),
            self.device,
        )
        return seconds - (loader.waited if self.workers else 0.0)

    def extract(self, count: int) -> float:
        """Seconds of encoding so many images; what the first batch takes to arrive is measured before, and left out."""
        pixels = self.task.images.visible.pixels[:count]
        assert len(pixels) == count, "the plain side has no images to repeat"
        first = PlainImages(pixels[: self.extraction_batch])
        loader = plain_loader(first, batch_size=self.extraction_batch, workers=self.workers, device=self.device)
        _, waited = timed(lambda: next(iter(loader)), self.device)
        _, seconds = timed(
            lambda: plain_extract(
                self.network,
                pixels,
                Modality.VISIBLE,
                batch_size=self.extraction_batch,
                workers=self.workers,
                device=self.device,
            ),
            self.device,
        )
        return seconds - (waited if self.workers else 0.0)


class Waiting:
    """A loader that knows how long its first batch took to arrive."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        began = perf_counter()
        for number, batch in enumerate(self.loader):
            if number == 0:
                self.waited = perf_counter() - began
            yield batch
