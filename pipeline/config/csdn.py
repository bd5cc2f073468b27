"""The settings of CSDN, the supervised method with two prompt banks and fused text prototypes."""

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
    refuse_unfit_evaluation,
)


class PersonPromptsConfig(BaseModel, **STRICT):
    """Stage `prompts`: context tokens for each person, in a prompt for each modality."""

    template: Literal["shared", "per_modality"] = "shared"
    """One template for both modalities, or a template that names the modality."""
    banks: Literal["two", "one"] = "two"
    """A bank of context tokens for each modality, or one for both (then there is no fusion)."""
    positives: Literal["joint", "per_modality"] = "joint"
    """Text prototypes that are positives of an image: those of both modalities, or of its own only."""
    pairs: Literal["sampled", "full"] = "sampled"
    """Sample image pairs once for all epochs, or again for each epoch."""
    num_context: int = Field(4, ge=1, le=16)
    """Context tokens for each person."""
    epochs: int = Field(60, ge=1)
    """Epochs over the pairs."""
    batch_size: int = Field(32, ge=1)
    """Pairs in a batch."""
    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    warmup_epochs: int = Field(5, ge=0)
    """Epochs of linear warm-up."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of the context tokens (L2)."""


class FusionConfig(BaseModel, **STRICT):
    """Stage `fusion`: merge a person's two text prototypes into one."""

    kind: Literal["residual_mlp", "sum", "concat", "attn2", "none"] = "residual_mlp"
    """Fusion module; `sum` has no parameters, `none` compares images with text prototypes of their own modality."""
    batch_statistics: Literal["running", "batch"] = "running"
    """Batch-norm statistics for the training features; `batch`, as released, also updates the running ones."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate while the fusion is trained."""
    prototype_dropout: bool = False
    """Apply dropout also when the fused text prototypes are computed."""
    epochs: int = Field(60, ge=1)
    """Epochs over the features."""
    batch_size: int = Field(64, ge=1)
    """Features in a batch."""
    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    warmup_epochs: int = Field(5, ge=0)
    """Epochs of linear warm-up."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay (L2)."""


class PersonLossConfig(BaseModel, **STRICT):
    """Loss terms of the image stage besides identity classification; a weight of 0 removes a term."""

    gap_weight: float = Field(1.0, ge=0)
    """Weight of the MSEL loss: distances within a modality against distances across."""
    triplet_weight: float = Field(0.15, ge=0)
    """Weight of the weighted regularised triplet loss."""
    triplet_softmax: Literal["released", "stable"] = "released"
    """Softmax over an anchor's distances; `released` ignores negatives beyond distances of about 14."""
    visible_text_weight: float = Field(0.05, ge=0)
    """Weight of classifying visible images by fused text prototypes."""
    infrared_text_weight: float = Field(0.1, ge=0)
    """Weight of classifying infrared images by fused text prototypes."""
    text_on_second_view: bool = False
    """Apply the text loss also to the second view of visible images."""


class CsdnConfig(BaseModel, **STRICT):
    """A complete experiment of the supervised method CSDN."""

    flow: ClassVar[str] = "csdn"
    title: ClassVar[str] = "CSDN"
    demo_preset: ClassVar[str] = "csdn-demo"
    summary: ClassVar[str] = "with identities"

    method: Literal["csdn"] = "csdn"
    """The method."""
    name: Name
    """The experiment's name; run folders and MLflow runs begin with it."""
    seed: int = Field(1, ge=0)
    """The one number that all randomness is derived from."""
    data: DataConfig = DataConfig()
    images: ImagesConfig = ImagesConfig()
    model: ModelConfig = ModelConfig()
    network: PersonNetworkConfig = PersonNetworkConfig()
    stages: PersonStagesConfig = PersonStagesConfig()
    prompts: PersonPromptsConfig = PersonPromptsConfig()
    fusion: FusionConfig = FusionConfig()
    losses: PersonLossConfig = PersonLossConfig()
    batches: PersonBatchesConfig = PersonBatchesConfig()
    augmentation: PersonAugmentationConfig = PersonAugmentationConfig()
    optimisation: PersonOptimisationConfig = PersonOptimisationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        refuse_unfit_evaluation(self.data, self.evaluation)
        losses = self.losses
        if self.prompts.banks == "one" and self.fusion.kind != "none":
            raise ValueError("prompts.banks = 'one' leaves nothing to fuse: set fusion.kind = 'none'")
        if self.prompts.banks == "one" and self.prompts.template == "per_modality":
            raise ValueError("prompts.template = 'per_modality' needs two banks")
        if losses.text_on_second_view and losses.visible_text_weight == 0:
            raise ValueError("losses.text_on_second_view needs losses.visible_text_weight above 0")
        return self

    @property
    def stage_lengths(self) -> tuple[tuple[str, int, bool], ...]:
        """Stages in order: name, number of rounds, whether the encoder is trained on images."""
        prompts, fusion = int(self.with_texts), int(self.with_fusion)
        return ("prompts", prompts, False), ("fusion", fusion, False), ("image", self.stages.image_rounds, True)

    @property
    def with_texts(self) -> bool:
        """Whether any loss uses text prototypes; otherwise none are learned."""
        return self.losses.visible_text_weight > 0 or self.losses.infrared_text_weight > 0

    @property
    def with_fusion(self) -> bool:
        """Whether a person's two text prototypes are fused."""
        return self.with_texts and self.fusion.kind != "none"
