"""The settings of EEES, supervised, which captions teach; the method is reconstructed from abstract and siblings."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipeline.config.shared import (
    STRICT,
    DataConfig,
    EvaluationConfig,
    ExecutionConfig,
    ImagesConfig,
    ModelConfig,
    Name,
    refuse_unfit_evaluation,
)
from pipeline.config.supervised import (
    PersonAugmentationConfig,
    PersonBatchesConfig,
    PersonNetworkConfig,
    PersonOptimisationConfig,
    PersonStagesConfig,
)


class CaptionsConfig(BaseModel):
    """Which sentence stands beside each training image."""

    model_config = STRICT

    path: Path | None = None
    """The file of captions; none: `captions.jsonl` of the data set, or the runs folder's `captions/DATASET.jsonl`."""
    caption_field: str = Field("caption", min_length=1)
    """Under which key of an image's entry its caption stands."""
    path_prefix: str = ""
    """What the file's paths begin with and the data set's do not."""
    strip_lead_in: bool = False
    """Whether a phrase that most captions begin with is removed."""
    control: Literal["none", "shuffled", "constant", "same_person", "infrared_from_visible"] = "none"
    """What replaces the captions to see what they are worth: other people's, one sentence, others of the person."""
    max_truncated_share: float = Field(0.05, ge=0, le=1)
    """The largest share of captions that may be too long for CLIP's text tower."""


class CaptionEncoderConfig(BaseModel):
    """CLIP's text tower, as it reads captions."""

    model_config = STRICT

    tower: Literal["frozen", "tuned"] = "frozen"
    """Whether it stays as it is, so that captions are encoded once, or learns in every step."""
    constant_learning_rate: float = Field(1e-5, gt=0)
    """The learning rate of a tuned one, which no schedule changes."""


class ViewFusionConfig(BaseModel):
    """How other images of a person in the batch, and their captions, are added to an image and to its caption."""

    model_config = STRICT

    kind: Literal["separate", "shared", "text_only"] = "separate"
    """Whether images and captions are fused by weights of their own, by the same ones, or captions alone are."""
    heads: int = Field(8, ge=1)
    """How many heads the attention has; they divide the width of captions."""
    zero_init: bool = False
    """Whether at first nothing is added."""


class PersonTermsConfig(BaseModel):
    """What is minimised beside the classification of people, without captions; a weight of 0 removes a term."""

    model_config = STRICT

    gap_weight: float = Field(1.0, ge=0)
    """Weight of the difference between distances inside a modality and across."""
    triplet_weight: float = Field(0.0, ge=0)
    """Weight of the weighted regularised triplet."""
    triplet_softmax: Literal["released", "stable"] = "stable"
    """How distances of an anchor are averaged; `released` fades others out beyond distances of about 14."""


class CaptionTermsConfig(BaseModel):
    """What captions add to what is minimised; a weight of 0 removes a term."""

    model_config = STRICT

    alignment_weight: float = Field(1.0, ge=0)
    """Weight of the contrast of images and captions, explicit semantics embedding."""
    alignment_target: Literal["identity", "instance"] = "identity"
    """Whether all captions of the person are an image's own, or its one only."""
    alignment_similarity: Literal["cosine", "raw"] = "cosine"
    """Whether images and captions are compared by their angle, or by products as they are."""
    temperature: float = Field(0.05, gt=0)
    """What similarities are divided by before the softmax."""
    alignment_feature: Literal["projection", "pooled"] = "projection"
    """Which feature of an image meets the captions; `pooled` goes through a linear map that is learned."""
    views_weight: float = Field(1.0, ge=0)
    """Weight of cross-view semantics compensation: contrast of fused views, and what they teach single ones."""
    distillation: Literal["both", "feature", "relation", "off"] = "both"
    """What fused views teach: features of images, relations of images to captions, or nothing."""
    distillation_weight: float = Field(1.0, ge=0)
    """Weight of that inside `views_weight`."""
    distillation_detach: bool = True
    """Whether fused views only teach, or are also drawn towards single ones."""
    fused_identity: bool = False
    """Whether people are also classified by fused views."""
    purification_weight: float = Field(1.0, ge=0)
    """Weight of cross-modality semantics purification."""
    purification: Literal["msel", "csia", "off"] = "msel"
    """Whether distances of images to captions, or their mean similarities by person, agree between the modalities."""
    purification_level: Literal["single", "fused"] = "single"
    """Whether that is asked of single or of fused views."""
    purification_distance: Literal["euclid", "one_minus_cos"] = "euclid"
    """The distance of `msel`, of unit vectors."""
    purification_detach: Literal["none", "intra"] = "none"
    """Whether both distances give way, or those inside a modality are the reference."""


class EeesConfig(BaseModel):
    """A complete experiment of the supervised method EEES, as reconstructed here."""

    model_config = STRICT
    flow: ClassVar[str] = "eees"
    title: ClassVar[str] = "EEES"
    demo_preset: ClassVar[str] = "eees-demo"
    summary: ClassVar[str] = "with identities and captions"

    method: Literal["eees"] = "eees"
    """The method."""
    name: Name
    """The experiment's name; run folders and MLflow runs begin with it."""
    seed: int = Field(1, ge=0)
    """The one number that all randomness is derived from."""
    data: DataConfig = DataConfig()
    """Which images; each must say whom it shows."""
    captions: CaptionsConfig = CaptionsConfig()
    """Which captions."""
    images: ImagesConfig = ImagesConfig()
    """How images are stored and shown."""
    model: ModelConfig = ModelConfig()
    """Which CLIP."""
    network: PersonNetworkConfig = PersonNetworkConfig()
    """What is made of its image tower."""
    text: CaptionEncoderConfig = CaptionEncoderConfig()
    """How its text tower reads captions."""
    views: ViewFusionConfig = ViewFusionConfig()
    """Fusion of views."""
    stages: PersonStagesConfig = PersonStagesConfig()
    """How many rounds."""
    losses: PersonTermsConfig = PersonTermsConfig()
    """Weights of the losses without captions."""
    semantics: CaptionTermsConfig = CaptionTermsConfig()
    """Weights and forms of the losses with captions."""
    batches: PersonBatchesConfig = PersonBatchesConfig(replacement="when_short")
    """Training batches."""
    augmentation: PersonAugmentationConfig = PersonAugmentationConfig()
    """Random changes of training images."""
    optimisation: PersonOptimisationConfig = PersonOptimisationConfig()
    """Optimiser and schedule."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Retrieval tests."""
    execution: ExecutionConfig = ExecutionConfig()
    """Device, folders, tracking."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        refuse_unfit_evaluation(self.data, self.evaluation)
        semantics = self.semantics
        if semantics.purification == "csia" and (
            semantics.purification_detach != "none" or semantics.purification_distance != "euclid"
        ):
            raise ValueError("semantics.purification = 'csia' has neither a distance nor a side to detach")
        if semantics.fused_identity and self.views.kind == "text_only":
            raise ValueError("semantics.fused_identity needs fused images, which views.kind = 'text_only' leaves alone")
        return self

    @property
    def stage_lengths(self) -> tuple[tuple[str, int, bool], ...]:
        """Stages in order: name, number of rounds, whether images are trained on."""
        return (("image", self.stages.image_rounds, True),)
