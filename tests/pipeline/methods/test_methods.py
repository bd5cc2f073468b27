"""Every method is complete, and an unsupervised one cannot reach identities through what it is given."""

import gc
import inspect
import json
from types import FunctionType, ModuleType

import pytest

from flows.deployments import FLOWS
from flows.tasks import TASKS
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import CONFIGS, method_name
from pipeline.data.captions.store import Captions
from pipeline.data.truth import Dataset, PersonIds, SplitTables
from pipeline.methods import METHODS, MethodSpec
from pipeline.methods.cclnet.method import CCLNET
from pipeline.runs.evaluator import IdentityEvaluator
from pipeline.runs.open import open_run, run_path
from pipeline.runs.stages import Stage
from tests.flows.plain_runs import run_plainly

IDENTITIES = (Dataset, PersonIds, SplitTables, Captions)


def test_every_settings_class_has_its_method_and_its_flow() -> None:
    assert tuple(method.config for method in METHODS) == CONFIGS
    assert [method.name for method in METHODS] == ["cclnet", "csdn", "eees"]
    assert [*FLOWS] == [config.flow for config in CONFIGS] + ["evaluate", "embed"]
    assert len({method_name(config) for config in CONFIGS}) == len(CONFIGS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_stage_that_the_rounds_call_is_a_stage_of_the_method(method: MethodSpec) -> None:
    rounds = inspect.unwrap(method.rounds)
    called = {rounds.__globals__[name] for name in rounds.__code__.co_names if name in rounds.__globals__}
    assert {one for one in called if isinstance(one, Stage)} == set(method.stages)


def test_tasks_that_use_the_device_are_limited_and_the_others_are_not() -> None:
    tagged = {stage.name for stage, task in TASKS.items() if "gpu" in task.tags}
    assert tagged == {
        "begin-stage", "extract", "cluster", "learn-prompts", "train", "evaluate", "finish", "fuse-texts",
        "encode-captions",
    }  # fmt: skip
    assert {stage.name for stage in TASKS} - tagged == {"log-round"}


def reachable(start: object, stop: tuple[type, ...]) -> list[object]:
    """Every object that attributes, items and closures lead to, but for what modules and classes hold."""
    seen: dict[int, object] = {}
    waiting = [start]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (ModuleType, type, *stop)):
            continue
        seen[id(one)] = one
        if isinstance(one, FunctionType):
            waiting += [cell.cell_contents for cell in one.__closure__ or ()]
        else:
            waiting += gc.get_referents(one)
    return list(seen.values())


def test_the_unsupervised_run_holds_no_identity_outside_its_evaluator(smoke_config: CclnetConfig) -> None:
    with open_run(smoke_config, CCLNET) as run:
        for images in run.images:
            assert len(images.rows)
        found = [type(one) for one in reachable(run, (IdentityEvaluator,)) if isinstance(one, IDENTITIES)]
        known = [type(one) for one in reachable(run, ()) if isinstance(one, IDENTITIES)]
    assert found == []
    assert Dataset in known  # the search would have found it


def test_the_seconds_of_a_round_are_wall_time_and_contain_its_stages(smoke_config: CclnetConfig) -> None:
    stages = smoke_config.stages.model_copy(update={"prepare_rounds": 1, "clip_rounds": 1})
    config = smoke_config.model_copy(update={"stages": stages})
    run_plainly(config)
    rows = [json.loads(line) for line in (run_path(config) / "timings.jsonl").read_text().splitlines()]
    for row in rows:
        parts = {name.removeprefix("seconds/"): value for name, value in row.items() if name.startswith("seconds/")}
        total = parts.pop("total")
        assert {"begin_stage", "extract", "cluster", "train", "evaluate"} <= parts.keys()
        assert sum(parts.values()) <= total
    assert "seconds/learn_prompts" in rows[1]
