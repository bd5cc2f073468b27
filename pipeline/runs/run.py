"""An opened run, which the stages of a round work on. It contains no identity outside `evaluator` and `supervision`."""

import logging
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64
from numpy import ndarray

from models.batch_norm import synchronise_batch_norms
from models.clip import LoadedClip
from models.encoder import DualStemEncoder, Head
from models.modality import PerModality
from models.text_tower import TextTower
from pipeline.config.experiment import AnyConfig, Round, Stage, planned_rounds
from pipeline.data.images import TestImages, TrainingImages
from pipeline.data.pixel_supply import PixelSupply, supply_pixels
from pipeline.errors import CheckpointError
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank, extract_features
from pipeline.runs.record import RunRecord
from pipeline.runtime.device import resolve_precision
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.training.state import MethodState, TrainingState, restore_state

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=AnyConfig)
State = TypeVar("State", bound=MethodState)


class RoundClock:
    """Wall time of a round, and of its stages."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds towards a stage."""
        self._stages[stage] = self._stages.get(stage, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """`total`: wall time since the round began or the round before was recorded; then the seconds of each stage."""
        return {"total": time.perf_counter() - self._start} | self._stages


class Run(Generic[Config, State]):
    """State and resources of an opened run; only `state`, `round`, `clock` and `heading` change from round to round.

    `images` are the training images, shuffled once, without identities. `evaluator` knows identities and returns
    numbers; it exists on rank 0 only. `supervision` contains the people of a supervised method, else None. `state` is
    that after the last finished round; `round` is in training, and `clock` measures its seconds. `heading` is that of
    the last row in the terminal's table of rounds.
    """

    def __init__(
        self,
        method: "Method[Config, State]",
        config: Config,
        images: PerModality[TrainingImages],
        clip: LoadedClip,
        device: torch.device,
        processes: Processes,
        *,
        record: RunRecord | None,
        evaluator: "Evaluator | None",
        supervision: Any = None,
    ) -> None:
        self.method = method
        self.config = config
        self.images = images
        self.clip = clip
        self.device = device
        self.processes = processes
        self.precision = resolve_precision(config.execution.precision, device)
        self.supervision = supervision
        self.rounds = planned_rounds(config)
        self.clock = RoundClock()
        self.heading = ""
        self._record = record
        self._evaluator = evaluator
        # Ranks other than 0 have no folder: they may be on a machine that does not see it.
        checkpoint = processes.from_rank_zero(lambda: self.record.folder.load_checkpoint())
        self.state = self._state_at(checkpoint)
        self.round = self.rounds[max(0, self.state.completed - 1)]
        if checkpoint is not None:
            logger.info("resumed after round %d of %d", self.state.completed, len(self.rounds))

    @property
    def record(self) -> RunRecord:
        """The run's folder and tracker; rank 0 only."""
        assert self._record is not None, "ranks other than 0 write nothing"
        return self._record

    @property
    def evaluator(self) -> "Evaluator":
        """Measures and diagnoses; rank 0 only."""
        assert self._evaluator is not None, "ranks other than 0 evaluate nothing"
        return self._evaluator

    @cached_property
    def training_pixels(self) -> PerModality[PixelSupply]:
        """The pixels of the training images, on the device if they fit."""
        return supply_pixels(self.images, self.device, memory_share=self.config.execution.image_memory_share)

    @cached_property
    def text_tower(self) -> TextTower:
        """CLIP's frozen text encoder, built when text is first encoded."""
        return TextTower.from_clip(self.clip).to(self.device)

    def rounds_left(self) -> Iterator[Round]:
        """Every round after the last finished one; `round` and `clock` are those of the round that is yielded."""
        for round_ in self.rounds[self.state.completed :]:
            self.round, self.clock = round_, RoundClock()
            yield round_

    def evaluation_due(self) -> bool:
        """Whether this rank evaluates after this round: rank 0, if there are images for evaluation."""
        if self._evaluator is None or not self._evaluator.can_evaluate:
            return False
        round_ = self.round
        due = round_.last_of_stage or round_.epoch % self.config.evaluation.every == 0
        return due and round_.trains_images

    def new_encoder(self) -> DualStemEncoder:
        """The initial encoder of the method, bit for bit the same each time."""
        encoder = self.method.new_encoder(self.config, self.clip).to(self.device)
        if self.processes.count > 1 and self.config.batches.batch_norm == "synchronised":
            synchronise_batch_norms(encoder, self.device)
        if self.config.execution.compile:
            encoder.compile_network()
        return encoder

    def new_optimiser(self, stage: Stage) -> torch.optim.Optimizer:
        """A fresh optimiser of a stage, for the current encoder."""
        return self.method.new_optimiser(self.config, self.state.encoder, self.state.method, stage)

    def extract_training_features(self, head: Head, encoder: DualStemEncoder | None = None) -> PerModality[FeatureBank]:
        """Encode all training images, in their shuffled order; every rank gets all features."""
        return self.images.map_with(
            lambda images, pixels: self._extract(
                encoder or self.state.encoder, images, (head,), f"encode {images.modality}", pixels, self.processes
            ),
            self.training_pixels,
        )

    def extract_held_out_features(
        self, images: PerModality[TestImages], encoder: DualStemEncoder | None = None
    ) -> PerModality[FeatureBank]:
        """Encode all test or validation images once, in the data set's order, on this rank alone."""
        heads = tuple(Head(name) for name in self.config.evaluation.heads)
        return images.map(
            lambda some: self._extract(encoder or self.state.encoder, some, heads, f"encode {some.modality} held out")
        )

    def _state_at(self, checkpoint: Mapping[str, Any] | None) -> TrainingState[State]:
        encoder, own = self.new_encoder(), self.method.new_state(self)

        def new_optimiser(stage: Stage) -> torch.optim.Optimizer:
            return self.method.new_optimiser(self.config, encoder, own, stage)

        if checkpoint is None:
            return TrainingState(encoder, new_optimiser(self.rounds[0].stage), own, self.rounds[0].stage)
        stages = {round_.stage for round_ in self.rounds}
        if checkpoint.get("stage") not in stages:
            raise CheckpointError(
                f"the checkpoint is of stage {checkpoint.get('stage')!r:.40}, the run has {', '.join(sorted(stages))}",
                hint="restore it from a copy, or start a new run",
            )
        state = restore_state(checkpoint, encoder, own, new_optimiser, self.device)
        state.completed = min(state.completed, len(self.rounds))
        return state

    def _extract(
        self,
        encoder: DualStemEncoder,
        images: TrainingImages | TestImages,
        heads: tuple[Head, ...],
        description: str,
        pixels: PixelSupply | None = None,
        processes: Processes = ALONE,
    ) -> FeatureBank:
        batch_size = self.config.execution.extraction_batch_size or (64 if self.device.type == "cpu" else 512)
        return extract_features(
            encoder,
            images,
            heads=heads,
            batch_size=batch_size,
            device=self.device,
            normalisation=self.config.images.normalisation,
            flip=self.config.evaluation.flip if isinstance(images, TestImages) else "none",
            description=description,
            pixels=pixels,
            precision=self.precision,
            processes=processes,
        )


@runtime_checkable
class Method(Protocol[Config, State]):
    """Constructors of a method's network, memory and optimiser; `pipeline.methods.spec.MethodSpec` is one."""

    @property
    def name(self) -> str:
        """Name in settings."""

    @property
    def supervised(self) -> bool:
        """Whether it gets the people of the training images."""

    def new_encoder(self, config: Config, clip: LoadedClip) -> DualStemEncoder:
        """The initial encoder, on the CPU."""

    def new_state(self, run: Run[Config, State]) -> State:
        """The method's state before the first round."""

    def new_optimiser(
        self, config: Config, encoder: DualStemEncoder, state: State, stage: Stage
    ) -> torch.optim.Optimizer:
        """A fresh optimiser of a stage."""


@runtime_checkable
class Evaluator(Protocol):
    """The only part of a run that contains true identities. It returns numbers, reports and figures."""

    @property
    def headline_search(self) -> str | None:
        """The search shown in the table of rounds; None without test images."""

    @property
    def can_evaluate(self) -> bool:
        """Whether the data set has images for evaluation."""

    @property
    def training_paths(self) -> PerModality[tuple[str, ...]]:
        """The path of each training image in the shuffled order, for label files."""

    def evaluate(self, run: Run[Any, Any]) -> EvaluationReport:
        """Run every search with the current encoder; plot some queries."""

    def evaluate_result(self, run: Run[Any, Any], last: EvaluationReport) -> EvaluationReport:
        """The report of the round that a score selected as the result."""

    def diagnose(
        self, labels: PerModality[Int64[ndarray, " _"]], pairs: PerModality[Int64[ndarray, " pairs"]]
    ) -> dict[str, float]:
        """Quality of pseudo-labels and cluster pairs, if the people of all training images are known."""
