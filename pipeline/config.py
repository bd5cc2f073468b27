"""Everything that a run can be told, as one value: the file's schema, the flow's parameter and MLflow's record.

Each section feeds one function and has that function's parameter names (a test compares them). Presets are the only
home of method values; a default here is a value that holds for every preset.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from pipeline.method_config import (
    STRICT,
    AugmentationConfig,
    BatchesConfig,
    LabellingConfig,
    MatchingConfig,
    MemoryConfig,
    OptimisationConfig,
    PromptsConfig,
    StagesConfig,
    SwapConfig,
)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Search = Literal["sysu/all", "sysu/indoor"]


class DataConfig(BaseModel):
    """Which images."""

    model_config = STRICT

    name: Literal["sysu"] = "sysu"
    """The data set's layout."""
    root: Path | None = None
    """The folder that holds the data set; nothing is ever written below it."""
    split: Literal["train", "train_val"] = "train_val"
    """The people to train on: `train_val` is what published results use."""
    allow_partial: bool = False
    """Go on with a data set whose counts differ from the published ones; every report then says `partial`."""


class ImagesConfig(BaseModel):
    """How images are stored and shown to the encoder."""

    model_config = STRICT

    height: int = Field(288, ge=16, le=1024)
    """Rows of pixels after decoding."""
    width: int = Field(144, ge=16, le=1024)
    """Columns of pixels after decoding."""
    normalisation: Literal["imagenet", "clip"] = "imagenet"
    """Whose mean and standard deviation of the colours are used."""


class ModelConfig(BaseModel):
    """Which CLIP the encoder starts from."""

    model_config = STRICT

    architecture: str = "RN50-quickgelu"
    """The name of an open_clip architecture; `demo` and folders bring their own and ignore it."""
    weights: str = "openai"
    """An open_clip tag, the path of a weights file or of an open_clip folder, `demo`, or `random`."""


class EvaluationConfig(BaseModel):
    """How retrieval is measured; nothing of it feeds back into training."""

    model_config = STRICT

    every: int = Field(5, ge=1)
    """Measure after every so many rounds of a stage, and after its last."""
    searches: tuple[Search, ...] = ("sysu/all", "sysu/indoor")
    """Which searches are run."""
    trials: int = Field(10, ge=1, le=100)
    """How many random galleries are averaged."""
    flip: Literal["none", "mean", "concat"] = "none"
    """Whether features of the mirrored image are added."""


class ExecutionConfig(BaseModel):
    """Where and how fast a run runs; no value here changes a result on the CPU, and none is part of the digest."""

    model_config = STRICT

    device: str = "auto"
    """`auto` takes a GPU where there is one; `cpu`, `cuda`, `cuda:1`."""
    runs_folder: Path = Path("runs")
    """Where run folders, decoded images and the local MLflow store live."""
    extraction_batch_size: int = Field(64, ge=1)
    """Images encoded at once when features are extracted."""
    decode_workers: int | None = Field(None, ge=1)
    """How many images are decoded at once; none takes one a core."""
    tracking: bool = True
    """Whether rounds are logged to MLflow."""


class ExperimentConfig(BaseModel):
    """A complete experiment of the unsupervised method."""

    model_config = STRICT

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
        if (optimisation.at_swap == "fixed") != (optimisation.fixed_swap_learning_rate is not None):
            raise ValueError(
                "optimisation.fixed_swap_learning_rate goes with optimisation.at_swap = 'fixed', and only with it"
            )
        if prompts.refresh_every is not None and prompts.feature_source == "initial" and self.stages.carry_over:
            raise ValueError(
                "prompts.feature_source = 'initial' cannot be refreshed with stages.carry_over: choose 'current'"
            )
        return self

    def record(self) -> dict[str, Any]:
        """The resolved values as plain JSON types."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """Twelve hex digits over everything that decides the result: all but `execution` and the place of the data."""
        deciding = self.model_dump(mode="json", exclude={"execution": True, "data": {"root"}})
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]
