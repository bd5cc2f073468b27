"""Every stage of every method as a Prefect task, named after its round; never cached, nothing persisted."""

from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import show_rounds
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods import METHODS
from pipeline.runs.evaluator import IdentityEvaluator
from pipeline.runs.run import Run
from pipeline.runs.stages import Stage


def as_task(stage: Stage[..., Any]) -> Task[..., Any]:
    """A stage as a task; the tag `gpu` lets a server limit how many use the device at once."""
    # Inputs are gigabytes of features, outputs are tensors: hashing or storing either would cost more than the stage.
    return task(
        name=stage.name, cache_policy=NO_CACHE, persist_result=False, tags=("gpu",) if stage.uses_device else ()
    )(stage.timed)


TASKS = {stage: as_task(stage) for method in METHODS for stage in method.stages}
"""The task of each stage."""


def run_as_task(stage: Stage[..., Any], run: Run[Any, Any], *values: Any) -> Any:
    """Run a stage as a task of the current flow run; after the stage that ends a round, show the table of rounds."""
    result = TASKS[stage].with_options(task_run_name=f"{stage.name}-{run.round.name}")(run, *values)
    if stage.ends_round:
        show_rounds(run)
    return result


@task(
    name="measure-again",
    task_run_name="measure-again-{run.record.folder.path.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    tags=("gpu",),
)
def measure_again(
    run: Run[Any, Any], evaluator: IdentityEvaluator, features_file: Path | None, queries_file: Path | None
) -> EvaluationReport:
    """Encode the test images with the weights of the run's result, and run every search."""
    return evaluator.measure_to_files(run, features_file, queries_file)
