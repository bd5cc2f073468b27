"""CSDN (Yu et al., IEEE TMM 2025): supervised, with text prototypes of people."""

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from pipeline.config.csdn import CsdnConfig
from pipeline.config.experiment import Stage
from pipeline.methods.csdn.rounds import run_rounds
from pipeline.methods.csdn.stages import fuse_texts, learn_prompts, log_round, train
from pipeline.methods.csdn.state import CsdnRun, CsdnState
from pipeline.methods.spec import MethodSpec
from pipeline.methods.supervised import new_classifier, new_person_encoder
from pipeline.runs.stages import evaluate, finish
from pipeline.training.optimiser import build_person_optimiser


def new_encoder(config: CsdnConfig, clip: LoadedClip) -> DualStemEncoder:
    """CLIP's image tower with a stem for each modality and the heads of supervised training."""
    return new_person_encoder(config, clip, with_texts=config.with_texts)


def new_state(run: CsdnRun) -> CsdnState:
    """The data set's people, a fresh classifier of them, and no text prototypes."""
    people = run.supervision.people()
    return CsdnState(people, new_classifier(run, people))


def new_optimiser(
    config: CsdnConfig,
    encoder: DualStemEncoder,
    state: CsdnState,
    stage: Stage,  # noqa: ARG001 - others do
) -> torch.optim.Optimizer:
    """Adam over encoder and classifier, whose heads learn faster; text prototypes have optimisers of their own."""
    optimisation = config.optimisation
    return build_person_optimiser(
        encoder,
        [state.classifier],
        learning_rate=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        head_factor=optimisation.head_factor,
    )


CSDN = MethodSpec(
    config=CsdnConfig,
    supervised=True,
    rounds=run_rounds,
    stages=(learn_prompts, fuse_texts, train, evaluate, log_round, finish),
    new_encoder=new_encoder,
    new_state=new_state,
    new_optimiser=new_optimiser,
)
