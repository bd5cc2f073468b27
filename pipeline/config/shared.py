"""Everything that a run can be told, as one value: the file's schema, the flow's parameter and MLflow's record.

Each section feeds one function and has that function's parameter names (a test compares them). Presets are the only
home of method values; a default here is a value that holds for every preset.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from pipeline.config.datasets import OPTIONS, Split, options_of, readers_of

STRICT = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
"""Of every section: a key that does not exist is an error, and the sentence under a field is its description."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]

KeptCheckpoints = Literal["last", "all"] | Annotated[int, Field(ge=1)]
"""Of which rounds: the last one, all, or every so many."""


class DataConfig(BaseModel):
    """Which images."""

    model_config = STRICT

    name: Annotated[str, Field(json_schema_extra={"enum": [options.name for options in OPTIONS]})] = "sysu"
    """The data set: `sysu`, `regdb`, `llcm` or `manifest`."""
    root: Path | None = None
    """The folder that holds the data set, or the manifest file; nothing is ever written below it."""
    split: Split | None = Field(None, validate_default=True)
    """A published split. SYSU-MM01: `train_val`, or `train`, which leaves people to validate; RegDB: 1 to 10."""
    images_root: Path | None = None
    """The folder that a manifest's paths start from; none takes the manifest's own."""
    allow_overlap: bool = False
    """Let a manifest name the same person in training and in test; every report then says `overlap`."""
    allow_partial: bool = False
    """Go on with a data set whose counts differ from the published ones; every report then says `partial`."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_trial(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "trial" in values:
            raise ValueError("data.trial, RegDB's published split, is called data.split now; a trial is a gallery draw")
        return values

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        if name not in {options.name for options in OPTIONS}:
            raise ValueError(f"there is no data set {name!r}; one of {', '.join(options.name for options in OPTIONS)}")
        return name

    @field_validator("split")
    @classmethod
    def _known_split(cls, split: Split | None, info: ValidationInfo) -> Split | None:
        """The usual split where none is named; a number may come as text."""
        if "name" not in info.data:
            return split
        options = options_of(info.data["name"])
        if split is None:
            return options.default_split
        known = {str(one): one for one in options.splits}
        if str(split) not in known:
            choices = f"one of {', '.join(known)}" if known else "it has one split only: leave data.split out"
            raise ValueError(f"{options.name} has no split {split!r}; {choices}")
        return known[str(split)]


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
    """The name of an open_clip architecture; `demo` and folders bring their own. Or `resnet50`, which knows no text."""
    weights: str = "openai"
    """An open_clip tag, the path of a weights file or of an open_clip folder, `demo`, `random`, or `imagenet`."""


class GalleryRulesConfig(BaseModel):
    """What the protocol of a user's own data, a manifest, leaves open."""

    model_config = STRICT

    exclude: Literal["none", "same_person_same_camera", "same_camera"] | None = None
    """Gallery images a query never sees; none: its own person in its own camera, if cameras have both modalities."""
    gallery: Literal["full", "one_per_person_camera"] = "full"
    """Every gallery image, or one drawn for each person and camera."""
    rank_by: Literal["person", "image"] = "person"
    """Whether a rank counts the people or the images before the first match."""


class EvaluationConfig(BaseModel):
    """How retrieval is measured; only `selection` lets it have a say in anything."""

    model_config = STRICT

    every: int = Field(5, ge=1)
    """Measure after every so many rounds of a stage, and after its last."""
    searches: tuple[str, ...] = ()
    """Which searches are run, the headline first; none named: all published ones of the data set."""
    draws: tuple[Literal["agw", "official"], ...] = Field(("agw",), min_length=1)
    """How galleries of SYSU-MM01 are drawn; `official` is added at the end of a run where its file is present."""
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1)
    """Gallery images of a person and camera of SYSU-MM01; each number is a search of its own."""
    trials: int = Field(10, ge=1, le=100)
    """How many random galleries are averaged."""
    heads: tuple[Literal["neck", "projection", "projection_neck"], ...] = Field(("neck",), min_length=1)
    """Which features of the encoder stand side by side in the vector that is compared."""
    flip: Literal["none", "mean", "concat"] = "none"
    """Whether features of the mirrored image are added."""
    rerank: Literal["none", "k_reciprocal"] = "none"
    """Whether the end of a run is also measured with re-ranking, as an entry of its own."""
    selection: Literal["last", "val", "test_best"] = "last"
    """Which round is the result: the last, the best on validation images, or the best on the test set, as others do."""
    rules: GalleryRulesConfig = GalleryRulesConfig()
    """What a manifest's protocol leaves open."""


class ExecutionConfig(BaseModel):
    """Where and how fast a run runs.

    No value here changes a result on the CPU, and none is part of the digest; except `processes` with
    `batches.batch_norm = "local"`.
    """

    model_config = STRICT

    device: str = "auto"
    """`auto` takes a GPU where there is one; `cpu`, `cuda`, `cuda:1`."""
    runs_folder: Path = Path("runs")
    """Where run folders, decoded images and the local MLflow store live."""
    extraction_batch_size: int | None = Field(None, ge=1)
    """Images encoded at once when features are extracted; none takes 64 on a CPU and 512 on a GPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the network computes in on a GPU; `auto` is bfloat16. Losses and memories stay in float32, as does a CPU."""
    compile: bool = False
    """Whether torch.compile makes the network's code first: minutes at the start, faster steps on a GPU."""
    processes: int = Field(1, ge=1, le=1024)
    """How many ranks train together, on a GPU each; torchrun, which starts those of several machines, sets it."""
    image_memory_share: float = Field(0.5, ge=0, le=1)
    """The largest share of a GPU's free memory for the decoded training images; larger sets are streamed."""
    decode_workers: int | None = Field(None, ge=1)
    """How many images are decoded at once; none takes one a core."""
    tracking: bool = True
    """Whether rounds are logged to MLflow."""
    figures: bool = True
    """Whether figures of each round are drawn: of clusters, features, matching, texts, and of what queries found."""
    register_model: bool = True
    """Whether the result's encoder is logged in MLflow at the end and registered, a model for each modality."""
    keep_checkpoints: KeptCheckpoints = "last"
    """Which checkpoints stay: that of the last finished round, those of `all` rounds, or of every so many rounds."""
    log_checkpoints: bool = False
    """Whether checkpoints that are kept go to MLflow as well, each with its round."""
    system_metrics: bool = True
    """Whether MLflow is told every 10 s how busy the machine is: processor, memory, disk, network, GPUs."""


def refuse_unfit_evaluation(data: DataConfig, evaluation: EvaluationConfig) -> None:
    """Refuse searches, draws and choices that a data set has no images for.

    Raises:
        ValueError: Naming the setting.
    """
    options = options_of(data.name)
    strangers = [search for search in evaluation.searches if search not in options.searches]
    if strangers:
        raise ValueError(
            f"evaluation.searches: {strangers[0]} is no search of data.name = '{data.name}'; "
            f"its searches are {', '.join(options.searches)}"
        )
    for setting in sorted({name for one in OPTIONS for name in one.settings} - options.settings):
        section, _, name = setting.partition(".")
        values = data if section == "data" else evaluation
        if getattr(values, name) != type(values).model_fields[name].default:
            raise ValueError(
                f"{setting} does not apply to data.name = '{data.name}', but to {readers_of(setting)}: leave it out"
            )
    if "evaluation.rules" in options.settings and evaluation.rules.gallery == "full" and evaluation.trials != 10:
        raise ValueError("evaluation.trials applies to drawn galleries: evaluation.rules.gallery is 'full'")
    if "official" in evaluation.draws and evaluation.trials > 10:
        raise ValueError(f"evaluation.trials is {evaluation.trials}; the draw 'official' of evaluation.draws has 10")
    if evaluation.selection == "val" and options.validation is not None and data.split not in options.validation:
        raise ValueError(
            "evaluation.selection = 'val' needs images that are not trained on: data.split = 'train' of sysu, "
            "or a manifest with rows `val`"
        )
