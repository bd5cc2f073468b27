"""A supervised method in one file: a classifier on the fixed encoder, then both together with a triplet loss."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel

from models.person_heads import PersonClassifier
from pipeline.config.shared import (
    STRICT,
    DataConfig,
    EvaluationConfig,
    ExecutionConfig,
    ImagesConfig,
    ModelConfig,
    PersonAugmentationConfig,
    PersonBatchesConfig,
    PersonNetworkConfig,
    PersonOptimisationConfig,
)
from pipeline.data.supervision import PersonLabels
from pipeline.methods.spec import MethodSpec
from pipeline.methods.supervised import (
    new_classifier,
    new_person_encoder,
    people_on_device,
    person_batches,
    person_terms,
    record,
    train_epoch_on_people,
)
from pipeline.runs.stages import complete_round, evaluate, finish, stage
from pipeline.runtime.seeds import numpy_generator


class ToyStagesConfig(BaseModel):
    """How long each stage is."""

    model_config = STRICT

    head_rounds: int = 1
    """Epochs that train the classifier alone."""
    joint_rounds: int = 1
    """Epochs that train everything."""


class ToyConfig(BaseModel):
    """The settings: sections of other methods, and one of its own."""

    model_config = STRICT
    flow: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy"
    demo_preset: ClassVar[str] = "toy-demo"
    summary: ClassVar[str] = "with identities"

    method: Literal["toy"] = "toy"
    name: str = "toy"
    seed: int = 1
    data: DataConfig = DataConfig()
    images: ImagesConfig = ImagesConfig()
    model: ModelConfig = ModelConfig()
    network: PersonNetworkConfig = PersonNetworkConfig()
    stages: ToyStagesConfig = ToyStagesConfig()
    batches: PersonBatchesConfig = PersonBatchesConfig()
    augmentation: PersonAugmentationConfig = PersonAugmentationConfig()
    optimisation: PersonOptimisationConfig = PersonOptimisationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @property
    def stage_lengths(self):
        """Stages in order: name, number of rounds, whether images are trained on."""
        return ("head", self.stages.head_rounds, True), ("joint", self.stages.joint_rounds, True)


@dataclass(slots=True)
class ToyState:
    """What the method remembers besides the encoder; `people` come from the data set again."""

    people: PersonLabels
    classifier: PersonClassifier

    def pack(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"classifier": self.classifier.state_dict()}

    def fill(self, packed, _device) -> None:
        """Take it over from a checkpoint."""
        self.classifier.load_state_dict(packed["classifier"])


def new_encoder(config, clip):
    return new_person_encoder(config, clip, with_texts=False)


def new_state(run):
    people = run.supervision.people()
    return ToyState(people, new_classifier(run, people))


def new_optimiser(config, encoder, state, stage):
    """Stage `head` trains the classifier alone, stage `joint` everything."""
    trained = [state.classifier] if stage == "head" else [encoder, state.classifier]
    weights = [one for part in trained for one in part.parameters()]
    return torch.optim.Adam(weights, lr=config.optimisation.learning_rate)


@stage(uses_device=True)
def begin_stage(run):
    """A new optimiser, of what the stage trains."""
    run.state.stage = run.round.stage
    run.state.optimiser = run.new_optimiser(run.round.stage)


@stage(uses_device=True)
def train(run):
    """One epoch; the triplet loss comes in stage `joint`."""
    terms = person_terms(
        people_on_device(run),
        run.state.method.classifier.train(),
        gap_weight=0.0,
        triplet_weight=1.0 if run.round.stage == "joint" else 0.0,
        triplet_softmax="stable",
    )
    batches = person_batches(run, numpy_generator(run.config.seed, "train", run.round.number, "batches"))
    return train_epoch_on_people(run, batches, terms)


@stage(ends_round=True)
def log_round(run, losses, report):
    """From here on the round counts."""
    complete_round(run, report)
    record(run, losses, report)


def run_rounds(run):
    """From the last finished round to the end."""
    for round_ in run.rounds_left():
        if round_.first_of_stage and round_.number > 1:
            begin_stage(run)
        losses = train(run)
        report = evaluate(run) if run.evaluation_due() else None
        log_round(run, losses, report)
    return finish(run)


TOY = MethodSpec(
    config=ToyConfig,
    supervised=True,
    rounds=run_rounds,
    stages=(begin_stage, train, evaluate, log_round, finish),
    new_encoder=new_encoder,
    new_state=new_state,
    new_optimiser=new_optimiser,
)
