"""The files of one run, each replaced atomically, and its checkpoint. An open `RunFolder` locks its folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from models.clip_files import READ_ERRORS, load_reason
from models.file_kinds import what_is
from pipeline.config.experiment import differences
from pipeline.errors import CheckpointError
from pipeline.runtime import atomic_files as files
from pipeline.runtime.folder_lock import is_lockable, lock_folder
from pipeline.storage import layout as names
from pipeline.storage.label_files import RoundLabels


class RunFolder:
    """The files of one run, locked until `close` or the end of the `with` block. Made by `open` and `reopen`.

    A resumed run reads only the checkpoint. Metrics and timings are copies of rows in the checkpoint, so a kill between
    two files neither loses nor doubles a round. `config` has plain JSON types; `digest` identifies the settings that
    affect results.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], digest: str, lock: int | None) -> None:
        self.path = path
        self.config = dict(config)
        self.digest = digest
        self._lock = lock

    @staticmethod
    def open(path: Path, config: Mapping[str, Any], digest: str) -> "RunFolder":
        """Start a run, or resume the one in the folder, which keeps its recorded configuration.

        Raises:
            CheckpointError: The folder is locked, or contains other files, or a run with other settings or format.
        """
        _refuse_other_content(path)
        lock = lock_folder(path, names.LOCK)
        try:
            _remove_leftovers(path)
            recorded = names.read_record(path)
            if recorded is None:
                names.write_record(path, digest, config)
                return RunFolder(path, files.plain(config), digest, lock)
            if recorded["digest"] != digest:
                raise CheckpointError(
                    f"{path} was made with other settings: {differences(recorded['config'], files.plain(config))}",
                    hint="give this run another name, or use the settings in its config.json",
                )
            return RunFolder(path, recorded["config"], digest, lock)
        except BaseException:
            os.close(lock)
            raise

    @staticmethod
    def reopen(path: Path, *, reading: bool = False) -> "RunFolder":
        """Open an existing run with its recorded configuration; `reading` allows a folder that cannot be written.

        Raises:
            CheckpointError: There is no run, another process has it open, or it has another format.
        """
        if not (path / names.CONFIG).is_file():
            raise CheckpointError(f"{path} holds no run", hint="name the folder that contains config.json")
        lock = None if reading and not is_lockable(path, names.LOCK) else lock_folder(path, names.LOCK)
        try:
            recorded = names.read_record(path)
            assert recorded is not None  # checked above
            return RunFolder(path, recorded["config"], recorded["digest"], lock)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder. A second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, which includes the rows of metrics and timings: see `write_checkpoint`."""
        write_checkpoint(self.path / names.CHECKPOINT, state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU; None before the first one. See `read_checkpoint`."""
        return read_checkpoint(self.path / names.CHECKPOINT)

    def save_pending(self, number: int, name: str, content: Mapping[str, Any]) -> None:
        """Save an intermediate result of an unfinished round until `clear_pending`, without touching the checkpoint."""
        path = names.pending_path(self.path, name, number)
        path.parent.mkdir(exist_ok=True)
        write_checkpoint(path, content)

    def load_pending(self, number: int, name: str) -> dict[str, Any] | None:
        """The content that `save_pending` wrote for a round, or None."""
        return read_checkpoint(names.pending_path(self.path, name, number))

    def clear_pending(self) -> None:
        """Remove intermediate results of unfinished rounds."""
        for path in (self.path / names.PENDING).glob("*"):
            path.unlink()

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `metrics.jsonl`, after `save_checkpoint`: one line per round, deterministic numbers only."""
        files.write_lines(self.path / names.METRICS, rows)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, oldest round first."""
        return names.read_rows(self.path / names.METRICS)

    def write_timings(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `timings.jsonl`: one line per round, numbers that differ from run to run."""
        files.write_lines(self.path / names.TIMINGS, rows)

    def read_timings(self) -> list[dict[str, Any]]:
        """The rows of `timings.jsonl`, oldest round first."""
        return names.read_rows(self.path / names.TIMINGS)

    def save_labels(self, number: int, labels: RoundLabels) -> Path:
        """Write the label file of a round."""
        path = self.labels_path(number)
        path.parent.mkdir(exist_ok=True)
        arrays = labels.to_arrays()

        def write(file: BinaryIO) -> None:
            np.savez_compressed(file, allow_pickle=False, **arrays)

        files.replace_file(path, write, archive=True)
        return path

    def save_queries(self, number: int, record: Mapping[str, Any]) -> Path:
        """Write the worst queries of a round."""
        path = names.queries_path(self.path, number)
        path.parent.mkdir(exist_ok=True)
        return files.write_json(path, record)

    @property
    def checkpoint_path(self) -> Path:
        """Path of the checkpoint."""
        return self.path / names.CHECKPOINT

    def labels_path(self, number: int) -> Path:
        """Path of the pseudo-labels of a round."""
        return names.labels_path(self.path, number)

    def save_figure(self, number: int, name: str, draw: Callable[[BinaryIO], None]) -> Path:
        """Write a figure of a round; `draw` writes to the open file."""
        path = names.figure_path(self.path, name, number)
        path.parent.mkdir(exist_ok=True)
        files.replace_file(path, draw)
        return path

    def round_files(self, number: int) -> list[Path]:
        """The existing labels and figures of a round."""
        labels = self.labels_path(number)
        return [labels] * labels.exists() + names.round_figures(self.path, number)

    @property
    def evaluation_path(self) -> Path:
        """Path of the evaluation report."""
        return self.path / names.EVALUATION

    @property
    def unregistered(self) -> Path:
        """Parent folder of models that are not yet registered in MLflow."""
        return self.path / names.UNREGISTERED

    def unregistered_models(self) -> list[Path]:
        """Folders of models that are not yet registered, sorted."""
        return sorted(path for path in self.unregistered.glob("*") if not path.name.endswith(files.TEMPORARY))

    def keep_checkpoint(self, number: int) -> Path:
        """Keep the current checkpoint as that of a round: a hard link, or a copy if the disk has no links."""
        path = self.kept_checkpoint(number)
        path.parent.mkdir(exist_ok=True)
        files.keep_file(self.checkpoint_path, path)
        return path

    def kept_checkpoint(self, number: int) -> Path:
        """Path of the kept checkpoint of a round."""
        return names.kept_checkpoint(self.path, number)

    def write_evaluation(self, report: Mapping[str, Any]) -> Path:
        """Replace the evaluation report; return its path."""
        return files.write_json(self.path / names.EVALUATION, report)

    def read_evaluation(self) -> dict[str, Any] | None:
        """The evaluation report; None before the first one."""
        return files.read_json(self.path / names.EVALUATION)

    def write_environment(self, environment: Mapping[str, Any]) -> Path:
        """Replace the record of versions, git commit and machine; return its path."""
        return files.write_json(self.path / names.ENVIRONMENT, environment)

    def read_environment(self) -> dict[str, Any] | None:
        """That record; None before the first one."""
        return files.read_json(self.path / names.ENVIRONMENT)


def _refuse_other_content(path: Path) -> None:
    if not path.is_dir() or (path / names.CONFIG).exists():
        return
    others = sorted(
        {entry.name for entry in path.iterdir()} - {names.LOCK, files.temporary_name(path / names.CONFIG).name}
    )
    if others:
        raise CheckpointError(
            f"{path} contains other files and no config.json (first: {others[0]})",
            hint="choose a new or an empty folder",
        )


def _remove_leftovers(path: Path) -> None:
    written = (names.LABELS, names.QUERIES, names.FIGURES, names.CHECKPOINTS, names.PENDING)
    for folder in (path, *(path / name for name in written)):
        for leftover in folder.glob(f".*{files.TEMPORARY}"):
            leftover.unlink()


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace a checkpoint after reading the new file back; needs twice its size on disk for a moment.

    * `state`: Tensors, numbers, strings, booleans and None in dictionaries, lists and tuples.

    Raises:
        CheckpointError: The disk is full or failed. The previous checkpoint is untouched.
    """
    _assert_plain(state)

    def write(file: BinaryIO) -> None:
        torch.save(dict(state), file)

    files.replace_file(path, write, archive=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint to the CPU without unpickling; None if absent, `CheckpointError` if damaged."""
    if what_is(path).is_missing:
        return None
    files.check_archive(path)
    hint = "restore it from a copy, or remove it to start this run again from its first round"
    try:
        with path.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except READ_ERRORS as error:
        raise CheckpointError(f"{path} is damaged: {load_reason(error)}", hint=hint) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is no checkpoint of a run", hint=hint)
    return state


def _assert_plain(value: Any) -> None:
    """Check types when writing, not when a resumed run cannot read the file."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            assert isinstance(name, (str, int)), f"{name!r} cannot be a key in a checkpoint"
            _assert_plain(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _assert_plain(one)
    else:
        known = value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)
        assert known, f"{type(value).__name__} cannot be read back from a checkpoint"
