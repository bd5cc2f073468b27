"""Flows for the command line and for deployments: training by method and over splits, evaluating, embedding."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from pydantic import BaseModel, WithJsonSchema

from flows.artifacts import is_reported, show_result
from flows.demo_data import DEMO_DATA, draw_demo_once
from flows.embedding import embed
from flows.guarded_flows import RETRIES, RETRY_SECONDS, guarded
from flows.partial_config import ChangesTo, changed_values, changes_from
from flows.prefect_local import cancelled_if_stopped, with_or_without_prefect
from flows.tasks import measure_again, train_as_tasks
from pipeline.config.experiment import AnyConfig, method_name, with_split
from pipeline.config.presets import is_demonstration, load_config, preset_names, validate_config
from pipeline.config.shared import UserPath
from pipeline.errors import ConfigError
from pipeline.evaluation.report import AverageReport, EvaluationReport, average_reports
from pipeline.methods import METHODS, MethodSpec, method_of
from pipeline.runs.open import reopen_run, run_path, splits_path
from pipeline.runtime import atomic_files


def _presets_of(settings: type[AnyConfig]) -> list[str]:
    return [name for name in preset_names() if isinstance(load_config(name), settings)]


def flow_of(method: MethodSpec) -> Flow[..., Any]:
    """The flow that trains a method: `flows.deployments.unsupervised` for CCLNet, else named after the method."""
    settings = method.config

    presets = Annotated[str | None, WithJsonSchema({"type": "string", "enum": _presets_of(settings)})]

    def train(
        preset: presets = settings.demo_preset,
        config: Annotated[BaseModel | None, ChangesTo(settings)] = None,
    ) -> EvaluationReport | State[Any] | None:
        def work() -> EvaluationReport | None:
            resolved = _resolve(preset, _changes(preset, config), settings)
            _name_flow_run(run_path(resolved).name)
            report = train_as_tasks(resolved)
            if report is not None:
                show_result(report, run_path(resolved).name)
            return report

        return guarded(work)

    train.__doc__ = f"""Train {settings.summary}; resumes an interrupted run of the same settings.

    Args:
        preset: The source of all values that are not changed below.
        config: The settings. Values equal to those of the deployment's own preset count as not changed.
    """
    return flow(
        name=settings.flow,
        flow_run_name="{preset}",
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=RETRY_SECONDS,
    )(train)


@flow(
    name="evaluate",
    flow_run_name="{run_folder.name}",
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
)
def evaluate(
    run_folder: UserPath,
    data_root: UserPath | None = None,
    device: str = "auto",
    split: int | None = None,
    features_file: UserPath | None = None,
    queries_file: UserPath | None = None,
    images_root: UserPath | None = None,
    skip_unreadable: bool = False,
) -> EvaluationReport | State[Any] | None:
    """Evaluate a run again: its last finished round, or the round that was selected as its result.

    Args:
        run_folder: The folder of a run with at least one finished round.
        data_root: The folder of the data set; default: as recorded by the run.
        device: `auto` (a GPU if available), `cpu`, `cuda`, or `cuda:1`.
        split: The split of RegDB to test on; only the run's own is accepted.
        features_file: An .npz or .parquet file for the features of the test images.
        queries_file: An .npz file for the results of each query.
        images_root: The folder that a manifest's paths start from; default: as recorded by the run.
        skip_unreadable: Skip images that cannot be read; otherwise as the run did.
    """

    def work() -> EvaluationReport:
        with reopen_run(
            run_folder,
            method_of,
            data_root=data_root,
            images_root=images_root,
            device=device,
            split=split,
            skip_unreadable=skip_unreadable,
        ) as (run, evaluator):
            measure = measure_again if FlowRunContext.get() else measure_again.fn
            return measure(run, evaluator, features_file, queries_file)

    return guarded(work)


FLOWS: Mapping[str, Flow[..., Any]] = {method.config.flow: flow_of(method) for method in METHODS} | {
    "evaluate": evaluate,
    "embed": embed,
}
"""Every flow by its name."""


def __getattr__(name: str) -> Flow[..., Any]:
    """Flows as deployments name them: `flows.deployments.unsupervised`."""
    if name not in FLOWS:
        raise AttributeError(name)
    return FLOWS[name]


def at_terminal(name: str, run_name: str | None = None) -> Flow[..., Any]:
    """A flow for the command line: errors are raised at once, and Ctrl-C cancels the flow run."""
    chosen = FLOWS[name]
    run_name = run_name or str(chosen.flow_run_name)
    return chosen.with_options(flow_run_name=run_name, retries=0, on_crashed=[cancelled_if_stopped])


def train(config: AnyConfig) -> EvaluationReport | None:
    """Run the flow of the settings' method from the command line."""
    values = {"method": config.method} | config.model_dump(mode="json", exclude_unset=True)
    flow = at_terminal(config.flow, run_path(config).name)
    report: EvaluationReport | None = with_or_without_prefect(flow, {"preset": None, "config": values})
    return report


@flow(name="splits", flow_run_name="{config.name}", persist_result=False, on_crashed=[cancelled_if_stopped])
def train_splits(config: AnyConfig, splits: Sequence[int]) -> tuple[AverageReport, Path]:
    """Train and test a model on each split of RegDB; finished splits are not trained again.

    Returns:
        The mean over the models, as published for RegDB, and the file with it.
    """
    reports = []
    for split in splits:
        report = train(with_split(config, split))
        assert report is not None, "every split has test images"
        reports.append(report)
    average = average_reports(reports)
    return average, atomic_files.write_json(splits_path(config), average.to_dict())


def preset_changes(preset: str) -> dict[str, Any]:
    """Every value of a preset, for the form of a deployment; demo presets with their synthetic data set."""
    config = load_config(preset)
    values: dict[str, Any] = config.model_dump(mode="json")
    if is_demonstration(preset, config):
        values["data"]["root"] = str(DEMO_DATA)
    return values


def _changes(preset: str | None, config: BaseModel | None) -> Mapping[str, Any]:
    """What a flow run changes of its preset.

    The form of a deployment sends every value of the deployment's own preset. If another preset is chosen there, the
    values that are still those of the deployment's own count as not set.
    """
    changes, own = changed_values(config), _preset_of_deployment()
    return changes if own in (None, preset) else changes_from(preset_changes(str(own)), changes)


def _preset_of_deployment() -> str | None:
    """The preset of the deployment that started this flow run; None at a terminal."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return None
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(context.flow_run.deployment_id)
    own = deployment.parameters.get("preset")
    return own if isinstance(own, str) else None


def _name_flow_run(name: str) -> None:
    """Name a flow run of a deployment after the run folder; at a terminal it has that name already."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and is_reported():
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, name=name)


def _resolve(preset: str | None, changes: Mapping[str, Any], settings: type[AnyConfig]) -> AnyConfig:
    """The settings of a flow run; `ConfigError` if the preset is of another method or settings are invalid."""
    config = validate_config(changes) if preset is None else load_config(preset, values=changes)
    if not isinstance(config, settings):
        raise ConfigError(
            f"preset {preset!r} is of method {config.method}; this deployment trains {method_name(settings)}",
            hint="choose a preset of this method, or the deployment of the other method",
        )
    root = config.data.root
    if root == DEMO_DATA or (root is None and is_demonstration(preset, config)):
        return config.model_copy(update={"data": config.data.model_copy(update={"root": draw_demo_once()})})
    return config
