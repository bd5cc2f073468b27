"""Settings of CCLNet: clustering, matching, memories, swapping, prompts, batches, schedule."""

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


class AugmentationConfig(BaseModel):
    """What is done at random to a training image."""

    model_config = STRICT

    recipe: Literal["cclnet_sysu", "cclnet_regdb"] = "cclnet_sysu"
    """The list of operations; `cclnet_regdb` neither flips nor crops."""
    padding: int = Field(10, ge=0, le=64)
    """Pixels of black added on every side before the random crop."""


class BatchesConfig(BaseModel):
    """The composition of a training batch, in each modality."""

    model_config = STRICT

    clusters_per_batch: int = Field(4, ge=1)
    """How many clusters of each modality a batch shows."""
    images_per_cluster: int = Field(16, ge=1)
    """How many images of each of them."""
    replacement: Literal["always", "when_short"] = "always"
    """Whether images of a cluster are drawn with repetition always, or only where it has too few."""
    batch_norm: Literal["synchronised", "local"] = "synchronised"
    """Batch-norm statistics of all ranks together, or of each rank: then the number of ranks changes the result."""


class ClusteringConfig(BaseModel):
    """How the images of one modality become clusters."""

    model_config = STRICT

    k1: int = Field(30, ge=2)
    """How many nearest neighbours, the image itself among them, make an image's neighbourhood."""
    k2: int = Field(6, ge=1)
    """Over how many nearest neighbours an image's neighbourhood weights are averaged; at most `k1`."""
    eps: float = Field(0.6, gt=0, lt=1)
    """The largest Jaccard distance between neighbours in a cluster."""
    min_samples: int = Field(4, ge=1)
    """How many images, itself among them, must lie within `eps` for an image to found a cluster."""
    method: Literal["dbscan", "components", "louvain"] = "dbscan"
    """What turns the graph of near images into clusters."""
    neighbour_method: Literal["exact", "ivf", "hnsw"] = "exact"
    """How neighbours are searched; `ivf` and `hnsw` miss some: the share they find is measured and recorded."""
    k1_counts_self: bool = True
    """Whether the image itself is one of the `k1`; false takes one neighbour more, as re-ranking does."""

    @model_validator(mode="after")
    def _neighbourhoods_fit(self) -> Self:
        if self.k2 > self.k1:
            raise ValueError(f"k2 is {self.k2}, more than k1, which is {self.k1}")
        return self


class LabellingConfig(BaseModel):
    """Pseudo-labels, each modality alone."""

    model_config = STRICT

    visible: ClusteringConfig = ClusteringConfig()
    """Clustering of the visible images."""
    infrared: ClusteringConfig = ClusteringConfig()
    """Clustering of the infrared images."""
    on_no_clusters: Literal["reuse_previous", "error"] = "reuse_previous"
    """What happens when a round finds no cluster in a modality; the first round always ends with an error."""
    max_outlier_share: float = Field(0.98, gt=0, le=1)
    """A larger share of images outside every cluster is reported as a warning."""
    max_largest_share: float = Field(0.2, gt=0, le=1)
    """A larger share of images in one single cluster is reported as a warning."""


class MatchingConfig(BaseModel):
    """Which visible cluster belongs to which infrared one: the pairs that swapping uses and that figures show."""

    model_config = STRICT

    method: Literal["hungarian", "mutual"] = "hungarian"
    """`hungarian`: one to one, the sum of similarities as large as possible; `mutual`: mutual nearest prototypes."""
    floor: float = Field(0.0, ge=-1, le=1)
    """Pairs whose prototypes are less similar than this are dropped."""


class MemoryConfig(BaseModel):
    """The cluster memory that batch features are compared with."""

    model_config = STRICT

    temperature: float = Field(0.05, gt=0)
    """What similarities are divided by before the softmax."""
    update: Literal["momentum", "hard"] = "momentum"
    """Which images of a batch move their cluster's prototype: `momentum` all in turn, `hard` the least similar one."""
    momentum: float = Field(0.1, ge=0, le=1)
    """The weight of the old prototype when an image is mixed in."""


class SwapConfig(BaseModel):
    """Swapping of matched prototypes between the visible and the infrared memory."""

    model_config = STRICT

    mode: Literal["released", "exchange", "off"] = "released"
    """`released`: one side at a time, as the authors' code does; `exchange`: both sides together."""
    trigger: Literal["any_member", "both_members"] = "any_member"
    """For `exchange`: whether one or both clusters of a pair must be in the batch."""
    start: int = Field(61, ge=1)
    """The first round of each stage that swaps."""
    scale: float = Field(0.1, ge=0, le=1)
    """The share of its own content that a swapped prototype keeps."""
    every: int | None = Field(1, ge=1)
    """Match the moving prototypes again at every such step; none keeps the pairs that the round began with."""


class PromptsConfig(BaseModel):
    """Cluster-aware prompt learning, and what its texts are used for."""

    model_config = STRICT

    text_weight: float = Field(1.0, ge=0)
    """Weight of the image-to-text loss in stage `clip`; 0 learns no prompts."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing of the image-to-text loss."""
    num_context: int = Field(4, ge=1, le=16)
    """How many learned words a cluster has."""
    epochs: int = Field(60, ge=1)
    """Passes over the features when prompts are first learned."""
    batch_size: int = Field(128, ge=1)
    """Images of each modality in a step of prompt learning."""
    learning_rate: float = Field(3.5e-4, gt=0)
    """Peak learning rate of prompt learning."""
    warmup_epochs: int = Field(5, ge=0)
    """Passes during which the learning rate climbs."""
    weight_decay: float = Field(1e-4, ge=0)
    """L2 weight on the learned words."""
    refresh_every: int | None = Field(None, ge=1)
    """Learn the prompts anew on the current clusters every so many rounds of stage `clip`; none learns them once."""
    refresh_epochs: int = Field(10, ge=1)
    """Passes of a refresh."""
    init: Literal["random", "warm"] = "random"
    """Whether a refresh starts from fresh words, or from those of the old cluster that shares most images."""
    feature_source: Literal["initial", "current"] = "initial"
    """Whose features a refresh learns on: those of the stage's initial encoder, or of the current one."""


class OptimisationConfig(BaseModel):
    """The optimiser of the image stages; the schedule is evaluated once a round."""

    model_config = STRICT

    learning_rate: float = Field(3.5e-4, gt=0)
    """Base learning rate of Adam."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 weight on every trained tensor."""
    bias_factor: float = Field(2.0, gt=0)
    """Learning rate of bias tensors relative to the others."""
    warmup_rounds: int = Field(10, ge=0)
    """Rounds during which the learning rate climbs to its base."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Share of the base learning rate that the warm-up starts from."""
    milestones: tuple[int, ...] = (30, 50)
    """Rounds of a stage at which the learning rate is multiplied by `gamma`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Factor at each milestone."""
    at_swap: Literal["continue", "restart", "fixed"] = "continue"
    """What the learning rate does when swapping starts: goes on, starts again (stage `clip` only), or gets fixed."""
    fixed_swap_learning_rate: float | None = Field(None, gt=0)
    """The value for `at_swap = "fixed"`."""


class StagesConfig(BaseModel):
    """How many rounds, and what passes from stage `prepare` to stage `clip`."""

    model_config = STRICT

    prepare_rounds: int = Field(120, ge=1, le=100_000)
    """Rounds of stage `prepare`: contrastive learning with cluster memories alone."""
    clip_rounds: int = Field(120, ge=0, le=100_000)
    """Rounds of stage `clip`: with the image-to-text loss; 0 ends the run after `prepare`."""
    carry_over: bool = False
    """Whether stage `clip` starts from the weights of stage `prepare` instead of CLIP."""
    label_export: Literal["epoch_start", "after_training"] = "epoch_start"
    """Which clusters prompts are learned on: those of the last round of `prepare`, or new ones after it."""


class CclnetConfig(BaseModel):
    """A complete experiment of the unsupervised method CCLNet."""

    model_config = STRICT
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
    """Which images."""
    images: ImagesConfig = ImagesConfig()
    """How they are stored and shown."""
    model: ModelConfig = ModelConfig()
    """Which CLIP."""
    stages: StagesConfig = StagesConfig()
    """How many rounds."""
    labelling: LabellingConfig = LabellingConfig()
    """Pseudo-labels."""
    matching: MatchingConfig = MatchingConfig()
    """Cluster pairs."""
    memory: MemoryConfig = MemoryConfig()
    """Cluster memories."""
    swap: SwapConfig = SwapConfig()
    """Memory swapping."""
    prompts: PromptsConfig = PromptsConfig()
    """Prompt learning and text loss."""
    batches: BatchesConfig = BatchesConfig()
    """Training batches."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes of training images."""
    optimisation: OptimisationConfig = OptimisationConfig()
    """Optimiser and schedule."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Retrieval tests."""
    execution: ExecutionConfig = ExecutionConfig()
    """Device, folders, tracking."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        optimisation, prompts = self.optimisation, self.prompts
        if "projection_neck" in self.evaluation.heads:
            raise ValueError("evaluation.heads: cclnet learns no 'projection_neck'; it has 'neck' and 'projection'")
        if (optimisation.at_swap == "fixed") != (optimisation.fixed_swap_learning_rate is not None):
            raise ValueError(
                "optimisation.fixed_swap_learning_rate goes with optimisation.at_swap = 'fixed', and only with it"
            )
        if prompts.refresh_every is not None and prompts.feature_source == "initial" and self.stages.carry_over:
            raise ValueError(
                "prompts.feature_source = 'initial' cannot be refreshed with stages.carry_over: choose 'current'"
            )
        return self

    @model_validator(mode="after")
    def _evaluation_fits_the_data(self) -> Self:
        refuse_unfit_evaluation(self.data, self.evaluation)
        return self

    @property
    def stage_lengths(self) -> tuple[tuple[str, int, bool], ...]:
        """Stages in order: name, number of rounds, whether images are trained on."""
        return ("prepare", self.stages.prepare_rounds, True), ("clip", self.stages.clip_rounds, True)
