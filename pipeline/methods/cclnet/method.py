"""CCLNet (Chen et al., ACM MM 2023): unsupervised, by clusters, swapped memories and text prototypes."""

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from models.imagenet import RESNET50
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import Stage
from pipeline.errors import ConfigError
from pipeline.methods.cclnet.rounds import run_rounds
from pipeline.methods.cclnet.stages import begin_stage, cluster, learn_prompts, log_round, train
from pipeline.methods.cclnet.state import CclnetRun, CclnetState
from pipeline.methods.spec import MethodSpec
from pipeline.runs.stages import evaluate, extract, finish
from pipeline.training.optimiser import build_image_optimiser


def new_encoder(config: CclnetConfig, clip: LoadedClip) -> DualStemEncoder:
    """CLIP's image tower with a stem for each modality.

    Raises:
        ConfigError: The network has no text encoder, its image tower is of an unknown kind, or images are too small.
    """
    if clip.origin.model == RESNET50:
        raise ConfigError(
            f"{RESNET50} has no text encoder, which this method learns from",
            hint="choose a CLIP, such as model.architecture=RN50-quickgelu",
        )
    try:
        return DualStemEncoder.from_clip(clip, image_height=config.images.height, image_width=config.images.width)
    except ValueError as error:
        raise ConfigError(
            str(error), hint="set images.height and images.width, or model.architecture to a ResNet or a ViT"
        ) from error


def new_state(run: CclnetRun) -> CclnetState:  # noqa: ARG001 - other methods need the run
    """No labels and no text prototypes."""
    return CclnetState()


def new_optimiser(
    config: CclnetConfig,
    encoder: DualStemEncoder,
    state: CclnetState,  # noqa: ARG001 - other methods train more than the encoder
    stage: Stage,
) -> torch.optim.Optimizer:
    """Adam over the encoder; the attention pool is trained only with text prototypes."""
    optimisation = config.optimisation
    roles = {"stem", "trunk", "neck"}
    if stage == "clip" and config.prompts.text_weight > 0:
        roles.add("attention_pool")
    return build_image_optimiser(
        encoder,
        roles=frozenset(roles),
        learning_rate=optimisation.learning_rate,
        weight_decay=optimisation.weight_decay,
        bias_factor=optimisation.bias_factor,
    )


CCLNET = MethodSpec(
    config=CclnetConfig,
    supervised=False,
    rounds=run_rounds,
    stages=(begin_stage, extract, cluster, learn_prompts, train, evaluate, log_round, finish),
    new_encoder=new_encoder,
    new_state=new_state,
    new_optimiser=new_optimiser,
)
