"""One run on disk: every file inside a run folder, written so that no kill and no full disk can spoil it.

Each file is written beside its place, synced, and renamed into it: a reader finds the old content or the new, never a
part. While a `RunFolder` is open no other process can open the same folder.
"""

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
    """The files of one run, held by this process until `close`, or the end of the `with` block.

    Made by `open` and `reopen`, never directly. A checkpoint is the only file that a resumed run reads; metrics and
    timings are copies of rows that the checkpoint holds, so a kill between two files neither loses nor doubles a round.

    Attributes:
        path: The folder.
        config: The resolved configuration, as plain JSON types.
        digest: What identifies the settings that decide the result.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], digest: str, lock: int) -> None:
        self.path = path
        self.config = dict(config)
        self.digest = digest
        self._lock: int | None = lock

    @staticmethod
    def open(path: Path, config: Mapping[str, Any], digest: str) -> "RunFolder":
        """Start a run, or go on with the one that lies there.

        The configuration is on disk when this returns. A run that goes on keeps the record of its first start.

        Args:
            path: The run's folder; made, with its parents, when absent.
            config: The resolved configuration, as plain JSON types.
            digest: What identifies the settings that decide the result.

        Raises:
            CheckpointError: Another process holds the folder, it was made with other settings, it is no run's, or a run
                of another format.
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
        """Open a run that exists, with the configuration that it recorded.

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
        """Let other processes open the folder. A second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint, once what was written has been read back and found whole.

        Args:
            state: Tensors, numbers, strings, booleans and None in dictionaries, lists and tuples: what can be read back
                without running code. Include the rows that `write_metrics` and `write_timings` are then given.

        Raises:
            CheckpointError: The disk is full or did not keep all bytes. The previous checkpoint is untouched.

        Cost: twice its size on disk for a moment; writing and one read.
        """
        write_checkpoint(self.path / names.CHECKPOINT, state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """What `save_checkpoint` was last given, on the CPU; None before the first one.

        Raises:
            CheckpointError: The file is cut short or damaged.
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
        """Replace the record of all rounds: one JSON line a row, the same bytes for the same rows.

        Call it after `save_checkpoint`, and after `load_checkpoint` with the rows that the checkpoint holds.

        Args:
            rows: Deterministic numbers only, one row a round. Infinite and undefined numbers become null.
        """
        files.write_lines(self.path / names.METRICS, rows)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows that were last written, oldest round first."""
        return files.read_lines(self.path / names.METRICS)

    def write_timings(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the record of what took how long: as `write_metrics`, for numbers that differ from run to run."""
        files.write_lines(self.path / names.TIMINGS, rows)

    def read_timings(self) -> list[dict[str, Any]]:
        """The rows that were last written, oldest round first."""
        return files.read_lines(self.path / names.TIMINGS)

    def save_labels(self, number: int, labels: PerModality[Clustering]) -> Path:
        """Keep the pseudo-labels of one round; those of other rounds stay.

        Args:
            number: The round, from 1.
            labels: Pseudo-labels of the training images, in the order of the training table.

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
        """Where the checkpoint lies, or will."""
        return self.path / names.CHECKPOINT

    def labels_path(self, number: int) -> Path:
        """Where the pseudo-labels of a round lie, or will."""
        return self.path / names.LABELS / f"round-{number:03d}.npz"

    def save_figure(self, number: int, name: str, draw: Callable[[BinaryIO], None]) -> Path:
        """Keep a figure of one round, which `draw` writes to the file that it is given."""
        path = names.figure_path(self.path, name, number)
        path.parent.mkdir(exist_ok=True)
        files.replace_file(path, draw)
        return path

    def round_files(self, number: int) -> list[Path]:
        """The labels and figures of a round, as far as it has any."""
        labels = self.labels_path(number)
        return [labels] * labels.exists() + names.round_figures(self.path, number)

    @property
    def evaluation_path(self) -> Path:
        """Where the evaluation report lies, or will."""
        return self.path / names.EVALUATION

    @property
    def unregistered(self) -> Path:
        """Where models lie that MLflow has not taken yet."""
        return self.path / names.UNREGISTERED

    def unregistered_models(self) -> list[Path]:
        """The folders of these models, one for each modality."""
        return sorted(path for path in self.unregistered.glob("*") if not path.name.endswith(files.TEMPORARY))

    def keep_checkpoint(self, number: int) -> Path:
        """Keep the present checkpoint as that of a round, beside those of other rounds.

        Cost: its size on disk, from when the next one replaces it; a copy where the disk knows no hard links.
        """
        path = self.kept_checkpoint(number)
        path.parent.mkdir(exist_ok=True)
        files.keep_file(self.checkpoint_path, path)
        return path

    def kept_checkpoint(self, number: int) -> Path:
        """Where the checkpoint of a round lies, if it was kept."""
        return names.kept_checkpoint(self.path, number)

    def write_evaluation(self, report: Mapping[str, Any]) -> Path:
        """Replace the evaluation report, given as plain JSON types, and say where it lies."""
        return files.write_json(self.path / names.EVALUATION, report)

    def read_evaluation(self) -> dict[str, Any] | None:
        """The last evaluation report; None before the first one."""
        return files.read_json(self.path / names.EVALUATION)

    def write_environment(self, environment: Mapping[str, Any]) -> Path:
        """Replace the record of versions, code and machine, and say where it lies."""
        return files.write_json(self.path / names.ENVIRONMENT, environment)

    def read_environment(self) -> dict[str, Any] | None:
        """The record that was last written; None before the first one."""
        return files.read_json(self.path / names.ENVIRONMENT)


def _refuse_other_content(path: Path) -> None:
    """Before anything is written: never adopt a folder that is somebody's own."""
    if not path.is_dir() or (path / names.CONFIG).exists():
        return
    others = sorted({entry.name for entry in path.iterdir()} - {names.LOCK, names.CONFIG + files.TEMPORARY})
    if others:
        raise CheckpointError(
            f"{path} holds other things and no config.json (first: {others[0]})", hint="choose a new or an empty folder"
        )


def _remove_leftovers(path: Path) -> None:
    """Parts of files of a process that was killed while it wrote them."""
    for folder in (path, *(path / name for name in (names.LABELS, names.FIGURES, names.CHECKPOINTS, names.PENDING))):
        for leftover in folder.glob(f"*{files.TEMPORARY}"):
            leftover.unlink()
