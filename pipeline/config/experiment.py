"""The experiment of any method, for everything that methods share."""

from typing import Any

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.csdn import CsdnConfig
from pipeline.config.datasets import Split
from pipeline.config.eees import EeesConfig
from pipeline.config.flat import settings_digest

SupervisedConfig = CsdnConfig | EeesConfig
"""Of a method that is told who is shown in each training image."""

AnyConfig = CclnetConfig | SupervisedConfig
"""Which one it is, its field `method` says."""

CONFIGS: tuple[type[AnyConfig], ...] = (CclnetConfig, CsdnConfig, EeesConfig)
"""The settings of every method; `pipeline.methods.METHODS` has the methods themselves, in the same order."""


def method_name(config: type[AnyConfig]) -> str:
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
