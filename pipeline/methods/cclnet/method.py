"""CCLNet as a run needs it: its two stages, what each trains, and what is remembered between rounds."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clustering.dbscan import PseudoLabels
from clustering.labelling import Labelling
from models.clip import LoadedClip
from models.encoder import DualStemEncoder, Head
from models.imagenet import RESNET50
from models.modality import PerModality
from pipeline.config.rounds import Round, Stage
from pipeline.config.shared import ExperimentConfig
from pipeline.errors import ConfigError
from pipeline.features import FeatureBank
from pipeline.methods.cclnet.labelling import label_modality, pack_labelling, unpack_labelling
from pipeline.methods.cclnet.schedule import learning_rate_of, starts_anew
from pipeline.methods.cclnet.state import ClusterState, TextPrototypes, pack_texts, unpack_texts
from pipeline.runs.run import Run
from pipeline.training.optimiser import build_image_optimiser, set_learning_rate

ClusterRun = Run[ExperimentConfig, ClusterState]


class ClusterMethod:
    """Stage `prepare` trains against cluster memories, stage `clip` against the texts of clusters as well."""

    def new_encoder(self, config: ExperimentConfig, clip: LoadedClip) -> DualStemEncoder:
        """CLIP's image tower with a stem for each modality.

        Raises:
            ConfigError: The network knows no text.
        """
        if clip.origin.model == RESNET50:
            raise ConfigError(
                f"{RESNET50} knows no text, which this method learns from",
                hint="choose a CLIP, such as model.architecture=RN50-quickgelu",
            )
        return DualStemEncoder.from_clip(clip, image_height=config.images.height, image_width=config.images.width)

    def new_state(self, run: ClusterRun) -> ClusterState:  # noqa: ARG002 - other methods need the run
        """No labels and no texts."""
        return ClusterState()

    def restore_state(self, run: ClusterRun, packed: Mapping[str, Any]) -> ClusterState:
        """Labels and texts of the last finished round."""
        return ClusterState.unpack(packed, run.device)

    def new_optimiser(
        self,
        config: ExperimentConfig,
        encoder: DualStemEncoder,
        own: ClusterState,  # noqa: ARG002 - other methods train more than the encoder
        stage: Stage,
    ) -> torch.optim.Optimizer:
        """Adam over the encoder; the attention pool is trained where texts teach it."""
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

    def enter(self, run: ClusterRun, round_: Round) -> None:
        """Give the encoder a new stage's starting weights, and the optimiser this round's learning rate."""
        config, state = run.config, run.state
        if round_.stage != state.stage:
            if config.stages.label_export == "after_training":
                state.own.exported = _label_for_export(run)
            if not config.stages.carry_over:
                state.encoder = run.new_encoder()
            state.stage = round_.stage
            state.optimiser = self.new_optimiser(config, state.encoder, state.own, round_.stage)
        schedule = (config.optimisation, config.swap)
        if starts_anew(round_, *schedule):
            state.optimiser = self.new_optimiser(config, state.encoder, state.own, round_.stage)
        set_learning_rate(state.optimiser, learning_rate_of(round_, *schedule))


def prompts_due(run: ClusterRun, round_: Round) -> bool:
    """Whether prompts are learned in this round: at the start of stage `clip`, and where a refresh is asked for."""
    prompts = run.config.prompts
    if round_.stage != "clip" or prompts.text_weight == 0 or run.state.own.text_round == round_.number:
        return False
    refresh = prompts.refresh_every is not None and (round_.epoch - 1) % prompts.refresh_every == 0
    return round_.epoch == 1 or refresh


def text_prototypes(run: ClusterRun, round_: Round) -> PerModality[TextPrototypes] | None:
    """The texts that images are compared with in this round; none in stage `prepare`."""
    return run.state.own.text if round_.stage == "clip" else None


def prompt_features(run: ClusterRun, initial: bool) -> PerModality[Float[Tensor, "_ embed"]]:
    """Projected features that prompts are learned on, of the stage's initial encoder or of the current one."""
    encoder = run.new_encoder() if initial and not run.config.stages.carry_over else None
    banks = run.extract_training_features(Head.PROJECTION, encoder)
    return banks.map(lambda bank: torch.from_numpy(bank.vectors).to(run.device))


def text_from_first(
    run: ClusterRun, learn: Callable[[], PerModality[TextPrototypes]]
) -> PerModality[TextPrototypes] | None:
    """Texts that the first process learns and the others are told."""
    return unpack_texts(run.processes.from_first(lambda: pack_texts(learn())), run.device)


def cluster_images(run: ClusterRun, features: PerModality[FeatureBank]) -> PerModality[Labelling]:
    """Cluster each modality alone, on the first process and its device."""
    settings = PerModality(run.config.labelling.visible, run.config.labelling.infrared)
    found = features.map_with(
        lambda bank, own: unpack_labelling(
            run.processes.from_first(lambda: pack_labelling(label_modality(bank, own, run.device)))
        ),
        settings,
    )
    run.search = found.visible.search
    return found


def _label_for_export(run: ClusterRun) -> PerModality[PseudoLabels]:
    """Cluster once more with the final weights of stage `prepare`."""
    found = cluster_images(run, run.extract_training_features(Head.NECK))
    previous = run.state.own.exported
    assert previous is not None
    return found.map_with(lambda new, old: new.labels if new.labels.num_clusters else old, previous)
