"""Changes to a preset: every field of a configuration, none of them required."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from flows.partial_config import ChangesTo, changed_values
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.csdn import CsdnConfig
from pipeline.config.eees import EeesConfig
from pipeline.config.presets import load_config

METHODS = {"demo": CclnetConfig, "csdn-demo": CsdnConfig, "eees-demo": EeesConfig}


def read(value: dict[str, Any], model: type = CclnetConfig) -> BaseModel:
    changes = TypeAdapter(Annotated[BaseModel, ChangesTo(model)]).validate_python(value)
    assert isinstance(changes, BaseModel)
    return changes


@pytest.mark.parametrize("preset", METHODS)
def test_nothing_is_required(preset):
    changes = read({}, METHODS[preset])
    assert changed_values(changes) == {}
    assert load_config(preset, values=changed_values(changes)) == load_config(preset)


@pytest.mark.parametrize(
    ("preset", "other"), [("demo", "smoke"), ("csdn-demo", "csdn-sysu"), ("eees-demo", "eees-sysu")]
)
def test_a_whole_configuration_leaves_nothing_of_the_preset_that_it_changes(preset, other):
    whole = load_config(preset, ["seed=7"])
    assert load_config(other, values=changed_values(read(whole.model_dump(), METHODS[preset]))) == whole


def test_only_what_is_named_changes_and_a_none_counts():
    changes = read({"seed": 3, "labelling": {"visible": {"eps": 0.5}}, "data": {"root": None}})
    assert changed_values(changes) == {"seed": 3, "labelling": {"visible": {"eps": 0.5}}, "data": {"root": None}}


def test_without_a_parameter_there_are_no_changes():
    assert (
        changed_values(None)
        == changed_values(TypeAdapter(Annotated[BaseModel, ChangesTo(CsdnConfig)]).validate_python(None))
        == {}
    )


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        ({"stages": {"prepare_rounds": -1}}, "stages.prepare_rounds", "greater than or equal to"),
        ({"labelling": {"visible": {"eps": 2.0}}}, "labelling.visible.eps", "less than"),
        ({"stages": {"warm_up": 1}}, "stages.warm_up", "not permitted"),
        ({"data": {"name": "market"}}, "data.name", "one of sysu, regdb, llcm, manifest"),
        ({"optimisation": {"learning_rate": float("inf")}}, "optimisation.learning_rate", "finite number"),
        ({"name": "Two words"}, "name", "match pattern"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_named(value, field, says):
    with pytest.raises(ValidationError) as refused:
        read(value)
    (problem,) = refused.value.errors()
    assert ".".join(str(part) for part in problem["loc"]) == field
    assert says in problem["msg"]
