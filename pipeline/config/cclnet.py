"""Settings of CCLNet: memories, swapping, prompts, batches, schedule; clustering is in `labelling`."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipeline.config.labelling import (
    LabellingConfig,
    MatchingConfig,
    refuse_unfit_labelling,
    refuse_unused_labelling,
)
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


class AugmentationConfig(BaseModel, **STRICT):
    """Random augmentation of training images."""

    recipe: Literal["cclnet_sysu", "cclnet_regdb"] = "cclnet_sysu"
    """Augmentation list; `cclnet_regdb` has no flip and no crop."""
    padding: int = Field(10, ge=0, le=64)
    """Black pixels added on every side before the random crop."""
    channel: Literal["grayscale", "exchange"] = "grayscale"
    """`exchange`: a second view of visible images with one channel in place of all; infrared images likewise."""


class LossConfig(BaseModel, **STRICT):
    """Contrast of images with cluster memories."""

    contrast: Literal["per_modality", "cross", "unified"] = "per_modality"
    """Prototypes that an image is contrasted with: `cross` adds the other memory, `unified` joins both memories."""
    start: int = Field(1, ge=1)
    """First round of each stage with terms across modalities: contrast, and texts by `prompts.cross_weight`."""
    min_mutual_share: float = Field(0.0, ge=0, le=1)
    """Share of clusters in mutual nearest pairs below which a round has no terms across modalities."""
    cross_weight: float = Field(0.25, ge=0)
    """Weight of the contrast with the other memory in `cross`."""
    distillation: float = Field(0.0, ge=0)
    """Weight of the agreement of both views of a visible image over all prototypes, with contrast across modalities."""
    confidence: bool = False
    """Weigh a pair's terms across modalities by the margin to its second best partner."""


class BatchesConfig(BaseModel, **STRICT):
    """Composition of a training batch, per modality."""

    clusters_per_batch: int = Field(4, ge=1)
    """Clusters in a batch, per modality."""
    images_per_cluster: int = Field(16, ge=1)
    """Images per cluster in a batch."""
    replacement: Literal["always", "when_short"] = "always"
    """Sample a cluster's images with replacement always, or only if it has too few."""
    batch_norm: Literal["synchronised", "local"] = "synchronised"
    """Synchronise batch-norm statistics across ranks, or compute them per rank (results depend on the ranks)."""


class MemoryConfig(BaseModel, **STRICT):
    """Cluster memory."""

    temperature: float = Field(0.05, gt=0)
    """Softmax temperature."""
    update: Literal["momentum", "hard"] = "momentum"
    """Images that update their prototype: `momentum` all in turn, `hard` the least similar one."""
    momentum: float = Field(0.1, ge=0, le=1)
    """Weight of the old prototype in an update."""
    hard: bool = False
    """Keep a second memory of each cluster's hardest images; the first one then follows the clusters' mean images."""
    hard_margin: float = Field(0.2, ge=0)
    """Loss below which the first memory's contrast is ignored, with `hard`."""
    cameras: Literal["ignored", "proxies"] = "ignored"
    """`proxies`: contrast with the parts of a cluster by other cameras; reports are then marked `cameras used`."""
    camera_weight: float = Field(0.5, gt=0)
    """Weight of that contrast, with `cameras = "proxies"`."""
    camera_negatives: int = Field(50, ge=1)
    """Most similar proxies of other clusters that are its negatives."""


class SwapConfig(BaseModel, **STRICT):
    """Swapping of matched prototypes between the visible and the infrared memory."""

    mode: Literal["released", "exchange", "off"] = "released"
    """`released`: one side at a time, as in the authors' code; `exchange`: both sides together."""
    trigger: Literal["any_member", "both_members"] = "any_member"
    """For `exchange`: whether one or both clusters of a pair must be in the batch."""
    start: int = Field(61, ge=1)
    """First round of each stage with swapping."""
    scale: float = Field(0.1, ge=0, le=1)
    """Weight of the own prototype when it is swapped."""
    every: int | None = Field(1, ge=1)
    """Match the updated prototypes again every n-th step; none keeps the pairs of the start of the round."""


class PromptsConfig(BaseModel, **STRICT):
    """Cluster-aware prompt learning and the image-to-text loss."""

    text_weight: float = Field(1.0, ge=0)
    """Weight of the image-to-text loss in stage `clip`; 0 learns no prompts."""
    logits: Literal["product", "cosine"] = "product"
    """Logits of images and texts: inner products as released, or `scale` times the cosine."""
    scale: float = Field(20.0, gt=0)
    """Factor of the cosine."""
    shared: bool = False
    """Learn the same context tokens for both clusters of a pair."""
    cross_weight: float = Field(0.0, ge=0)
    """Weight of classifying images by the texts of the other modality's clusters."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing of the image-to-text loss."""
    num_context: int = Field(4, ge=1, le=16)
    """Context tokens for each cluster."""
    epochs: int = Field(60, ge=1)
    """Epochs over the features when prompts are first learned."""
    batch_size: int = Field(128, ge=1)
    """Batch size of prompt learning, per modality."""
    learning_rate: float = Field(3.5e-4, gt=0)
    """Peak learning rate of prompt learning."""
    warmup_epochs: int = Field(5, ge=0)
    """Epochs of linear warm-up."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of the context tokens (L2)."""
    refresh_every: int | None = Field(None, ge=1)
    """Refresh prompts on the current clusters every n-th round of stage `clip`; none learns them once."""
    refresh_agreement: float | None = Field(None, gt=0, le=1)
    """Refresh prompts where their clusters agree less with the current ones (normalised mutual information)."""
    refresh_epochs: int = Field(10, ge=1)
    """Epochs of a refresh."""
    init: Literal["random", "warm"] = "random"
    """Initial context tokens of a refresh: random, or those of the old cluster that shares most images."""
    feature_source: Literal["initial", "current"] = "initial"
    """Features for a refresh: from the stage's initial encoder, or from the current one."""


class OptimisationConfig(BaseModel, **STRICT):
    """The optimiser of the image stages; the schedule is evaluated once a round."""

    learning_rate: float = Field(3.5e-4, gt=0)
    """Base learning rate of Adam."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay (L2)."""
    bias_factor: float = Field(2.0, gt=0)
    """Learning rate of bias tensors relative to the others."""
    warmup_rounds: int = Field(10, ge=0)
    """Rounds of linear warm-up."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Fraction of the learning rate at which the warm-up starts."""
    milestones: tuple[int, ...] = (30, 50)
    """Rounds of a stage, counted from 1, at which the learning rate is multiplied by `gamma`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Learning rate factor at each milestone."""
    at_swap: Literal["continue", "restart", "fixed"] = "continue"
    """Learning rate when swapping starts: continue the schedule, restart it (stage `clip` only), or fix the rate."""
    fixed_swap_learning_rate: float | None = Field(None, gt=0)
    """The value for `at_swap = "fixed"`."""


class StagesConfig(BaseModel, **STRICT):
    """Rounds of both stages, and what stage `clip` takes over from stage `prepare`."""

    prepare_rounds: int = Field(120, ge=1, le=100_000)
    """Rounds of stage `prepare`: contrastive learning with cluster memories alone."""
    clip_rounds: int = Field(120, ge=0, le=100_000)
    """Rounds of stage `clip`, with the image-to-text loss; 0 ends the run after `prepare`."""
    carry_over: bool = False
    """Start stage `clip` from the weights of stage `prepare` instead of CLIP."""
    label_export: Literal["epoch_start", "after_training"] = "epoch_start"
    """Clusters that prompts are learned on: those of the last round of `prepare`, or new ones after it."""


class CclnetConfig(BaseModel, **STRICT):
    """A complete experiment of the unsupervised method CCLNet."""

    flow: ClassVar[str] = "unsupervised"
    title: ClassVar[str] = "CCLNet"
    demo_preset: ClassVar[str] = "demo"
    summary: ClassVar[str] = "without identities"

    method: Literal["cclnet"] = "cclnet"
    """The method."""
    name: Name
    """The experiment's name; run folders and MLflow runs begin with it."""
    seed: int = Field(1, ge=0)
    """The one number that all randomness is derived from."""
    data: DataConfig = DataConfig()
    images: ImagesConfig = ImagesConfig()
    model: ModelConfig = ModelConfig()
    stages: StagesConfig = StagesConfig()
    labelling: LabellingConfig = LabellingConfig()
    matching: MatchingConfig = MatchingConfig()
    loss: LossConfig = LossConfig()
    memory: MemoryConfig = MemoryConfig()
    swap: SwapConfig = SwapConfig()
    prompts: PromptsConfig = PromptsConfig()
    batches: BatchesConfig = BatchesConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _evaluation_fits(self) -> Self:
        if "projection_neck" in self.evaluation.heads:
            raise ValueError("evaluation.heads: cclnet learns no 'projection_neck'; it has 'neck' and 'projection'")
        refuse_unfit_evaluation(self.data, self.evaluation)
        return self

    @model_validator(mode="after")
    def _prompts_agree(self) -> Self:
        prompts = self.prompts
        refreshed = prompts.refresh_every or prompts.refresh_agreement
        if refreshed and prompts.feature_source == "initial" and self.stages.carry_over:
            raise ValueError(
                "prompts.feature_source = 'initial' cannot be refreshed with stages.carry_over: choose 'current'"
            )
        switched = {
            "prompts.shared": prompts.shared,
            "prompts.cross_weight": prompts.cross_weight > 0,
            "prompts.logits = 'cosine'": prompts.logits == "cosine",
            "prompts.refresh_agreement": prompts.refresh_agreement is not None,
        }
        if prompts.text_weight == 0 and any(switched.values()):
            names = " and ".join(name for name, on in switched.items() if on)
            raise ValueError(
                f"prompts.text_weight = 0 learns no prompts, so that {names} would change nothing: raise the weight, "
                "or leave the default"
            )
        return self

    @model_validator(mode="after")
    def _contrast_agrees(self) -> Self:
        loss = self.loss
        if loss.contrast == "unified" and self.swap.mode != "off":
            raise ValueError("loss.contrast = 'unified' and swapping exclude each other: set swap.mode = 'off'")
        if loss.distillation > 0 and (self.augmentation.channel == "grayscale" or loss.contrast != "unified"):
            raise ValueError(
                "loss.distillation needs augmentation.channel = 'exchange', which gives visible images two views, "
                "and loss.contrast = 'unified'"
            )
        if loss.confidence and not self.has_cross_modal_terms:
            raise ValueError(
                "loss.confidence weighs terms across modalities, and loss.contrast = 'per_modality' has none: choose "
                "'cross' or 'unified', or prompts.cross_weight above 0"
            )
        if loss.min_mutual_share > 0 and not self.has_cross_modal_terms and not self.prompts.shared:
            raise ValueError(
                "loss.min_mutual_share postpones terms and prompts across modalities, and these settings have none: "
                "set it to 0, or choose loss.contrast = 'cross' or 'unified', prompts.cross_weight above 0, or "
                "prompts.shared"
            )
        if loss.contrast == "cross" and loss.cross_weight == 0:
            raise ValueError(
                "loss.contrast = 'cross' with loss.cross_weight = 0 adds nothing: raise the weight, or choose "
                "'per_modality'"
            )
        if self.memory.hard and self.memory.update != "momentum":
            raise ValueError("memory.hard and memory.update = 'hard' exclude each other: choose one")
        return self

    @model_validator(mode="after")
    def _labelling_agrees(self) -> Self:
        refuse_unfit_labelling(self.labelling)
        refuse_unused_labelling(self.labelling, self.matching)
        return self

    @model_validator(mode="after")
    def _swapping_agrees(self) -> Self:
        optimisation, matching, swap = self.optimisation, self.matching, self.swap
        if (optimisation.at_swap == "fixed") != (optimisation.fixed_swap_learning_rate is not None):
            raise ValueError("optimisation.fixed_swap_learning_rate and optimisation.at_swap = 'fixed' need each other")
        if swap.mode == "off" or swap.every is None:
            return self
        if matching.method in ("progressive", "transport") or matching.cost != "prototype" or matching.local_scaling:
            raise ValueError(
                "swap.every matches moving prototypes again, by matching.method = 'hungarian' or 'mutual', "
                "matching.cost = 'prototype' and matching.local_scaling = 0 only: choose these, swap.every = none, or "
                "swap.mode = 'off'"
            )
        if self.labelling.space != "per_modality":
            raise ValueError(
                "labelling.space = 'joint_balanced' gives the pairs, and swap.every matches again: set "
                "swap.every = none or swap.mode = 'off'"
            )
        return self

    @property
    def has_cross_modal_terms(self) -> bool:
        """Whether some loss compares images with clusters or texts of the other modality."""
        return self.loss.contrast != "per_modality" or self.prompts.cross_weight > 0

    @property
    def stage_lengths(self) -> tuple[tuple[str, int, bool], ...]:
        """Stages in order: name, number of rounds, whether the encoder is trained on images."""
        return ("prepare", self.stages.prepare_rounds, True), ("clip", self.stages.clip_rounds, True)
