"""Changes to a preset, as the parameter of a deployed flow: a copy of the settings in which every field is optional.

With the settings class itself, missing fields would take class defaults instead of the preset's values, and validators
across fields would run on fields that the user has not set.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.annotated_handlers import GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from pipeline.config.experiment import AnyConfig

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


def _partial(model: type[Any]) -> type[BaseModel]:
    """The same sections and fields, with types, bounds, descriptions, and a default for each."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            section = _partial(kind)
            description = field.description or kind.__doc__
            fields[name] = (section, Field(default_factory=section, description=description))
        else:
            bounded = Annotated[kind, *field.metadata] if field.metadata else kind
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            extra = field.json_schema_extra
            fields[name] = (bounded, Field(default, description=field.description, json_schema_extra=extra))
    changes: type[BaseModel] = create_model(model.__name__, __config__=_PARTIAL, __doc__=model.__doc__, **fields)
    return changes
