"""A few steps of training that take a second: random images in known clusters, and all that an epoch needs."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from models.memory import PrototypeMemory, memory_update
from models.modality import Modality, PerModality
from models.precision import Precision
from models.swap import CrossModalSwap
from pipeline.data.images import TrainingImages
from pipeline.data.pixel_supply import PixelSupply, ResidentPixels, StreamedPixels
from pipeline.data.samplers.sampling import CrossModalBatches, cross_modal_batches
from pipeline.data.transforms.augmentation import Transform, training_views
from pipeline.methods.cclnet.objective import TextLoss, cluster_objective
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.training.loop import Compute, EpochSteps, run_epoch, run_steps
from pipeline.training.objective import Objective, Term
from pipeline.training.optimiser import build_image_optimiser

CPU = torch.device("cpu")
SIZE = (48, 32)
CLUSTERS = PerModality(5, 4)
Views = PerModality[tuple[Transform, ...]]
WITHOUT_TEXT, WITH_TEXT = ("stem", "trunk", "neck"), ("stem", "trunk", "neck", "attention_pool")


def random_images(num_images: int, modality: Modality, *, seed: int = 0) -> TrainingImages:
    """Random pixels, three more of them than images, in a random order."""
    generator = np.random.default_rng((seed, list(Modality).index(modality)))
    pixels = generator.integers(0, 256, (num_images + 3, *SIZE, 3), dtype=np.uint8)
    rows = generator.permutation(num_images + 3)[:num_images]
    return TrainingImages(pixels, rows, np.ones(num_images, dtype=np.int64), modality)


def unit_rows(num_rows: int, width: int, *, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random directions; the same ones in every type but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_rows, width, generator=generator, dtype=torch.float64)
    return functional.normalize(rows, dim=1).to(dtype)


@dataclass
class SmallTraining:
    """The arguments of an epoch; every instance has an encoder, an optimiser and memories of its own."""

    encoder: DualStemEncoder
    optimiser: torch.optim.Optimizer
    images: PerModality[TrainingImages]
    pixels: PerModality[PixelSupply]
    labels: PerModality[np.ndarray]
    memories: PerModality[PrototypeMemory]
    batches: CrossModalBatches
    text: TextLoss | None
    swap: CrossModalSwap | None
    device: torch.device
    dtype: torch.dtype
    update: Literal["momentum", "hard"] = "momentum"

    def views(self, change: Callable[[torch.Tensor], torch.Tensor] = lambda images: images) -> Views:
        """The random changes from their beginning, each followed by `change`."""
        made = training_views(
            recipe="cclnet_sysu", padding=4, normalisation="imagenet", generator=torch.Generator().manual_seed(5)
        )

        def view(transform: Transform) -> Transform:
            return lambda *batch: change(transform(*batch).to(self.dtype))

        return made.map(lambda transforms: tuple(view(transform) for transform in transforms))

    def plan(self, views: Views | None = None, extra_terms: Sequence[Term] = ()) -> tuple[Objective, EpochSteps]:
        """What an epoch minimises, and its steps."""
        objective = cluster_objective(
            self.labels,
            self.memories,
            temperature=0.05,
            update=memory_update(self.update, 0.1),
            swap=self.swap,
            text=self.text,
            extra_terms=extra_terms,
        )
        positions, groups = self.batches.positions, self.batches.clusters_per_batch
        return objective, EpochSteps(
            self.pixels, positions, views or self.views(), groups, "batches.images_per_cluster"
        )

    def train(
        self, views: Views | None = None, precision: Precision = "float32", extra_terms: Sequence[Term] = ()
    ) -> dict[str, float]:
        """One epoch."""
        compute = Compute(self.device, precision)
        return run_epoch(self.encoder, self.optimiser, *self.plan(views, extra_terms), compute)

    def run(self, plan: tuple[Objective, EpochSteps], precision: Precision = "float32") -> dict[str, torch.Tensor]:
        """The steps alone; sums of losses, where they are."""
        return run_steps(self.encoder.train(), self.optimiser, *plan, Compute(self.device, precision))


def small_training(
    clip: LoadedClip,
    *,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    with_text: bool = False,
    with_swap: bool = False,
    resident: bool = False,
    clusters_per_batch: int = 3,
    images_per_cluster: int = 4,
    learning_rate: float = 1e-4,
) -> SmallTraining:
    """Three steps over 30 visible and 24 infrared images, a tenth of which has no cluster; always the same numbers."""
    encoder = DualStemEncoder.from_clip(clip, image_height=SIZE[0], image_width=SIZE[1]).to(device, dtype)
    images = PerModality(random_images(30, Modality.VISIBLE), random_images(24, Modality.INFRARED))
    labels = images.map_with(
        lambda some, count: np.where(np.arange(len(some)) % 10 == 9, -1, np.arange(len(some)) % count), CLUSTERS
    )
    texts = PerModality.build(
        lambda modality: TextPrototypes(
            features=unit_rows(CLUSTERS[modality], encoder.projection_width, seed=7, dtype=dtype).to(device),
            labels=labels[modality].copy(),
            context=torch.zeros(CLUSTERS[modality], 1, 1),
            partners=np.full(CLUSTERS[modality], -1),
            confidence=np.zeros(CLUSTERS[modality], np.float32),
        )
    )
    supplies: PerModality[PixelSupply] = images.map(
        lambda some: ResidentPixels(some, device) if resident else StreamedPixels(some, device)
    )
    return SmallTraining(
        encoder=encoder,
        optimiser=build_image_optimiser(
            encoder,
            roles=WITH_TEXT if with_text else WITHOUT_TEXT,
            learning_rate=learning_rate,
            weight_decay=5e-4,
            bias_factor=2.0,
        ),
        images=images,
        pixels=supplies,
        labels=labels,
        memories=CLUSTERS.map(
            lambda count: PrototypeMemory(unit_rows(count, encoder.feature_width, seed=count, dtype=dtype).to(device))
        ),
        batches=cross_modal_batches(
            labels,
            clusters_per_batch=clusters_per_batch,
            images_per_cluster=images_per_cluster,
            generator=np.random.default_rng(3),
        ),
        text=TextLoss(texts, weight=0.5, smoothing=0.1) if with_text else None,
        swap=CrossModalSwap(min_similarity=-1.0) if with_swap else None,
        device=device,
        dtype=dtype,
    )


def weights_of(training: SmallTraining) -> dict[str, torch.Tensor]:
    """A copy of all weights and statistics."""
    return copy.deepcopy(training.encoder.state_dict())
