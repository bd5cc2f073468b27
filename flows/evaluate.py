"""Measure a run again: its last round, on its own test images or on a moved copy of them."""

from pathlib import Path

from prefect import flow

from flows.tasks import evaluate
from pipeline.evaluation.report import EvaluationReport
from pipeline.opening import reopen_run


@flow(name="evaluate", flow_run_name="{run_folder.name}", persist_result=False)
def evaluate_run(run_folder: Path, data_root: Path | None = None, device: str = "auto") -> EvaluationReport:
    """Encode the test images once and run every search of the run's protocol.

    Args:
        run_folder: The folder of a run with at least one finished round.
        data_root: Where the data set lies now; none takes the place that the run recorded.
        device: `auto`, `cpu`, or `cuda`.

    Returns:
        What the run's last finished round retrieves.
    """
    with reopen_run(run_folder, data_root=data_root, device=device) as run:
        return evaluate(run, run.last_round())
