"""The experiment of any method: its settings, their digest, and its plan of rounds."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.csdn import CsdnConfig
from pipeline.config.datasets import Split, options_of
from pipeline.config.eees import EeesConfig
from pipeline.config.shared import DataConfig, EvaluationConfig, ExecutionConfig, ImagesConfig, ModelConfig


@runtime_checkable
class AnyConfig(Protocol):
    """The settings of a method: a frozen pydantic model with the sections that code outside methods reads."""

    flow: ClassVar[str]
    title: ClassVar[str]
    demo_preset: ClassVar[str]
    summary: ClassVar[str]

    @property
    def method(self) -> str:
        """The method's name."""

    @property
    def name(self) -> str:
        """The experiment's name."""

    @property
    def seed(self) -> int:
        """Seed of all randomness."""

    @property
    def data(self) -> DataConfig:
        """The data set and its split."""

    @property
    def images(self) -> ImagesConfig:
        """Size and normalisation of images."""

    @property
    def model(self) -> ModelConfig:
        """The pretrained model."""

    @property
    def batches(self) -> Any:
        """Training batches; `batch_norm` is `synchronised` or `local`."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """How retrieval is measured."""

    @property
    def execution(self) -> ExecutionConfig:
        """Device, folders, tracking."""

    @property
    def stage_lengths(self) -> tuple[tuple[str, int, bool], ...]:
        """Stages in order: name, number of rounds, whether the encoder is trained on images."""

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same settings with other values."""

    def model_dump(self, *, mode: str = ..., exclude_unset: bool = ...) -> dict[str, Any]:
        """The values; with mode `json` as plain JSON types."""

    @classmethod
    def model_validate(cls, obj: Any, /) -> Self:
        """Settings from nested values."""


CONFIGS: tuple[type[AnyConfig], ...] = (CclnetConfig, CsdnConfig, EeesConfig)
"""The settings of every method; `pipeline.methods.METHODS` has the methods themselves, in the same order."""

Stage = str
"""The name of a training stage, such as `prepare`; each method has its own."""

_SHOWN = 4
PATHS = {"data": ("root", "images_root"), "captions": ("path",)}
"""Settings that are paths: the digest omits them, since a resumed run compares digests of the files themselves."""
_ADDED: Mapping[str, Mapping[str, Any]] = {"data": {"orientation": None, "deep_range": "image", "unreadable": "refuse"}}
"""Settings that runs of earlier versions lack, with the values that these runs have: the digest omits these values."""

_ADDED_TO: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cclnet": {
        "augmentation": {"channel": "grayscale"},
        "loss": {
            "contrast": "per_modality", "start": 1, "min_mutual_share": 0.0, "cross_weight": 0.25, "distillation": 0.0,
            "confidence": False,
        },
        "labelling": {
            "space": "per_modality", "start": 1, "min_two_modality_share": 0.05, "relabel": "none",
            "densest": 20, "subset": 1.0, "outliers": "drop", "soft": "none", "soft_neighbours": 30,
            "joint": {"k1": 30, "k2": 6, "eps": 0.6, "min_samples": 4, "method": "dbscan"},
        },
        "matching": {"cost": "prototype", "local_scaling": 0},
        "memory": {
            "hard": False, "hard_margin": 0.2, "cameras": "ignored", "camera_weight": 0.5, "camera_negatives": 50,
        },
        "prompts": {
            "logits": "product", "scale": 20.0, "shared": False, "cross_weight": 0.0, "refresh_agreement": None,
        },
    }
}  # fmt: skip
"""The same, of one method."""


def method_name(config: type[Any]) -> str:
    """The name of the method that a settings class belongs to."""
    return str(config.model_fields["method"].default)


def with_split(config: AnyConfig, split: Split | None) -> AnyConfig:
    """The same experiment on another published split of its data set."""
    return config.model_copy(update={"data": config.data.model_copy(update={"split": split})})


def with_seed(config: AnyConfig, seed: int) -> AnyConfig:
    """The same experiment with another seed."""
    return config.model_copy(update={"seed": seed})


def record_of(config: AnyConfig) -> dict[str, Any]:
    """The resolved values as plain JSON types."""
    return config.model_dump(mode="json")


def digest_of(config: AnyConfig) -> str:
    """Twelve hex digits over every value that affects results: all but `execution` and paths of files.

    Settings that earlier versions lack do not count at their default, so that their runs can be resumed.
    `execution.processes` counts where it affects results: with `batches.batch_norm = "local"`.
    """
    values = record_of(config)
    execution = values.pop("execution")
    for section in PATHS.keys() & values.keys():
        values[section] = {name: value for name, value in values[section].items() if name not in PATHS[section]}
    for section, added in {**_ADDED, **_ADDED_TO.get(config.method, {})}.items():
        kept = {name: value for name, value in values[section].items() if name not in added or value != added[name]}
        if kept:
            values[section] = kept
        else:
            del values[section]  # a section that earlier versions lack
    if execution["processes"] > 1 and values["batches"]["batch_norm"] == "local":
        values["execution"] = {"processes": execution["processes"]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings, in their order.

    >>> dict(flat({"seed": 1, "labelling": {"eps": 0.6, "searches": ["all", "indoor"]}}))
    {'seed': 1, 'labelling.eps': 0.6, 'labelling.searches': ['all', 'indoor']}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def recorded_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names and values of recorded settings, with those that earlier versions lack."""
    return dict(flat({**_ADDED, **_ADDED_TO.get(str(settings.get("method")), {})})) | dict(flat(settings))


def marks_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Marks in the reports of a run whose results belong in a table of their own, from its recorded settings."""
    return ("cameras used",) if recorded_values(settings).get("memory.cameras") == "proxies" else ()


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `after` that differ from `before`, sorted by dotted name; without seed, `execution` and paths.

    The split is omitted where each split has a model of its own.

    >>> changed_settings({"seed": 1, "swap": {"mode": "released"}}, {"seed": 2, "swap": {"mode": "off"}})
    {'swap.mode': 'off'}
    """
    then, now = recorded_values(before), recorded_values(after)
    omitted = {"seed"} | {f"{section}.{name}" for section, names in PATHS.items() for name in names}
    if "data.name" in now and options_of(now["data.name"]).model_per_split:
        omitted.add("data.split")
    names = sorted(name for name in now.keys() - omitted if not name.startswith("execution."))
    return {name: now[name] for name in names if now[name] != then.get(name)}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first few settings that differ, sorted by name, as a phrase of an error message.

    >>> differences({"seed": 1, "labelling": {"eps": 0.6}}, {"seed": 1, "labelling": {"eps": 0.5}})
    'labelling.eps 0.6 there, 0.5 here'
    """
    then, now = recorded_values(there), recorded_values(here)
    names = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    shown = [f"{name} {then.get(name)!r} there, {now.get(name)!r} here" for name in names[:_SHOWN]]
    return "; ".join(shown) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


@dataclass(frozen=True, slots=True)
class Round:
    """One round. CCLNet: cluster, then train one epoch; supervised methods: an epoch, or a stage without epochs.

    `number` counts through the whole run from 1, `epoch` inside its stage; schedules and swapping follow `epoch`.
    """

    number: int
    stage: Stage
    epoch: int
    last_of_stage: bool
    trains_images: bool = True

    @property
    def first_of_stage(self) -> bool:
        """Whether a stage begins with it."""
        return self.epoch == 1

    @property
    def name(self) -> str:
        """The round in names of tasks and files: `r012`."""
        return f"r{self.number:03d}"


def planned_rounds(config: AnyConfig) -> tuple[Round, ...]:
    """All rounds of a run in order, including finished ones."""
    return number_rounds(*config.stage_lengths)


def number_rounds(*lengths: tuple[Stage, int, bool]) -> tuple[Round, ...]:
    """All rounds in order, from each stage's name, number of rounds, and whether it trains the encoder on images.

    >>> [(r.number, r.stage, r.epoch, r.last_of_stage) for r in number_rounds(("prepare", 2, True), ("clip", 1, True))]
    [(1, 'prepare', 1, False), (2, 'prepare', 2, True), (3, 'clip', 1, True)]
    """
    stages = [
        (stage, epoch, epoch == length, trains) for stage, length, trains in lengths for epoch in range(1, length + 1)
    ]
    return tuple(Round(number, *position) for number, position in enumerate(stages, start=1))
