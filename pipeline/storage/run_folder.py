"""The files of one run, each replaced atomically; an open `RunFolder` locks its folder for other processes."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from clustering.dbscan import Clustering
from models.modality import PerModality
from pipeline.config.flat import differences
from pipeline.errors import CheckpointError
from pipeline.runtime import atomic_files as files
from pipeline.runtime.folder_lock import lock_folder
from pipeline.storage import layout as names
from pipeline.storage.checkpoint import read_checkpoint, write_checkpoint


class RunFolder:
    """The files of one run, locked until `close` or the end of the `with` block. Made by `open` and `reopen`.

    A resumed run reads only the checkpoint. Metrics and timings are copies of rows in the checkpoint, so a kill between
    two files neither loses nor doubles a round.

    Attributes:
        path: The folder.
        config: The resolved configuration, as plain JSON types.
        digest: Identifies the settings that decide the result.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], digest: str, lock: int) -> None:
        self.path = path
        self.config = dict(config)
        self.digest = digest
        self._lock: int | None = lock

    @staticmethod
    def open(path: Path, config: Mapping[str, Any], digest: str) -> "RunFolder":
        """Start a run, or resume the one in the folder, which keeps its recorded configuration.

        Args:
            path: The folder; made, with its parents, when absent.
            config: The resolved configuration, as plain JSON types.
            digest: Identifies the settings that decide the result.

        Raises:
            CheckpointError: The folder is in use, holds something else, or a run with other settings or another format.
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
    def reopen(path: Path) -> "RunFolder":
        """Open an existing run with its recorded configuration.

        Raises:
            CheckpointError: There is no run, another process holds it, or it is of another format.
        """
        if not (path / names.CONFIG).is_file():
            raise CheckpointError(f"{path} holds no run", hint="name the folder that contains config.json")
        lock = lock_folder(path, names.LOCK)
        try:
            recorded = names.read_record(path)
            assert recorded is not None  # seen above, and nothing removes it
            return RunFolder(path, recorded["config"], recorded["digest"], lock)
        except BaseException:
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
        """Replace the checkpoint: see `write_checkpoint`. It includes the rows of metrics and timings."""
        write_checkpoint(self.path / names.CHECKPOINT, state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU; None before the first one.

        Raises:
            CheckpointError: The file is truncated or damaged.
        """
        return read_checkpoint(self.path / names.CHECKPOINT)

    def save_pending(self, number: int, name: str, content: Mapping[str, Any]) -> None:
        """Keep what a round has made before it is finished, until `clear_pending`; the checkpoint stays as it is.

        Args:
            number: The round.
            name: Of the content.
            content: As for `save_checkpoint`.
        """
        path = names.pending_path(self.path, name, number)
        path.parent.mkdir(exist_ok=True)
        write_checkpoint(path, content)

    def load_pending(self, number: int, name: str) -> dict[str, Any] | None:
        """What `save_pending` kept for that round; None where there is nothing."""
        return read_checkpoint(names.pending_path(self.path, name, number))

    def clear_pending(self) -> None:
        """Remove what unfinished rounds have made."""
        for path in (self.path / names.PENDING).glob("*"):
            path.unlink()

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `metrics.jsonl`, after `save_checkpoint`: one line a round, deterministic numbers only."""
        files.write_lines(self.path / names.METRICS, rows)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, oldest round first."""
        return files.read_lines(self.path / names.METRICS)

    def write_timings(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `timings.jsonl`: one line a round, numbers that differ from run to run."""
        files.write_lines(self.path / names.TIMINGS, rows)

    def read_timings(self) -> list[dict[str, Any]]:
        """The rows of `timings.jsonl`, oldest round first."""
        return files.read_lines(self.path / names.TIMINGS)

    def save_labels(self, number: int, labels: PerModality[Clustering]) -> Path:
        """Write the pseudo-labels of a round, in the order of the training table.

        Returns:
            The file, with arrays `visible_labels`, `visible_core`, `infrared_labels` and `infrared_core`.
        """
        path = self.labels_path(number)
        path.parent.mkdir(exist_ok=True)
        arrays = {f"{modality}_labels": one.labels for modality, one in labels.items()}
        cores = {f"{modality}_core": one.core for modality, one in labels.items()}

        def write(file: BinaryIO) -> None:
            np.savez_compressed(file, allow_pickle=False, **arrays, **cores)

        files.replace_file(path, write, archive=True)
        return path

    @property
    def checkpoint_path(self) -> Path:
        """Path of the checkpoint."""
        return self.path / names.CHECKPOINT

    def labels_path(self, number: int) -> Path:
        """Path of the pseudo-labels of a round."""
        return self.path / names.LABELS / f"round-{number:03d}.npz"

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
        """Folder of models that are not yet registered in MLflow."""
        return self.path / names.UNREGISTERED

    def unregistered_models(self) -> list[Path]:
        """The folders of these models."""
        return sorted(path for path in self.unregistered.glob("*") if not path.name.endswith(files.TEMPORARY))

    def keep_checkpoint(self, number: int) -> Path:
        """Keep the current checkpoint as that of a round.

        Cost: its size on disk once the next one replaces it; a copy where the disk has no hard links.
        """
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
        """Replace the record of versions, code and machine; return its path."""
        return files.write_json(self.path / names.ENVIRONMENT, environment)

    def read_environment(self) -> dict[str, Any] | None:
        """That record; None before the first one."""
        return files.read_json(self.path / names.ENVIRONMENT)


def _refuse_other_content(path: Path) -> None:
    """Refuse a folder with other files, before anything is written."""
    if not path.is_dir() or (path / names.CONFIG).exists():
        return
    others = sorted({entry.name for entry in path.iterdir()} - {names.LOCK, names.CONFIG + files.TEMPORARY})
    if others:
        raise CheckpointError(
            f"{path} holds other things and no config.json (first: {others[0]})", hint="choose a new or an empty folder"
        )


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of a killed process."""
    for folder in (path, *(path / name for name in (names.LABELS, names.FIGURES, names.CHECKPOINTS, names.PENDING))):
        for leftover in folder.glob(f"*{files.TEMPORARY}"):
            leftover.unlink()
