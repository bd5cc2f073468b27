"""The settings of EEES, supervised with captions; reconstructed from its abstract and related methods."""

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
    PersonAugmentationConfig,
    PersonBatchesConfig,
    PersonNetworkConfig,
    PersonOptimisationConfig,
    PersonStagesConfig,
    UserPath,
    refuse_unfit_evaluation,
)


class CaptionsConfig(BaseModel, **STRICT):
    """Captions of the training images."""

    path: UserPath | None = None
    """Caption file; default: `captions.jsonl` of the data set, or `captions/DATASET.jsonl` of the runs folder."""
    caption_field: str = Field("caption", min_length=1)
    """Key of the caption in an image's entry."""
    path_prefix: str = ""
    """Prefix to remove from paths in the caption file."""
    strip_lead_in: bool = False
    """Remove the phrase that most captions begin with."""
    control: Literal["none", "shuffled", "constant", "same_person", "infrared_from_visible"] = "none"
    """Ablation that replaces captions: those of other people, one sentence, others of the same person."""
    max_truncated_share: float = Field(0.05, ge=0, le=1)
    """Largest accepted fraction of captions that are too long for CLIP's text encoder."""


class CaptionEncoderConfig(BaseModel, **STRICT):
    """CLIP's text encoder, applied to captions."""

    tower: Literal["frozen", "tuned"] = "frozen"
    """`frozen`: captions are encoded once; `tuned`: the text encoder is trained in every step."""
    constant_learning_rate: float = Field(1e-5, gt=0)
    """Constant learning rate of a tuned text encoder."""


class ViewFusionConfig(BaseModel, **STRICT):
    """Attention from an image (or caption) to the other images (captions) of its person in the batch."""

    kind: Literal["separate", "shared", "text_only"] = "separate"
    """Separate weights for images and captions, shared weights, or fusion of captions only."""
    heads: int = Field(8, ge=1)
    """Attention heads; a divisor of the caption feature's width."""
    zero_init: bool = False
    """Initialise the output projection with zeros."""


class PersonTermsConfig(BaseModel, **STRICT):
    """Loss terms without captions, besides identity classification; a weight of 0 removes a term."""

    gap_weight: float = Field(1.0, ge=0)
    """Weight of the MSEL loss: distances within a modality against distances across."""
    triplet_weight: float = Field(0.0, ge=0)
    """Weight of the weighted regularised triplet loss."""
    triplet_softmax: Literal["released", "stable"] = "stable"
    """How distances of an anchor are averaged; `released` fades others out beyond distances of about 14."""


class CaptionTermsConfig(BaseModel, **STRICT):
    """Loss terms with captions; a weight of 0 removes a term."""

    alignment_weight: float = Field(1.0, ge=0)
    """Weight of the image-caption contrastive loss (explicit semantics embedding)."""
    alignment_target: Literal["identity", "instance"] = "identity"
    """Positive captions of an image: all of its person, or its own only."""
    alignment_similarity: Literal["cosine", "raw"] = "cosine"
    """Cosine similarity, or inner products of unnormalised features."""
    temperature: float = Field(0.05, gt=0)
    """Softmax temperature."""
    alignment_feature: Literal["projection", "pooled"] = "projection"
    """Image feature that is compared with captions; `pooled` passes a learned linear layer."""
    views_weight: float = Field(1.0, ge=0)
    """Weight of cross-view semantics compensation: contrast of fused views, and distillation to single ones."""
    distillation: Literal["both", "feature", "relation", "off"] = "both"
    """Distillation from fused views: image features, image-caption relations, both, or none."""
    distillation_weight: float = Field(1.0, ge=0)
    """Weight of the distillation within `views_weight`."""
    distillation_detach: bool = True
    """Stop the gradient through the teacher (the fused features)."""
    fused_identity: bool = False
    """Also classify identities by fused views."""
    purification_weight: float = Field(1.0, ge=0)
    """Weight of cross-modality semantics purification."""
    purification: Literal["msel", "csia", "off"] = "msel"
    """What agrees across modalities: image-caption distances (`msel`), or mean similarities per person (`csia`)."""
    purification_level: Literal["single", "fused"] = "single"
    """Apply purification to single or to fused views."""
    purification_distance: Literal["euclid", "one_minus_cos"] = "euclid"
    """Distance of `msel`, between unit vectors."""
    purification_detach: Literal["none", "intra"] = "none"
    """Stop the gradient through distances within a modality (`intra`), or through none."""


class EeesConfig(BaseModel, **STRICT):
    """A complete experiment of the supervised method EEES, as reconstructed here."""

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
    captions: CaptionsConfig = CaptionsConfig()
    images: ImagesConfig = ImagesConfig()
    model: ModelConfig = ModelConfig()
    network: PersonNetworkConfig = PersonNetworkConfig()
    text: CaptionEncoderConfig = CaptionEncoderConfig()
    views: ViewFusionConfig = ViewFusionConfig()
    stages: PersonStagesConfig = PersonStagesConfig()
    losses: PersonTermsConfig = PersonTermsConfig()
    semantics: CaptionTermsConfig = CaptionTermsConfig()
    batches: PersonBatchesConfig = PersonBatchesConfig(replacement="when_short")
    augmentation: PersonAugmentationConfig = PersonAugmentationConfig()
    optimisation: PersonOptimisationConfig = PersonOptimisationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        refuse_unfit_evaluation(self.data, self.evaluation)
        semantics = self.semantics
        if semantics.purification == "csia" and (
            semantics.purification_detach != "none" or semantics.purification_distance != "euclid"
        ):
            raise ValueError("semantics.purification = 'csia' has neither a distance nor a side to detach")
        if semantics.fused_identity and self.views.kind == "text_only":
            raise ValueError(
                "semantics.fused_identity needs fused images; views.kind = 'text_only' fuses captions only"
            )
        return self

    @property
    def stage_lengths(self) -> tuple[tuple[str, int, bool], ...]:
        """Stages in order: name, number of rounds, whether the encoder is trained on images."""
        return (("image", self.stages.image_rounds, True),)
