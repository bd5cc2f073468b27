"""Measure a run again: its last round, on its own test images or on a moved copy of them."""

from pathlib import Path

from prefect import flow

from flows.prefect_local import cancelled_if_stopped
from flows.tasks import measure_again
from pipeline.evaluation.report import EvaluationReport
from pipeline.runs.open import reopen_run


@flow(name="evaluate", flow_run_name="{run_folder.name}", persist_result=False, on_crashed=[cancelled_if_stopped])
def evaluate_run(
    run_folder: Path,
    data_root: Path | None = None,
    device: str = "auto",
    trial: int | None = None,
    features_file: Path | None = None,
    queries_file: Path | None = None,
) -> EvaluationReport:
    """Encode the test images once and run every search of the run's protocol.

    Args:
        run_folder: The folder of a run with at least one finished round.
        data_root: Where the data set lies now; none takes the place that the run recorded.
        device: `auto`, `cpu`, or `cuda`.
        trial: The split of RegDB to test on; only the one that the run was trained on has people it has not seen.
        features_file: Where to write the features of the test images; nowhere when None.
        queries_file: Where to write what each query found; nowhere when None.

    Returns:
        What the run's last finished round retrieves, or the round that was chosen as its result.
    """
    return measure_run(run_folder, data_root, device, trial, features_file, queries_file)


def measure_run(
    run_folder: Path,
    data_root: Path | None,
    device: str,
    trial: int | None,
    features_file: Path | None,
    queries_file: Path | None,
) -> EvaluationReport:
    """The work of the flow, for a flow of the same name that a deployment runs."""
    with reopen_run(run_folder, data_root=data_root, device=device, trial=trial) as run:
        return measure_again(run, features_file, queries_file)
