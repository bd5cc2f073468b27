"""What each stage of a round takes at a data set's true size, and what that makes of a whole schedule.

The schedule is arithmetic over measured stages: nobody has run it. On a CPU only a part of each long stage is measured,
and the rest taken in proportion. Not among the stages: decoding images, MLflow, and what a flow does between them.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float32

from benchmarks.evaluation_inputs import draw_test_split
from benchmarks.training_inputs import SEED, Amount, Task
from benchmarks.training_sides import CASES, PLUS_CASES, Case, Engine, timed
from clustering.labelling import Labelling, label_images
from models.encoder import Head
from models.modality import Modality, PerModality
from models.text_tower import TextTower
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import Round, planned_rounds
from pipeline.config.labelling import ClusteringConfig, MatchingConfig
from pipeline.data.images import TestImages, TrainingImages
from pipeline.data.pixel_supply import PixelSupply
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.protocol import Samples
from pipeline.evaluation.protocols import protocol_of
from pipeline.evaluation.searches import plan_search
from pipeline.features import FeatureBank
from pipeline.methods.cclnet.clusters import label_modality, match_found
from pipeline.methods.cclnet.prompts import learn_prompts
from pipeline.methods.cclnet.state import CclnetState
from pipeline.reports.cluster_figures import draw_eps_curve
from pipeline.runtime import atomic_files as files
from pipeline.runtime.seeds import numpy_generator, torch_generator
from pipeline.training.state import TrainingState
from tests.reference.feature_sets import identity_features

WARM_UP = 500  # images that are labelled first, as in the clustering benchmark


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage takes.

    Args:
        seconds: Of all of it; in proportion, where a part was measured.
        measured: How much was measured, of `whole`.
        whole: How much there is.
        unit: Of what.
    """

    seconds: float
    measured: int
    whole: int
    unit: str

    @staticmethod
    def of(seconds: float, measured: int, whole: int, unit: str) -> "Stage":
        """Take the rest in proportion."""
        return Stage(seconds * whole / measured, measured, whole, unit)


def measure_round(
    engine: Engine, amount: Amount, schedules: Mapping[str, CclnetConfig] | None = None
) -> dict[str, Any]:
    """Every stage once, after a warm-up, and the schedule; also those of other settings, by name."""
    task, others = engine.task, schedules or {}
    configs = [task.config, *others.values()]
    cases = [case for case in (*CASES, *PLUS_CASES) if case in CASES or any(map(uses_unified_contrast, configs))]
    features = PerModality.build(lambda modality: drawn_features(task, modality, engine.encoder.feature_width))
    supply, moving = timed(engine.resident if engine.device.type == "cuda" else engine.streamed, engine.device)
    stages = {"move images": Stage(moving, sum(task.size.training), sum(task.size.training), "images")}
    stages["extract"] = extraction(engine, task.images, amount, supply)
    labelling, stages["label"] = labelled(engine, features)
    for config in configs:
        stages[matching_stage(config)] = matched(engine, features, labelling, config.matching)
    stages |= training(engine, amount, supply, cases)
    stages["record"] = recorded(engine, labelling)
    stages["prompt features"] = extraction(engine, task.images, amount, supply, Head.PROJECTION)
    stages |= prompts(engine, amount)
    stages["evaluate: extract"] = extraction(engine, task.test_images(), amount)
    stages["evaluate: rank"] = ranked(engine.device)
    seconds = {name: stage.seconds for name, stage in stages.items()}
    return {
        "stages": {name: asdict(stage) for name, stage in stages.items()},
        "round_seconds": {case.name: round_seconds(seconds, case, task.config) for case in cases},
        "evaluation_seconds": evaluation_seconds(seconds),
        "projected": projected(task.config, seconds),
        "schedules": {name: projected(config, seconds) for name, config in others.items()},
        "clusters": [found.clustering.num_clusters for found in labelling],
    }


def drawn_features(task: Task, modality: Modality, width: int) -> Float32[np.ndarray, "n d"]:
    """Unit rows that cluster: an untrained network's do not."""
    seed = SEED + (modality is Modality.INFRARED)
    return identity_features(task.size.training[modality], task.size.people, width, seed=seed)


def extraction(
    engine: Engine,
    images: PerModality[TrainingImages] | PerModality[TestImages],
    amount: Amount,
    supply: PerModality[PixelSupply] | None = None,
    head: Head = Head.NECK,
) -> Stage:
    """Encode both modalities."""
    chosen = images.map(lambda some: replace(some, rows=some.rows[: amount.round_images]))
    for _ in range(2 if amount.warm_up else 1):
        seconds = chosen.map_with(
            lambda some, pixels: engine.extract(some, pixels, head)[1], supply or PerModality(None, None)
        )
    return Stage.of(sum(seconds), sum(map(len, chosen)), sum(map(len, images)), "images")


def labelled(engine: Engine, features: PerModality[Float32[np.ndarray, "n d"]]) -> tuple[PerModality[Labelling], Stage]:
    """Cluster both modalities."""
    settings = engine.task.config.labelling

    def label(vectors: Float32[np.ndarray, "n d"], modality: Modality, own: ClusteringConfig) -> Labelling:
        return label_modality(FeatureBank(vectors, modality), own, engine.device)

    label_images(features.visible[:WARM_UP], device=str(engine.device))
    found, seconds = timed(
        lambda: features.map_with(
            label, PerModality.build(lambda modality: modality), PerModality(settings.visible, settings.infrared)
        ),
        engine.device,
    )
    count = sum(map(len, features))
    return found, Stage(seconds, count, count, "images")


def matched(
    engine: Engine,
    features: PerModality[Float32[np.ndarray, "n d"]],
    labelling: PerModality[Labelling],
    settings: MatchingConfig,
) -> Stage:
    """Average and pair clusters."""
    count = sum(found.clustering.num_clusters for found in labelling)
    _, seconds = timed(lambda: match_found(features, labelling, settings), engine.device)
    return Stage(seconds, count, count, "clusters")


def training(
    engine: Engine, amount: Amount, supply: PerModality[PixelSupply], cases: Sequence[Case]
) -> dict[str, Stage]:
    """An epoch of each kind."""
    whole = len(engine.task.batches)
    steps = amount.round_steps or whole
    stages = {}
    for case in cases:
        if amount.warm_up:
            engine.train(case, amount.warm_up, supply)
        stages[f"train, {case.name}"] = Stage.of(engine.train(case, steps, supply), steps, whole, "steps")
    return stages


def recorded(engine: Engine, labelling: PerModality[Labelling]) -> Stage:
    """Write checkpoint and, with matplotlib, figure."""
    state = TrainingState(engine.encoder, engine.optimisers[True], CclnetState(), "clip")
    settings = engine.task.config.labelling
    curves = labelling.map(lambda found: found.curve)

    def checkpoint(file: BinaryIO) -> None:
        torch.save(state.to_checkpoint(), file)

    with_figure = find_spec("matplotlib") is not None
    figure = partial(draw_eps_curve, curves, PerModality(settings.visible.eps, settings.infrared.eps), "round")
    with tempfile.TemporaryDirectory() as folder:

        def write() -> None:
            files.replace_file(Path(folder, "checkpoint.pt"), checkpoint, archive=True)
            if with_figure:
                files.replace_file(Path(folder, "curve.png"), figure)

        return Stage(timed(write, engine.device)[1], 1, 1, "checkpoint")


def prompts(engine: Engine, amount: Amount) -> dict[str, Stage]:
    """Learn prompts for one epoch and for some: the difference is what epochs take, the rest is done once."""
    task, config = engine.task, engine.task.config.prompts
    count = amount.round_images or max(task.size.training)
    more = 1 if amount.round_images else 3
    tower = TextTower.from_clip(task.clip).to(engine.device)
    labels = task.labels.map(lambda found: found.labels[:count])
    generator = torch_generator(SEED, "features")
    features = labels.map(lambda some: torch.randn(len(some), tower.embed_dim, generator=generator).to(engine.device))

    def learn(epochs: int) -> float:
        return timed(
            lambda: learn_prompts(
                features,
                labels,
                tower,
                num_context=config.num_context,
                epochs=epochs,
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                warmup_epochs=config.warmup_epochs,
                weight_decay=config.weight_decay,
                previous=None,
                init_generator=lambda modality: torch_generator(SEED, "prompts", modality),
                batch_generator=lambda epoch: numpy_generator(SEED, "prompts", epoch),
            ),
            engine.device,
        )[1]

    learn(1)
    once = learn(1)
    epoch = (learn(1 + more) - once) / more
    steps, whole = (-(-max(images) // config.batch_size) for images in (labels.map(len), task.size.training))
    return {
        "prompts, an epoch": Stage.of(epoch, steps, whole, "steps"),
        "prompts, once": Stage(max(0.0, once - epoch), 1, 1, "reading"),
    }


def ranked(device: torch.device) -> Stage:
    """Rank SYSU-MM01's test images in all published searches, ten galleries each; on the CPU."""
    split = PerModality(*draw_test_split(numpy_generator(SEED, "test split")))
    samples = split.map(lambda images: Samples(images.people, images.cameras))
    banks = PerModality.build(lambda modality: FeatureBank(split[modality].features, modality))
    plans = [plan for search in protocol_of("sysu").options.searches for plan in plan_search(search, samples)]
    evaluate_features(banks, samples, plans)
    _, seconds = timed(lambda: evaluate_features(banks, samples, plans), device)
    return Stage(seconds, len(plans), len(plans), "searches")


def matching_stage(config: CclnetConfig) -> str:
    """Under which the pairing of clusters is recorded."""
    return f"match, {config.matching.method}"


def round_seconds(seconds: dict[str, float], case: Case, config: CclnetConfig) -> float:
    """A round without evaluation."""
    names = ("extract", "label", matching_stage(config), f"train, {case.name}", "record")
    return sum(seconds[name] for name in names)


def evaluation_seconds(seconds: dict[str, float]) -> float:
    """Encode and rank test images."""
    return seconds["evaluate: extract"] + seconds["evaluate: rank"]


def projected(config: CclnetConfig, seconds: dict[str, float]) -> dict[str, float]:
    """Seconds of a whole run, and of its parts; prompts are learned once."""
    rounds = planned_rounds(config)
    trained = [round_seconds(seconds, case_of(config, round_), config) for round_ in rounds]
    measured = sum(evaluation_due(config, round_) for round_ in rounds)
    learning = seconds["prompts, once"] + config.prompts.epochs * seconds["prompts, an epoch"]
    parts = {
        "move images": seconds["move images"],
        f"{len(rounds)} rounds": sum(trained),
        "prompts": learning + seconds["prompt features"],
        f"{measured} evaluations": measured * evaluation_seconds(seconds),
    }
    return parts | {"total": sum(parts.values())}


def case_of(config: CclnetConfig, round_: Round) -> Case:
    """What a round of the schedule trains with."""
    return Case(
        text=round_.stage == "clip",
        swap=config.swap.mode != "off" and round_.epoch >= config.swap.start,
        unified=uses_unified_contrast(config) and round_.epoch >= config.loss.start,
    )


def uses_unified_contrast(config: CclnetConfig) -> bool:
    """Whether some rounds contrast with both memories joined."""
    return config.loss.contrast == "unified"


def evaluation_due(config: CclnetConfig, round_: Round) -> bool:
    """Whether a round is measured, as `Run.evaluation_due` has it."""
    return round_.last_of_stage or round_.epoch % config.evaluation.every == 0
