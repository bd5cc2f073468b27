"""Checkpoints: files of tensors and plain values, read without running code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pipeline.runtime import atomic_files as files


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace a checkpoint after verifying what was written.

    * `state`: Tensors, numbers, strings, booleans and None in dictionaries, lists and tuples.

    Raises:
        CheckpointError: The disk is full or failed. The previous checkpoint is untouched.

    Cost: twice its size on disk for a moment; one write and one read.
    """
    _assert_plain(state)

    def write(file: BinaryIO) -> None:
        torch.save(dict(state), file)

    files.replace_file(path, write, archive=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint to the CPU; None if it does not exist. Nothing is unpickled.

    Raises:
        CheckpointError: The file is truncated or damaged.
    """
    if not path.exists():
        return None
    files.check_archive(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _assert_plain(value: Any) -> None:
    """Fail where the value is made, not when a resumed run cannot read its checkpoint."""
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
