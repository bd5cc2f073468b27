"""Changes to a preset, as the parameter of a deployed flow: every field of a configuration, none of them required.

A configuration itself will not do: what is left out would take the defaults of its class, not the preset's values, and
rules between fields would be asked of fields that nobody has named.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.annotated_handlers import GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

from pipeline.config.experiment import AnyConfig

_PARTIAL = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChangesTo:
    """Says of a parameter that it holds changes to a configuration: `Annotated[BaseModel, ChangesTo(CsdnConfig)]`.

    Args:
        model: The configuration; its fields keep their types, bounds and descriptions.
    """

    def __init__(self, model: type[AnyConfig]) -> None:
        self.partial = _partial(model)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # No parameter is no change: Prefect asks of what is left out, too, whether it is right.
        return no_info_before_validator_function(
            lambda value: {} if value is None else value, handler.generate_schema(self.partial)
        )


def changed_values(changes: BaseModel | None) -> Mapping[str, Any]:
    """What somebody has named, section by section, as plain JSON types; a value of None counts."""
    return {} if changes is None else changes.model_dump(mode="json", exclude_unset=True)


def _partial(model: type[Any]) -> type[BaseModel]:
    """The same sections and fields, each with a default."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            section = _partial(kind)
            fields[name] = (section, Field(default_factory=section, description=field.description))
        else:
            bounded = Annotated[kind, *field.metadata] if field.metadata else kind
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            fields[name] = (bounded, Field(default, description=field.description))
    changes: type[BaseModel] = create_model(model.__name__, __config__=_PARTIAL, __doc__=model.__doc__, **fields)
    return changes
