"""One model for each split of RegDB, and the mean over the models: what is published for that data set."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.deployments import train
from flows.prefect_local import cancelled_if_stopped
from pipeline.config.experiment import AnyConfig, with_split
from pipeline.evaluation.report import AverageReport, average_reports
from pipeline.runs.open import splits_path
from pipeline.runtime import atomic_files


@flow(name="splits", flow_run_name="{config.name}", persist_result=False, on_crashed=[cancelled_if_stopped])
def train_splits(config: AnyConfig, splits: Sequence[int]) -> tuple[AverageReport, Path]:
    """Train and test a model on each split, one after the other; splits that are finished are not trained again.

    Args:
        config: The experiment, whatever split it names.
        splits: The splits, from 1 to 10.

    Returns:
        The average, and the file that it was written to.
    """
    reports = []
    for split in splits:
        report = train(with_split(config, split))
        assert report is not None, "every split has test images"
        reports.append(report)
    average = average_reports(reports)
    return average, atomic_files.write_json(splits_path(config), average.to_dict())
