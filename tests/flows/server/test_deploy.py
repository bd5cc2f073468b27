"""prefect.yaml names what the presets imply, and says of every parameter what the flows say."""

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from flows.demo_data import DEMO_DATA
from flows.deployments import preset_changes
from flows.partial_config import changed_values
from flows.server.deploy import CHECKOUT, POOL_VARIABLE, enter_checkout, preset_values
from flows.server.prefect_file import prefect_file
from pipeline.config.datasets import OPTIONS
from pipeline.config.presets import BUNDLES, load_config, preset_names
from tests.flows.command_line import Call
from tests.fresh_process import run_fresh

FILE = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())
FLOWS = {"": "unsupervised", "cclnet": "unsupervised", "csdn": "csdn", "eees": "eees"}
"""The flow that trains by a method, as presets call it; `demo` alone names none."""

DATA_SETS = {"demo", *(options.name for options in OPTIONS)} - {"manifest"}
TRAINING = [entry for entry in FILE["deployments"] if entry["name"] not in ("run", "images")]


def implied() -> dict[str, str]:
    """Every deployment that a preset `method-dataset` or `bundle-dataset` asks for, with that preset."""
    parts = {preset: preset.rpartition("-") for preset in preset_names()}
    bundles = {bundle: FLOWS[method] for method, names in BUNDLES.items() for bundle in names}
    own = {
        f"{FLOWS[method]}/{data}": preset
        for preset, (method, _, data) in parts.items()
        if method in FLOWS and data in DATA_SETS
    }
    return own | {f"{bundles[first]}/{preset}": preset for preset, (first, _, _) in parts.items() if first in bundles}


def flow_of(entry: Mapping[str, Any]) -> Flow[..., Any]:
    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    return flow


def name_of(entry: Mapping[str, Any]) -> str:
    return f"{flow_of(entry).name}/{entry['name']}"


def fields(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a parameter's form, sections included."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        section = definitions[field["$ref"].rpartition("/")[2]] if "$ref" in field else {}
        yield here, section | field
        yield from fields(section, definitions, here)


def test_the_file_is_what_methods_and_presets_make():
    """After a change of either: `python -m flows.server.prefect_file`."""
    assert (CHECKOUT / "prefect.yaml").read_text() == prefect_file()


def test_every_preset_of_a_data_set_is_deployed_and_nothing_else_is():
    assert {name_of(entry): entry["parameters"]["preset"] for entry in TRAINING} == implied()
    others = [name_of(entry) for entry in FILE["deployments"] if entry not in TRAINING]
    assert others == ["evaluate/run", "embed/images"]


@pytest.mark.parametrize("entry", TRAINING, ids=name_of)
def test_the_values_of_a_deployment_are_those_of_its_preset(entry):
    (step,) = entry["build"]
    ((function, inputs),) = step.items()
    assert function == "flows.server.deploy.preset_values"
    assert inputs["preset"] == entry["parameters"]["preset"]
    assert entry["parameters"]["config"] == "{{ " + inputs["id"] + ".of_preset }}"


@pytest.mark.parametrize("entry", FILE["deployments"], ids=name_of)
def test_a_deployment_has_its_tags_a_description_the_pool_and_a_schedule_that_sleeps(entry):
    method, _, data = name_of(entry).partition("/")
    assert entry["tags"] == ([method] if method == "evaluate" else [method, data])
    assert entry["description"].endswith(".")
    assert entry["work_pool"]["name"] == "{{ $" + POOL_VARIABLE + " }}"
    assert [schedule["active"] for schedule in entry.get("schedules", [])] == [False] * (entry in TRAINING)


@pytest.mark.parametrize("entry", FILE["deployments"], ids=name_of)
def test_every_field_of_the_form_has_a_description(entry):
    schema = parameter_schema(flow_of(entry)).model_dump()
    found = dict(fields(schema, schema["definitions"]))
    assert [name for name, field in found.items() if not field.get("description")] == []
    # Every value of the preset has a field, and no field is without a value.
    if entry in TRAINING:
        values = preset_changes(entry["parameters"]["preset"])
        leaves = {f"config.{section}" for section in values}
        leaves |= {f"config.{name}.{key}" for name, part in values.items() if isinstance(part, dict) for key in part}
        assert leaves <= set(found)


@pytest.mark.parametrize("entry", TRAINING, ids=name_of)
def test_the_form_has_a_choice_of_presets_and_its_rare_groups_are_last(entry):
    schema = parameter_schema(flow_of(entry)).model_dump()
    method = load_config(entry["parameters"]["preset"]).method
    assert schema["properties"]["preset"]["enum"] == [
        name for name in preset_names() if load_config(name).method == method
    ]
    groups = list(schema["definitions"][type(load_config(entry["parameters"]["preset"])).__name__]["properties"])
    assert groups[:3] == ["seed", "data", "stages"] and groups[-2:] == ["name", "method"]
    assert groups.index("evaluation") < groups.index("augmentation") < groups.index("images")


def test_groups_of_the_form_have_titles():
    schema = parameter_schema(flow_of(TRAINING[0])).model_dump()
    found = {name: field["title"] for name, field in fields(schema, schema["definitions"]) if "$ref" in field}
    expected = {"data": "Data", "labelling": "Labelling", "labelling.visible": "Clustering, visible"}
    expected |= {"labelling.joint": "Joint clustering", "evaluation.rules": "Gallery rules"}
    assert expected.items() <= {name.removeprefix("config."): title for name, title in found.items()}.items()


@pytest.mark.parametrize("entry", TRAINING, ids=name_of)
def test_what_the_form_shows_makes_the_run_that_the_command_line_makes(entry):
    preset = entry["parameters"]["preset"]
    shown = preset_values(preset)["of_preset"]
    config = flow_of(entry).validate_parameters({"preset": preset, "config": shown})["config"]
    data = {"data": {"root": str(DEMO_DATA)}} if preset.endswith("demo") else {}
    assert load_config(preset, values=changed_values(config)) == load_config(preset, (), data)


@pytest.mark.parametrize("entry", FILE["deployments"], ids=name_of)
def test_what_fails_for_no_reason_of_ours_is_tried_again(entry):
    flow = flow_of(entry)
    assert flow.retries is not None and flow.retries >= 1
    assert flow.retry_delay_seconds == 30


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_backend")
def test_only_what_is_named_is_deployed_and_a_name_that_does_not_exist_is_an_error(vireid: Call) -> None:
    code, _, err = vireid("deploy", "csdn/llcm", "csdn/market", "--pool", "pool-of-a-test", "--gpu-tasks", "3")
    assert code == 1
    assert "error: there is no deployment 'csdn/market'" in err and "prefect.yaml" in err
    with get_client(sync_client=True) as client:
        assert client.read_deployment_by_name("csdn/llcm").work_pool_name == "pool-of-a-test"
        assert client.read_global_concurrency_limit_by_name("tag:gpu").limit == 3
        with pytest.raises(ObjectNotFound):
            client.read_deployment_by_name("eees/llcm")


def test_the_pull_step_works_where_the_package_is_installed_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    ((step, inputs),) = FILE["pull"][0].items()
    assert (step, inputs) == ("flows.server.deploy.enter_checkout", {})
    assert enter_checkout() == {"directory": str(Path.cwd())}
    assert (Path.cwd() / "prefect.yaml").is_file()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.slow
def test_the_pull_step_prepares_the_environment_before_torch_reads_it() -> None:
    program = "import sys, flows.server.deploy; print(sorted({'torch', 'faiss'} & sys.modules.keys()))"
    assert run_fresh(program).strip() == "[]"
