"""Sections of the settings that all methods share. The settings are schema of a file, flow parameter and MLflow record.

A section has the parameter names of the function that it configures (a test compares them). Method values are in
presets; a default here holds for every preset.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.config.datasets import OPTIONS, DeepRange, OnUnreadable, Orientation, Split, options_of, readers_of
from pipeline.runtime.names import did_you_mean

STRICT = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
"""Of every section: unknown keys are errors, and the sentence under a field is its description."""


def _at_home(value: Any) -> Any:
    """A path with the home folder for `~` at its beginning, as shells replace it; they do not after `=`."""
    if isinstance(value, str | Path) and "\0" in str(value):
        raise ValueError("a path contains no NUL character")
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 - `./~` is no home folder


UserPath = Annotated[Path, BeforeValidator(_at_home)]
"""A path of a user: `~` at its beginning is the home folder."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


def _known_name(name: str) -> str:
    if name not in _NAMES:
        raise ValueError(f"there is no data set {name!r}; {did_you_mean(name, _NAMES)}one of {', '.join(_NAMES)}")
    return name


_NAMES = [options.name for options in OPTIONS]
DatasetName = Annotated[str, AfterValidator(_known_name), Field(json_schema_extra={"enum": _NAMES})]

KeptCheckpoints = Literal["last", "all"] | Annotated[int, Field(ge=1)]
"""Rounds whose checkpoints are kept: the last one, all, or every n-th."""


class DataConfig(BaseModel, **STRICT):
    """The data set and its split."""

    name: DatasetName = "sysu"
    """The data set: `sysu`, `regdb`, `llcm` or `manifest`."""
    root: UserPath | None = None
    """The folder of the data set, or the manifest file; read only."""
    split: Split | None = Field(None, validate_default=True)
    """A published split. SYSU-MM01: `train_val`, or `train`, which keeps people for validation; RegDB: 1 to 10."""
    images_root: UserPath | None = None
    """Base folder of the paths in a manifest; default: the manifest's own folder."""
    allow_overlap: bool = False
    """Accept a manifest with the same person in training and test; reports are then marked `overlap`."""
    allow_partial: bool = False
    """Accept a data set whose counts differ from the published ones; reports are then marked `partial`."""
    orientation: Orientation | None = None
    """Orientation tags of images: `apply`, or `ignore`, as for crops; default: `apply` for manifests only."""
    deep_range: DeepRange = "image"
    """Values of images of more than 8 bits that become black and white: of each `image`, or fixed `[low, high]`."""
    unreadable: OnUnreadable = "refuse"
    """Images that cannot be read: `refuse` the data set, or `skip` these images; the run records them."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_trial(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "trial" in values:
            raise ValueError("data.trial, RegDB's published split, is called data.split now; a trial is a gallery draw")
        return values

    @field_validator("deep_range")
    @classmethod
    def _ascending(cls, deep_range: DeepRange) -> DeepRange:
        if deep_range != "image" and deep_range[0] >= deep_range[1]:
            raise ValueError(f"{deep_range[0]:g} is not below {deep_range[1]:g}")
        return deep_range

    @field_validator("split")
    @classmethod
    def _known_split(cls, split: Split | None, info: ValidationInfo) -> Split | None:
        """The default split if none is given; accepts numbers as strings."""
        if "name" not in info.data:
            return split
        options = options_of(info.data["name"])
        if split is None:
            return options.default_split
        known = {str(one): one for one in options.splits}
        if str(split) not in known:
            choices = f"one of {', '.join(known)}" if known else "it has one split only: remove data.split"
            raise ValueError(f"{options.name} has no split {split!r}; {choices}")
        return known[str(split)]


class ImagesConfig(BaseModel, **STRICT):
    """Size and normalisation of images."""

    height: int = Field(288, ge=16, le=1024)
    """Rows of pixels after decoding."""
    width: int = Field(144, ge=16, le=1024)
    """Columns of pixels after decoding."""
    normalisation: Literal["imagenet", "clip"] = "imagenet"
    """Mean and standard deviation of the channels."""


class ModelConfig(BaseModel, **STRICT):
    """The pretrained model that initialises the encoder."""

    architecture: str = "RN50-quickgelu"
    """An open_clip architecture, ignored for `demo` and folders; or `resnet50`, which has no text encoder."""
    weights: Annotated[str, BeforeValidator(_at_home)] = "openai"
    """An open_clip tag, the path of a weights file or of an open_clip folder, `demo`, `random`, or `imagenet`."""


class GalleryRulesConfig(BaseModel, **STRICT):
    """Protocol options for manifests."""

    exclude: Literal["none", "same_person_same_camera", "same_camera"] | None = None
    """Gallery images excluded for a query; default: same person and camera, if cameras have both modalities."""
    gallery: Literal["full", "one_per_person_camera"] = "full"
    """Every gallery image, or one sampled for each person and camera."""
    rank_by: Literal["person", "image"] = "person"
    """Whether ranks count people or images before the first match."""


class EvaluationConfig(BaseModel, **STRICT):
    """How retrieval is measured. Evaluation never affects training; `selection` decides which round is reported."""

    every: int = Field(5, ge=1)
    """Evaluate after every n-th round of a stage, and after its last."""
    searches: tuple[str, ...] = ()
    """Searches to run, the headline first; empty: all published ones of the data set."""
    draws: tuple[Literal["agw", "official"], ...] = Field(("agw",), min_length=1)
    """How galleries of SYSU-MM01 are sampled; `official` is added at the end of a run if its file is present."""
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1)
    """Gallery images per person and camera of SYSU-MM01; each number is a separate search."""
    trials: int = Field(10, ge=1, le=100)
    """Number of random galleries to average."""
    heads: tuple[Literal["neck", "projection", "projection_neck"], ...] = Field(("neck",), min_length=1)
    """Encoder outputs that are concatenated to the compared feature vector."""
    flip: Literal["none", "mean", "concat"] = "none"
    """Average or concatenate features of the mirrored image."""
    rerank: Literal["none", "k_reciprocal"] = "none"
    """Also evaluate the final result with re-ranking, as a separate entry."""
    selection: Literal["last", "val", "test_best"] = "last"
    """The reported round: the last, the best on validation images, or the best on the test set."""
    rules: GalleryRulesConfig = GalleryRulesConfig()


class ExecutionConfig(BaseModel, **STRICT):
    """Device, speed, folders and tracking.

    On a CPU no value here affects results, and none is in the digest; except `processes` with
    `batches.batch_norm = "local"`.
    """

    device: str = "auto"
    """`auto` (a GPU if available), `cpu`, `cuda`, or `cuda:1`."""
    runs_folder: UserPath = Path("runs")
    """Folder of run folders, decoded images and the local MLflow store."""
    extraction_batch_size: int | None = Field(None, ge=1)
    """Batch size of feature extraction; default: 64 on a CPU, 512 on a GPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the network on a GPU; `auto` is bfloat16. Losses, memories and CPUs use float32."""
    compile: bool = False
    """Use torch.compile: minutes at the start, faster steps on a GPU."""
    processes: int = Field(1, ge=1, le=1024)
    """Number of ranks, one GPU each; set by torchrun, which starts the ranks of several machines."""
    image_memory_share: float = Field(0.5, ge=0, le=1)
    """Largest fraction of free GPU memory for decoded training images; larger sets are streamed."""
    decode_workers: int | None = Field(None, ge=1)
    """Images decoded at once; default: one per core."""
    tracking: bool = True
    """Log rounds to MLflow."""
    figures: bool = True
    """Draw figures of each round: clusters, features, matching, text prototypes, retrieved images."""
    register_model: bool = True
    """Log and register the final encoder in MLflow, a model for each modality."""
    keep_checkpoints: KeptCheckpoints = "last"
    """Checkpoints to keep: of the last finished round, of `all` rounds, or of every n-th round."""
    log_checkpoints: bool = False
    """Log kept checkpoints to MLflow, each with its round."""
    system_metrics: bool = True
    """Log use of processor, memory, disk, network and GPUs to MLflow every 10 s."""


class PersonNetworkConfig(BaseModel, **STRICT):
    """Changes to CLIP's image tower."""

    stem_activation: Literal["clip", "last"] = "clip"
    """ReLUs of the stem: all three of CLIP, or the last one only (a bug of the released code)."""


class PersonStagesConfig(BaseModel, **STRICT):
    """Length of the image stage; text prototypes are learned before it."""

    image_rounds: int = Field(120, ge=1, le=100_000)
    """Epochs of training on images."""


class PersonBatchesConfig(BaseModel, **STRICT):
    """Composition of a training batch: the same people in both modalities."""

    people_per_batch: int = Field(8, ge=2)
    """People in a batch."""
    images_per_person: int = Field(4, ge=2)
    """Images per person and modality; visible images get two views."""
    replacement: Literal["always", "when_short"] = "always"
    """Sample a person's images with replacement always, or only if there are too few."""
    batch_norm: Literal["synchronised", "local"] = "synchronised"
    """Synchronise batch-norm statistics across ranks, or compute them per rank (results depend on the ranks)."""


class PersonAugmentationConfig(BaseModel, **STRICT):
    """Random augmentation of training images."""

    recipe: Literal["channels", "plain"] = "channels"
    """`channels`: channel exchange in second views and infrared images; `plain`: no channel augmentation."""
    padding: int = Field(10, ge=0, le=64)
    """Black pixels added on every side before the random crop."""


class PersonOptimisationConfig(BaseModel, **STRICT):
    """Optimiser and schedule of the image stage."""

    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate, reached after the warm-up."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay (L2)."""
    head_factor: float = Field(2.0, gt=0)
    """Learning rate of pooling, necks and classifiers relative to the rest."""
    warmup_rounds: int = Field(10, ge=0)
    """Rounds of linear warm-up."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """Fraction of the learning rate at which the warm-up starts."""
    milestones: tuple[int, ...] = (40, 70)
    """Rounds, counted from 0, at which the learning rate is multiplied by `gamma`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Learning rate factor at each milestone."""


def refuse_unfit_evaluation(data: DataConfig, evaluation: EvaluationConfig) -> None:
    """Refuse evaluation settings that do not apply to the data set, by a `ValueError` that names the setting."""
    options = options_of(data.name)
    unknown = [search for search in evaluation.searches if search not in options.searches]
    if unknown:
        raise ValueError(
            f"evaluation.searches: {unknown[0]} is no search of data.name = '{data.name}'; "
            f"its searches are {', '.join(options.searches)}"
        )
    for setting in sorted({name for one in OPTIONS for name in one.settings} - options.settings):
        section, _, name = setting.partition(".")
        values = data if section == "data" else evaluation
        if getattr(values, name) != type(values).model_fields[name].default:
            raise ValueError(
                f"{setting} does not apply to data.name = '{data.name}', but to {readers_of(setting)}: remove it"
            )
    if "evaluation.rules" in options.settings and evaluation.rules.gallery == "full" and evaluation.trials != 10:
        raise ValueError("evaluation.trials applies to sampled galleries: evaluation.rules.gallery is 'full'")
    if "official" in evaluation.draws and evaluation.trials > 10:
        raise ValueError(f"evaluation.trials is {evaluation.trials}; the draw 'official' of evaluation.draws has 10")
    if evaluation.selection == "val" and options.validation is not None and data.split not in options.validation:
        raise ValueError(
            "evaluation.selection = 'val' needs validation images: data.split = 'train' of sysu, "
            "or a manifest with rows `val`"
        )
