"""The experiment of any method, for everything that methods share."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.csdn import CsdnConfig
from pipeline.config.datasets import Split
from pipeline.config.eees import EeesConfig
from pipeline.config.flat import settings_digest
from pipeline.config.shared import DataConfig, EvaluationConfig, ExecutionConfig, ImagesConfig, ModelConfig


@runtime_checkable
class AnyConfig(Protocol):
    """The settings of a method: a frozen pydantic model with the sections that everything outside methods reads.

    Attributes:
        flow: Name of the method's flow.
        title: As its authors call it.
        demo_preset: The preset of its demonstration.
        summary: What it trains with, for help texts.
    """

    flow: ClassVar[str]
    title: ClassVar[str]
    demo_preset: ClassVar[str]
    summary: ClassVar[str]

    @property
    def method(self) -> str:
        """The method; the default of this field is its name."""

    @property
    def name(self) -> str:
        """The experiment's name."""

    @property
    def seed(self) -> int:
        """Of all randomness."""

    @property
    def data(self) -> DataConfig:
        """Which images."""

    @property
    def images(self) -> ImagesConfig:
        """How they are stored and shown."""

    @property
    def model(self) -> ModelConfig:
        """Which CLIP."""

    @property
    def batches(self) -> Any:
        """Training batches; `batch_norm` is `synchronised` or `local`."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """Retrieval tests."""

    @property
    def execution(self) -> ExecutionConfig:
        """Device, folders, tracking."""

    @property
    def stage_lengths(self) -> tuple[tuple[str, int, bool], ...]:
        """Stages in order: name, number of rounds, whether images are trained on."""

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same settings with other values."""

    def model_dump(self, *, mode: str = ..., exclude_unset: bool = ...) -> dict[str, Any]:
        """The values; with mode `json` as plain JSON types."""

    @classmethod
    def model_validate(cls, obj: Any, /) -> Self:
        """Settings from nested values."""


CONFIGS: tuple[type[AnyConfig], ...] = (CclnetConfig, CsdnConfig, EeesConfig)
"""The settings of every method; `pipeline.methods.METHODS` has the methods themselves, in the same order."""


def method_name(config: type[Any]) -> str:
    """What a method's settings call it."""
    return str(config.model_fields["method"].default)


def with_split(config: AnyConfig, split: Split | None) -> AnyConfig:
    """The same experiment on another published split of its data set."""
    return config.model_copy(update={"data": config.data.model_copy(update={"split": split})})


def record_of(config: AnyConfig) -> dict[str, Any]:
    """The resolved values as plain JSON types."""
    return config.model_dump(mode="json")


def digest_of(config: AnyConfig) -> str:
    """Twelve hex digits over everything that decides the result."""
    return settings_digest(record_of(config))
