"""An opened run: configuration, folder, images, network and state, held together for the stages."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clustering.dbscan import PseudoLabels
from clustering.labelling import Labelling
from models.batch_norm import synchronise_batch_norms
from models.clip import LoadedClip
from models.encoder import DualStemEncoder, Head
from models.modality import PerModality
from models.text_tower import TextTower
from pipeline import round_table
from pipeline.config import ExperimentConfig
from pipeline.data.dataset import Dataset
from pipeline.data.images import TestImages, TrainingImages
from pipeline.data.pixel_supply import PixelSupply, supply_pixels
from pipeline.device import resolve_precision
from pipeline.environment import peak_memory
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank, extract_features
from pipeline.processes import ALONE, Processes
from pipeline.run_images import RunImages
from pipeline.run_record import RunRecord
from pipeline.search_plan import plan_test
from pipeline.training.labelling import label_modality, pack_labelling, unpack_labelling
from pipeline.training.optimisation import build_image_optimiser, set_learning_rate
from pipeline.training.rounds import Round, Stage, plan_rounds
from pipeline.training.schedule import learning_rate_of, starts_anew
from pipeline.training.state import TextPrototypes, TrainingState, pack_texts, restore_state, unpack_texts

logger = logging.getLogger(__name__)


class Run:
    """What the stages of a round work on; `state` is the only part that changes from round to round."""

    def __init__(
        self,
        config: ExperimentConfig,
        dataset: Dataset,
        images: RunImages,
        clip: LoadedClip,
        device: torch.device,
        record: RunRecord | None,
        processes: Processes,
    ) -> None:
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
        encoder = self.new_encoder()
        if checkpoint is None:
            self.state = TrainingState(encoder, self._new_optimiser(encoder, "prepare"))
        else:
            self.state = restore_state(checkpoint, encoder, lambda stage: self._new_optimiser(encoder, stage), device)
            logger.info("going on after round %d of %d", self.state.completed, len(self.rounds))

    @cached_property
    def training_pixels(self) -> PerModality[PixelSupply]:
        """The pixels of the training images, on the device if they fit there."""
        share = self.config.execution.image_memory_share
        return supply_pixels(self.images.training, self.device, memory_share=share)

    @cached_property
    def rounds(self) -> tuple[Round, ...]:
        """All rounds of the run, finished or not."""
        return plan_rounds(self.config.stages.prepare_rounds, self.config.stages.clip_rounds)

    @cached_property
    def text_tower(self) -> TextTower:
        """The frozen text encoder, built when prompts are first learned."""
        return TextTower.from_clip(self.clip).to(self.device)

    def rounds_left(self) -> Iterator[Round]:
        """Every round after the last finished one; a stage that begins with it is set up before it is handed out."""
        left = self.rounds[self.state.completed :]
        if left:
            logger.info(round_table.header())
        for round_ in left:
            self.seconds = {}
            self._enter(round_)
            yield round_

    def last_round(self) -> Round:
        """The last finished round."""
        return self.rounds[self.state.completed - 1]

    def prompts_due(self, round_: Round) -> bool:
        """Whether prompts are learned in this round: at the start of stage `clip`, and where a refresh is asked for."""
        prompts = self.config.prompts
        if round_.stage != "clip" or prompts.text_weight == 0 or self.state.text_round == round_.number:
            return False
        refresh = prompts.refresh_every is not None and (round_.epoch - 1) % prompts.refresh_every == 0
        return round_.epoch == 1 or refresh

    def evaluation_due(self, round_: Round) -> bool:
        """Whether retrieval is measured after this round: never where the data set names no images for it."""
        if self.images.test is None and self.images.validation is None:
            return False
        return round_.last_of_stage or round_.epoch % self.config.evaluation.every == 0

    def text_prototypes(self, round_: Round) -> PerModality[TextPrototypes] | None:
        """The texts that images are compared with in this round; none in stage `prepare`."""
        return self.state.text if round_.stage == "clip" else None

    def new_encoder(self) -> DualStemEncoder:
        """An encoder with CLIP's weights, bit for bit the same each time."""
        images = self.config.images
        encoder = DualStemEncoder.from_clip(self.clip, image_height=images.height, image_width=images.width)
        encoder.to(self.device)
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

    def prompt_features(self, initial: bool) -> PerModality[Float[Tensor, "n embed"]]:
        """Projected features that prompts are learned on, of the stage's initial encoder or of the current one."""
        encoder = self.new_encoder() if initial and not self.config.stages.carry_over else None
        banks = self.extract_training_features(Head.PROJECTION, encoder)
        return banks.map(lambda bank: torch.from_numpy(bank.vectors).to(self.device))

    def text_from_first(self, learn: Callable[[], PerModality[TextPrototypes]]) -> PerModality[TextPrototypes] | None:
        """Texts that the first process learns and the others are told."""
        return unpack_texts(self.processes.from_first(lambda: pack_texts(learn())), self.device)

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

    def finish_round(
        self, round_: Round, row: dict[str, Any], labels: PerModality[PseudoLabels], report: EvaluationReport | None
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

    def _enter(self, round_: Round) -> None:
        """Give the encoder a new stage's starting weights, and the optimiser this round's learning rate."""
        state = self.state
        if round_.stage != state.stage:
            if self.config.stages.label_export == "after_training":
                state.exported = self._label_for_export()
            if not self.config.stages.carry_over:
                state.encoder = self.new_encoder()
            state.stage = round_.stage
            state.optimiser = self._new_optimiser(state.encoder, round_.stage)
        schedule = (self.config.optimisation, self.config.swap)
        if starts_anew(round_, *schedule):
            state.optimiser = self._new_optimiser(state.encoder, round_.stage)
        set_learning_rate(state.optimiser, learning_rate_of(round_, *schedule))

    def label(self, features: PerModality[FeatureBank]) -> PerModality[Labelling]:
        """Cluster each modality alone, on the first process and its device."""
        settings = PerModality(self.config.labelling.visible, self.config.labelling.infrared)
        found = features.map_with(
            lambda bank, own: unpack_labelling(
                self.processes.from_first(lambda: pack_labelling(label_modality(bank, own, self.device)))
            ),
            settings,
        )
        self.search = found.visible.search
        return found

    def _label_for_export(self) -> PerModality[PseudoLabels]:
        """Cluster once more with the final weights of stage `prepare`."""
        found = self.label(self.extract_training_features(Head.NECK))
        previous = self.state.exported
        assert previous is not None
        return found.map_with(lambda new, old: new.labels if new.labels.num_clusters else old, previous)

    def _new_optimiser(self, encoder: DualStemEncoder, stage: Stage) -> torch.optim.Optimizer:
        optimisation = self.config.optimisation
        roles = {"stem", "trunk", "neck"} | (
            {"attention_pool"} if stage == "clip" and self.config.prompts.text_weight > 0 else set()
        )
        return build_image_optimiser(
            encoder,
            roles=frozenset(roles),
            learning_rate=optimisation.learning_rate,
            weight_decay=optimisation.weight_decay,
            bias_factor=optimisation.bias_factor,
        )

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
