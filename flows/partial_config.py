"""Changes to a preset, as the parameter of a deployed flow: a copy of the settings in which every field is optional.

With the settings class itself, missing fields would take class defaults instead of the preset's values, and validators
across fields would run on fields that the user has not set.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.annotated_handlers import GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from pipeline.config.experiment import AnyConfig

_FIRST = ("seed", "data", "stages", "execution", "evaluation")
"""Settings that most runs change."""

_LAST = ("optimisation", "batches", "augmentation", "images", "model", "name", "method")
"""Settings that few runs change."""

_PARTIAL = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChangesTo:
    """Annotation of a parameter that holds changes to `model`: `Annotated[BaseModel, ChangesTo(CsdnConfig)]`."""

    def __init__(self, model: type[AnyConfig]) -> None:
        self.partial = _partial(model)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Prefect also validates a missing parameter, as None: it means no changes.
        return no_info_before_validator_function(
            lambda value: {} if value is None else value, handler.generate_schema(self.partial)
        )


def changed_values(changes: BaseModel | None) -> Mapping[str, Any]:
    """The values that the user has set, as nested plain JSON types; None is a value."""
    return {} if changes is None else changes.model_dump(mode="json", exclude_unset=True)


def changes_from(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The part of nested `changes` that differs from `values`.

    >>> changes_from({"seed": 1, "swap": {"mode": "off", "scale": 0.1}}, {"seed": 2, "swap": {"mode": "off"}})
    {'seed': 2}
    """
    different: dict[str, Any] = {}
    for name, change in changes.items():
        if name not in values:
            different[name] = change
        elif isinstance(change, Mapping) and isinstance(values[name], Mapping):
            if inner := changes_from(values[name], change):
                different[name] = inner
        elif change != values[name]:
            different[name] = change
    return different


def _partial(model: type[Any], path: tuple[str, ...] = ()) -> type[BaseModel]:
    """The same sections and fields, with types, bounds, descriptions, titles, and a default for each.

    Sections that most runs set come first, those that few runs set come last.
    """
    fields: dict[str, Any] = {}
    for name, field in sorted(model.model_fields.items(), key=lambda item: _rank(item[0]) if not path else 0):
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            section = _partial(kind, (*path, name))
            description, title = field.description or kind.__doc__, _title(kind, (*path, name))
            fields[name] = (section, Field(default_factory=section, title=title, description=description))
        else:
            bounded = Annotated[kind, *field.metadata] if field.metadata else kind
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            extra = field.json_schema_extra
            fields[name] = (bounded, Field(default, description=field.description, json_schema_extra=extra))
    changes: type[BaseModel] = create_model(model.__name__, __config__=_PARTIAL, __doc__=model.__doc__, **fields)
    return changes


def _rank(name: str) -> int:
    """The place of a setting in the form."""
    if name in _FIRST:
        return _FIRST.index(name)
    return len(_FIRST) + (1 + _LAST.index(name) if name in _LAST else 0)


def _title(section: type[Any], path: tuple[str, ...]) -> str:
    """The heading of a group: `Labelling`; inside another group `Clustering, visible`."""
    *outer, name = path
    if not outer:
        return name.capitalize()
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", section.__name__.removesuffix("Config")).capitalize()
    return words if name in words.lower().split() else f"{words}, {name}"
