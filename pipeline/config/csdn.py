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
    refuse_unfit_evaluation,
)
from pipeline.config.supervised import (
    PersonAugmentationConfig,
    PersonBatchesConfig,
    PersonNetworkConfig,
    PersonOptimisationConfig,
    PersonStagesConfig,
)


class PersonPromptsConfig(BaseModel):
    """Stage `prompts`: for every person, learned words in a sentence for each modality."""

    model_config = STRICT

    template: Literal["shared", "per_modality"] = "shared"
    """One sentence for both modalities, or sentences that name theirs."""
    banks: Literal["two", "one"] = "two"
    """Words of a person for each modality, or one set for both, which leaves nothing to fuse."""
    positives: Literal["joint", "per_modality"] = "joint"
    """Whether an image is also pulled to the text that its person has for the other modality."""
    pairs: Literal["sampled", "full"] = "sampled"
    """Pairs of images drawn once for all epochs, or drawn anew for each epoch."""
    num_context: int = Field(4, ge=1, le=16)
    """How many learned words a person has."""
    epochs: int = Field(60, ge=1)
    """Passes over the pairs."""
    batch_size: int = Field(32, ge=1)
    """Pairs in a step."""
    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    warmup_epochs: int = Field(5, ge=0)
    """Passes during which the learning rate climbs."""
    weight_decay: float = Field(1e-4, ge=0)
    """L2 weight on the words."""


class FusionConfig(BaseModel):
    """Stage `fusion`: one text for a person out of two."""

    model_config = STRICT

    kind: Literal["residual_mlp", "sum", "concat", "attn2", "none"] = "residual_mlp"
    """How; `sum` has nothing to learn, and with `none` images are compared with the text of their own modality."""
    batch_statistics: Literal["running", "batch"] = "running"
    """What normalises the features that it is learned on; `batch`, as released, also moves the running ones."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of values that are dropped while it is learned."""
    prototype_dropout: bool = False
    """Whether values are also dropped when the fused texts are read out."""
    epochs: int = Field(60, ge=1)
    """Passes over the features."""
    batch_size: int = Field(64, ge=1)
    """Features in a step."""
    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate."""
    warmup_epochs: int = Field(5, ge=0)
    """Passes during which the learning rate climbs."""
    weight_decay: float = Field(1e-4, ge=0)
    """L2 weight."""


class PersonLossConfig(BaseModel):
    """What the image stage minimises beside the classification of people; a weight of 0 removes a term."""

    model_config = STRICT

    gap_weight: float = Field(1.0, ge=0)
    """Weight of the difference between distances inside a modality and across."""
    triplet_weight: float = Field(0.15, ge=0)
    """Weight of the weighted regularised triplet."""
    triplet_softmax: Literal["released", "stable"] = "released"
    """How distances of an anchor are averaged; `released` fades others out beyond distances of about 14."""
    visible_text_weight: float = Field(0.05, ge=0)
    """Weight of the classification of visible images by fused texts."""
    infrared_text_weight: float = Field(0.1, ge=0)
    """Weight of the classification of infrared images by fused texts."""
    text_on_second_view: bool = False
    """Whether texts also classify the second view of visible images."""


class CsdnConfig(BaseModel):
    """A complete experiment of the supervised method CSDN."""

    model_config = STRICT
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
    """Which images; each must say whom it shows."""
    images: ImagesConfig = ImagesConfig()
    """How they are stored and shown."""
    model: ModelConfig = ModelConfig()
    """Which CLIP."""
    network: PersonNetworkConfig = PersonNetworkConfig()
    """What is made of it."""
    stages: PersonStagesConfig = PersonStagesConfig()
    """How many rounds."""
    prompts: PersonPromptsConfig = PersonPromptsConfig()
    """Prompt learning."""
    fusion: FusionConfig = FusionConfig()
    """One text out of two."""
    losses: PersonLossConfig = PersonLossConfig()
    """Weights of the image stage's losses."""
    batches: PersonBatchesConfig = PersonBatchesConfig()
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
        """Stages in order: name, number of rounds, whether images are trained on."""
        prompts, fusion = int(self.with_texts), int(self.with_fusion)
        return ("prompts", prompts, False), ("fusion", fusion, False), ("image", self.stages.image_rounds, True)

    @property
    def with_texts(self) -> bool:
        """Whether any loss uses texts; otherwise none are learned."""
        return self.losses.visible_text_weight > 0 or self.losses.infrared_text_weight > 0

    @property
    def with_fusion(self) -> bool:
        """Whether a person's two texts become one."""
        return self.with_texts and self.fusion.kind != "none"
