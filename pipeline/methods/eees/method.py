"""EEES as a run needs it: rounds of training on images, with the captions that stand beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from models.linear import drawn_linear
from models.text_tower import TextTower
from models.view_fusion import PairViewFusion, build_view_fusion
from pipeline.config.eees import EeesConfig
from pipeline.config.rounds import Round, Stage
from pipeline.data.captions.store import Captions, load_captions
from pipeline.errors import ConfigError
from pipeline.methods.eees.objective import CaptionWeights
from pipeline.methods.eees.state import CaptionState
from pipeline.methods.supervised import learning_rate_of, new_classifier, new_person_encoder, people_of
from pipeline.runs.run import Run
from pipeline.runtime.seeds import derive_seed, torch_generator
from pipeline.training.optimiser import build_person_optimiser, set_learning_rate

CaptionRun = Run[EeesConfig, CaptionState]

CAPTIONS_NAME = "captions.jsonl"
CAPTIONS_FOLDER = Path("captions")


class CaptionMethod:
    """One stage, `image`, with a round an epoch."""

    def new_encoder(self, config: EeesConfig, clip: LoadedClip) -> DualStemEncoder:
        """CLIP's image tower with a stem for each modality and the heads of supervised training.

        Raises:
            ConfigError: CLIP's image tower is not a ResNet.
        """
        return new_person_encoder(config, clip, with_texts=caption_weights(config).reads_captions)

    def new_state(self, run: CaptionRun) -> CaptionState:
        """The data set's people, and fresh weights of what the losses need.

        Raises:
            DataError: The data set does not say whom its images show.
            ConfigError: The heads of attention do not divide the width of captions.
        """
        people = people_of(run)
        weights = caption_weights(run.config)
        return CaptionState(
            people=people,
            classifier=new_classifier(run, people),
            fusion=_new_fusion(run) if weights.fuses else None,
            pooled_map=_new_pooled_map(run) if weights.alignment_feature == "pooled" else None,
            tower=_tuned_tower(run) if run.config.text.tower == "tuned" and weights.reads_captions else None,
        )

    def restore_state(self, run: CaptionRun, packed: Mapping[str, Any]) -> CaptionState:
        """What was learned by the end of the last finished round."""
        state = self.new_state(run)
        state.fill(packed)
        return state

    def new_optimiser(
        self,
        config: EeesConfig,
        encoder: DualStemEncoder,
        own: CaptionState,
        stage: Stage,  # noqa: ARG002 - others do
    ) -> torch.optim.Optimizer:
        """Adam over encoder and heads, which learn faster; a tuned text tower has a pace of its own."""
        optimisation = config.optimisation
        return build_person_optimiser(
            encoder,
            own.heads,
            learning_rate=optimisation.learning_rate,
            weight_decay=optimisation.weight_decay,
            head_factor=optimisation.head_factor,
            constant=() if own.tower is None else [part for part in own.tower.parameters() if part.requires_grad],
            constant_learning_rate=config.text.constant_learning_rate,
        )

    def enter(self, run: CaptionRun, round_: Round) -> None:
        """Give the optimiser this round's learning rate."""
        set_learning_rate(run.state.optimiser, learning_rate_of(run.config, round_))


def caption_weights(config: EeesConfig) -> CaptionWeights:
    """The weights and forms of the losses on captions, as training takes them."""
    return CaptionWeights(**config.semantics.model_dump())


def read_captions(run: CaptionRun) -> Captions:
    """The captions of all training images, checked against the data set, in its order.

    Raises:
        DataError: There is no such file, or it does not fit the data set.
    """
    config = run.config.captions
    return load_captions(
        run.dataset,
        captions_path(run),
        caption_field=config.caption_field,
        path_prefix=config.path_prefix,
        strip_lead_in=config.strip_lead_in,
        control=config.control,
        control_seed=derive_seed(run.config.seed, "captions", config.control),
    )


def captions_path(run: CaptionRun) -> Path:
    """Where the captions are: where the settings say, in the data set's folder, or where `vireid caption` writes."""
    if run.config.captions.path is not None:
        return run.config.captions.path
    shipped = run.dataset.root / CAPTIONS_NAME
    return shipped if shipped.exists() else CAPTIONS_FOLDER / f"{run.dataset.name}.jsonl"


def _new_fusion(run: CaptionRun) -> PairViewFusion:
    views, width = run.config.views, run.new_encoder().projection_width
    try:
        fusion = build_view_fusion(
            views.kind,
            width,
            heads=views.heads,
            zero_init=views.zero_init,
            generator=torch_generator(run.config.seed, "init", "views"),
        )
    except ValueError as error:
        raise ConfigError(str(error), hint=f"set views.heads to a divisor of {width}") from error
    return fusion.to(run.device)


def _new_pooled_map(run: CaptionRun) -> nn.Linear:
    encoder, generator = run.new_encoder(), torch_generator(run.config.seed, "init", "pooled map")
    return drawn_linear(encoder.feature_width, encoder.projection_width, generator).to(run.device)


def _tuned_tower(run: CaptionRun) -> TextTower:
    return TextTower.from_clip(run.clip).requires_grad_(True).to(run.device)
