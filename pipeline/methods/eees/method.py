"""EEES (Dong et al., arXiv 2412.08406), as reconstructed here: supervised, with a caption beside each image."""

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder, encoder_widths
from models.fusion import PairViewFusion, build_view_fusion, drawn_linear
from models.text_tower import TextTower
from pipeline.config.eees import EeesConfig
from pipeline.config.experiment import Stage
from pipeline.errors import ConfigError
from pipeline.methods.eees.objective import fuses, reads_captions
from pipeline.methods.eees.rounds import run_rounds
from pipeline.methods.eees.stages import encode_captions, log_round, train
from pipeline.methods.eees.state import EeesRun, EeesState
from pipeline.methods.spec import MethodSpec
from pipeline.methods.supervised import new_classifier, new_person_encoder
from pipeline.runs.stages import evaluate, finish
from pipeline.runtime.seeds import torch_generator
from pipeline.training.optimiser import build_person_optimiser


def new_encoder(config: EeesConfig, clip: LoadedClip) -> DualStemEncoder:
    """CLIP's image tower with a stem for each modality and the heads of supervised training."""
    return new_person_encoder(config, clip, with_texts=reads_captions(config.semantics))


def new_state(run: EeesRun) -> EeesState:
    """The data set's people, and fresh weights of the heads that the losses need."""
    people = run.supervision.people()
    terms, generator = run.config.semantics, torch_generator(run.config.seed, "init", "pooled map")
    pooled, tuned = terms.alignment_feature == "pooled", run.config.text.tower == "tuned" and reads_captions(terms)
    return EeesState(
        people=people,
        classifier=new_classifier(run, people),
        fusion=_new_fusion(run) if fuses(terms) else None,
        pooled_map=drawn_linear(*encoder_widths(run.clip), generator).to(run.device) if pooled else None,
        tower=TextTower.from_clip(run.clip).requires_grad_(True).to(run.device) if tuned else None,
    )


def new_optimiser(
    config: EeesConfig,
    encoder: DualStemEncoder,
    state: EeesState,
    stage: Stage,  # noqa: ARG001 - others do
) -> torch.optim.Optimizer:
    """Adam over encoder and heads, which learn faster; a tuned text tower has a learning rate of its own."""
    optimisation = config.optimisation
    return build_person_optimiser(
        encoder,
        state.heads,
        learning_rate=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        head_factor=optimisation.head_factor,
        constant=() if state.tower is None else [part for part in state.tower.parameters() if part.requires_grad],
        constant_learning_rate=config.text.constant_learning_rate,
    )


def _new_fusion(run: EeesRun) -> PairViewFusion:
    views, (_, width) = run.config.views, encoder_widths(run.clip)
    generator = torch_generator(run.config.seed, "init", "views")
    try:
        fusion = build_view_fusion(views.kind, width, heads=views.heads, zero_init=views.zero_init, generator=generator)
    except ValueError as error:
        raise ConfigError(str(error), hint=f"set views.heads to a divisor of {width}") from error
    return fusion.to(run.device)


EEES = MethodSpec(
    config=EeesConfig,
    supervised=True,
    rounds=run_rounds,
    stages=(encode_captions, train, evaluate, log_round, finish),
    new_encoder=new_encoder,
    new_state=new_state,
    new_optimiser=new_optimiser,
)
