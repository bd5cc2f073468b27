"""Open a run: a new one, an interrupted one, or a finished one to be measured again."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.clip import LoadedClip, WeightsLoadError, load_clip
from models.imagenet import RESNET50, load_imagenet
from models.modality import PerModality
from pipeline.config.datasets import options_of
from pipeline.config.experiment import AnyConfig, digest_of, record_of, with_split
from pipeline.config.presets import validate_config
from pipeline.data.dataset import SplitTables, held_out_images, training_images
from pipeline.data.images import TestImages
from pipeline.data.supervision import Supervision
from pipeline.errors import CheckpointError, WeightsError
from pipeline.runs.evaluator import IdentityEvaluator, refuse_unmeasurable
from pipeline.runs.images import (
    IMAGES,
    OpenedImages,
    check_images,
    check_skipped,
    compared_with_training,
    images_folder,
    open_images,
)
from pipeline.runs.inputs import evaluation_on, log_counts, present_data, read_data, read_training_data
from pipeline.runs.measured import MeasuredMethod
from pipeline.runs.record import FLOW_RUN_PAGE, RunRecord
from pipeline.runs.run import Method, Run
from pipeline.runtime.device import device_name, recorded_precision, resolve_device, resolve_precision, using_device
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.tracker import SilentTracker, Tracker, UninterruptedTracker

logger = logging.getLogger(__name__)


@contextmanager
def open_run(config: AnyConfig, method: Method[Any, Any]) -> Iterator[Run[Any, Any]]:
    """Open the run of a configuration, in the folder that the configuration determines; an interrupted run resumes.

    All ranks open it together; rank 0 locks the folder.

    Raises:
        ConfigError: The device does not exist here, or the data set does not allow the evaluation.
        DataError: The data set is missing, incomplete or unreadable.
        WeightsError: The weights cannot be loaded.
        CheckpointError: The folder is in use, contains something else, or a run that was made with other images.
        TrackingError: MLflow does not answer before anything is trained.
    """
    processes = Processes.here()
    device = resolve_device(config.execution.device, processes.local_rank, processes.local_count)
    precision = resolve_precision(config.execution.precision, device)
    with using_device(device, precision, processes.local_count):
        dataset = read_training_data(config.data)
        log_counts(dataset)
        refuse_unmeasurable(dataset, config)
        clip = _load_weights(config)
        images = config.execution.runs_folder / IMAGES
        if not processes.is_rank_zero:
            yield _new_run(
                config, method, open_images(config, dataset, images, processes), clip, device, processes, None
            )
            return
        with RunFolder.open(run_path(config), record_of(config), digest_of(config)) as folder:
            check_images(folder, dataset)
            execution = config.execution
            record = RunRecord(folder, _tracker(config, folder), execution.keep_checkpoints, execution.log_checkpoints)
            with _closed_record(record):
                opened = open_images(config, dataset, images, processes)
                check_skipped(folder, opened)
                run = _new_run(config, method, opened, clip, device, processes, record)
                made_with = {"device": device_name(device), "processes": processes.count, "precision": run.precision}
                made_with |= {"weights": asdict(clip.origin), "data": dataset.fingerprint}
                made_with |= {"data_set": dataset.description, "skipped": opened.skipped}
                made_with |= {"flow_run": FLOW_RUN_PAGE.get()}
                record.begin(run.state, record_of(config), made_with)
                yield run


@contextmanager
def _closed_record(record: RunRecord) -> Iterator[None]:
    """End the tracker's record with FAILED after an error, KILLED after a signal."""
    try:
        yield
    except Exception:
        record.tracker.finish("FAILED")
        raise
    except BaseException:
        # Not an error: Ctrl-C, a signal that ends the process, or a run that is cancelled in Prefect.
        record.tracker.finish("KILLED")
        raise


@contextmanager
def reopen_run(
    run_folder: Path,
    method_of: Callable[[AnyConfig], Method[Any, Any]],
    *,
    data_root: Path | None,
    device: str,
    images_root: Path | None = None,
    split: int | None = None,
    skip_unreadable: bool = False,
) -> Iterator[tuple[Run[Any, Any], IdentityEvaluator]]:
    """Open an existing run to measure it, without tracking.

    `method_of` returns the method of recorded settings, as `pipeline.methods.method_of`. `data_root` and
    `images_root` are the present folders of the data set and of a manifest's images, by default the recorded ones;
    `skip_unreadable` skips images that cannot be read, also where the run did not. A manifest without rows `train`
    measures the run on other images than its own.

    Raises:
        ConfigError: It was trained on another split of RegDB than `split`.
        CheckpointError: The folder contains no run, one without a finished round, or one made with other images.
    """
    with RunFolder.reopen(run_folder, reading=True) as folder:
        recorded = validate_config(folder.config)
        data = present_data(run_folder, recorded.data, data_root, images_root, split)
        if skip_unreadable:
            data = data.model_copy(update={"unreadable": "skip"})
        place = resolve_device(device)
        precision = recorded_precision(recorded.execution.precision, place)
        where = {"device": device, "runs_folder": run_folder.parent, "tracking": False, "precision": precision}
        execution = recorded.execution.model_copy(update=where)
        changes = {"data": data, "execution": execution, "evaluation": evaluation_on(data, recorded)}
        config = recorded.model_copy(update=changes)
        dataset = compared_with_training(read_data(data), recorded.data)
        log_counts(dataset)
        check_images(folder, dataset, measuring=True)
        record = RunRecord(folder, SilentTracker())
        method = method_of(config) if dataset.has_training else MeasuredMethod(method_of(config))
        with using_device(place, precision), images_folder(config, dataset) as images:
            opened = open_images(config, dataset, images, ALONE)
            run = _new_run(config, method, opened, _load_weights(config), place, ALONE, record)
            if run.state.completed == 0:
                raise CheckpointError(
                    f"{run_folder} has no finished round yet", hint="wait for its first round, or start it again"
                )
            assert isinstance(run.evaluator, IdentityEvaluator)
            yield run, run.evaluator


def _new_run(
    config: AnyConfig,
    method: Method[Any, Any],
    opened: OpenedImages,
    clip: LoadedClip,
    device: torch.device,
    processes: Processes,
    record: RunRecord | None,
) -> Run[Any, Any]:
    """Put the run together. Training images are shuffled, because folder order reveals identities."""
    dataset, store = opened.dataset, opened.store

    def held_out(tables: SplitTables | None) -> PerModality[TestImages] | None:
        return None if tables is None else held_out_images(dataset, tables, store)

    images = training_images(dataset, store, config.seed)
    rows = images.map(lambda some: some.rows)
    evaluator = IdentityEvaluator(config, dataset, rows, held_out(dataset.validation), held_out(dataset.test))
    return Run(
        method,
        config,
        images,
        clip,
        device,
        processes,
        record=record,
        evaluator=evaluator if processes.is_rank_zero else None,
        supervision=Supervision(dataset, rows) if method.supervised else None,
    )


def run_path(config: AnyConfig) -> Path:
    """Folder of the run of a configuration."""
    split = f"-split{config.data.split}" if options_of(config.data.name).model_per_split and config.data.split else ""
    return config.execution.runs_folder / f"{config.name}-s{config.seed}{split}-{digest_of(config)[:8]}"


def splits_path(config: AnyConfig) -> Path:
    """File of the average over the splits of RegDB, in the runs folder."""
    everything = with_split(config, None)
    return config.execution.runs_folder / f"{config.name}-s{config.seed}-{digest_of(everything)[:8]}-splits.json"


def _load_weights(config: AnyConfig) -> LoadedClip:
    try:
        clip = (
            load_imagenet(config.model.weights, seed=config.seed)
            if config.model.architecture == RESNET50
            else load_clip(config.model.architecture, config.model.weights, seed=config.seed)
        )
    except WeightsLoadError as error:
        raise WeightsError(str(error), hint=error.hint) from error
    logger.info("weights: %s (%s, %s)", clip.origin.kind, clip.origin.model, clip.origin.digest)
    return clip


def _tracker(config: AnyConfig, folder: RunFolder) -> Tracker:
    if not config.execution.tracking:
        return SilentTracker()
    # MLflow takes seconds to import, and only training needs it.
    from pipeline.tracking.mlflow_tracker import MlflowTracker
    from pipeline.tracking.system_metrics import available_monitors

    monitors = available_monitors() if config.execution.system_metrics else []
    tracker = MlflowTracker(config.execution.runs_folder, folder, monitors=monitors)
    # A server may take long to answer, and Ctrl-C is not to wait for that; it locks nothing here.
    return UninterruptedTracker(tracker) if tracker.uri.startswith("sqlite:") else tracker
