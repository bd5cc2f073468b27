"""An opened run: configuration, folder, images, network and state, held together for the stages."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch

from clustering.dbscan import PseudoLabels
from models.batch_norm import synchronise_batch_norms
from models.clip import LoadedClip
from models.encoder import DualStemEncoder, Head
from models.modality import PerModality
from models.text_tower import TextTower
from pipeline.config.experiment import AnyConfig
from pipeline.config.rounds import Round, Stage, planned_rounds
from pipeline.data.dataset import Dataset
from pipeline.data.images import TestImages, TrainingImages
from pipeline.data.pixel_supply import PixelSupply, supply_pixels
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank, extract_features
from pipeline.reports import round_table
from pipeline.runs.images import RunImages
from pipeline.runs.record import RunRecord
from pipeline.runs.search_plan import plan_test
from pipeline.runtime.device import resolve_precision
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.runtime.environment import peak_memory
from pipeline.training.state import Own, TrainingState, restore_state

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=AnyConfig)


class Run(Generic[Config, Own]):
    """What the stages of a round work on; `state` is the only part that changes from round to round."""

    def __init__(
        self,
        method: "Method[Config, Own]",
        config: Config,
        dataset: Dataset,
        images: RunImages,
        clip: LoadedClip,
        device: torch.device,
        record: RunRecord | None,
        processes: Processes,
    ) -> None:
        self.method = method
        self.config = config
        self.dataset = dataset
        self.images = images
        self.clip = clip
        self.device = device
        self.processes = processes
        self.precision = resolve_precision(config.execution.precision, device)
        self.seconds: dict[str, float] = {}
        self.search = ""
        self._record = record
        # A process that follows has no folder: it may be on a machine that does not see it.
        checkpoint = processes.from_first(lambda: self.record.folder.load_checkpoint())
        self.rounds = planned_rounds(config)
        encoder = self.new_encoder()

        def build_optimiser(own: Own, stage: Stage) -> torch.optim.Optimizer:
            return method.new_optimiser(config, encoder, own, stage)

        if checkpoint is None:
            own, stage = method.new_state(self), self.rounds[0].stage
            self.state = TrainingState(encoder, build_optimiser(own, stage), own, stage)
        else:
            self.state = restore_state(
                checkpoint, encoder, lambda packed: method.restore_state(self, packed), build_optimiser
            )
            logger.info("going on after round %d of %d", self.state.completed, len(self.rounds))

    @cached_property
    def training_pixels(self) -> PerModality[PixelSupply]:
        """The pixels of the training images, on the device if they fit there."""
        share = self.config.execution.image_memory_share
        return supply_pixels(self.images.training, self.device, memory_share=share)

    def rounds_left(self) -> Iterator[Round]:
        """Every round after the last finished one; a stage that begins with it is set up before it is handed out."""
        left = self.rounds[self.state.completed :]
        if left:
            logger.info(round_table.header())
        for round_ in left:
            self.seconds = {}
            self.method.enter(self, round_)
            yield round_

    def last_round(self) -> Round:
        """The last finished round."""
        return self.rounds[self.state.completed - 1]

    def evaluation_due(self, round_: Round) -> bool:
        """Whether retrieval is measured after this round: never where the data set names no images for it."""
        if self.images.test is None and self.images.validation is None:
            return False
        due = round_.last_of_stage or round_.epoch % self.config.evaluation.every == 0
        return due and round_.trains_images

    def new_encoder(self) -> DualStemEncoder:
        """The encoder that the method starts from, bit for bit the same each time."""
        encoder = self.method.new_encoder(self.config, self.clip).to(self.device)
        if self.processes.count > 1 and self.config.batches.batch_norm == "synchronised":
            synchronise_batch_norms(encoder, self.device)
        if self.config.execution.compile:
            encoder.compile_network()
        return encoder

    def extract_training_features(self, head: Head, encoder: DualStemEncoder | None = None) -> PerModality[FeatureBank]:
        """Encode all training images, in their shuffled order; every process gets all features."""
        return self.images.training.map_with(
            lambda images, pixels: self._extract(
                encoder or self.state.encoder, images, (head,), f"encode {images.modality}", pixels, self.processes
            ),
            self.training_pixels,
        )

    def extract_held_out_features(
        self, images: PerModality[TestImages], encoder: DualStemEncoder | None = None
    ) -> PerModality[FeatureBank]:
        """Encode all test or validation images once, in the data set's order, on this process alone."""
        heads = tuple(Head(name) for name in self.config.evaluation.heads)
        return images.map(
            lambda some: self._extract(encoder or self.state.encoder, some, heads, f"encode {some.modality} held out")
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to the round's seconds of `stage`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    @property
    def record(self) -> RunRecord:
        """What the run leaves on disk and in MLflow."""
        assert self._record is not None, "a process that follows writes nothing"
        return self._record

    def save(self) -> None:
        """Write the checkpoint, all or nothing, where this process is the one that writes."""
        if self._record is not None:
            self._record.save(self.state)

    @cached_property
    def text_tower(self) -> TextTower:
        """CLIP's frozen text encoder, built when texts are first encoded."""
        return TextTower.from_clip(self.clip).to(self.device)

    def finish_round(
        self,
        round_: Round,
        row: dict[str, Any],
        labels: PerModality[PseudoLabels] | None,
        report: EvaluationReport | None,
    ) -> None:
        """Write what the round leaves behind; it counts as finished once the checkpoint is in place."""
        spent = {"total": sum(self.seconds.values())} | self.seconds
        seconds = {f"seconds/{stage}": value for stage, value in spent.items()}
        self.state.metrics.append(row)
        self.state.timings.append({"search": self.search} | seconds | peak_memory())
        self.state.completed = round_.number
        self.record.finish_round(self.state, labels, report)
        logger.info(round_table.line(row, spent["total"], self.headline_search))

    @cached_property
    def headline_search(self) -> str | None:
        """The search whose numbers stand in the table of rounds."""
        if self.images.test is None:
            return None
        return plan_test(self.dataset, self.config, final=False)[0][0].search.name

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
class Method(Protocol[Config, Own]):
    """What a run leaves to its method: what is trained in a stage, and what is remembered."""

    def new_encoder(self, config: Config, clip: LoadedClip) -> DualStemEncoder:
        """The encoder that training starts from, on the CPU."""
        ...

    def new_state(self, run: Run[Config, Own]) -> Own:
        """What the method remembers before the first round."""
        ...

    def restore_state(self, run: Run[Config, Own], packed: Mapping[str, Any]) -> Own:
        """What it had packed into a checkpoint."""
        ...

    def new_optimiser(self, config: Config, encoder: DualStemEncoder, own: Own, stage: Stage) -> torch.optim.Optimizer:
        """A fresh optimiser of what is trained in a stage."""
        ...

    def enter(self, run: Run[Config, Own], round_: Round) -> None:
        """Set up a round: a new stage's starting weights, the round's learning rate."""
        ...
