"""One process to a folder."""

import fcntl
import os
from pathlib import Path

from pipeline.errors import CheckpointError


def lock_folder(path: Path, name: str) -> int:
    """Make the folder this process's own; the lock goes with the process, however that ends.

    A second lock in the same process is refused as well.

    Args:
        path: The folder; made, with its parents, when absent.
        name: The lock's file inside it, which then holds this process's number and stays when the lock is gone.

    Returns:
        An open file descriptor: closing it gives the folder back.

    Raises:
        CheckpointError: Another process holds the folder, or it cannot be written or locked.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be used as a run folder: {error.strerror}", hint="choose a folder that you can write to"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise CheckpointError(
                f"{path} cannot be locked: {error.strerror}", hint="choose a folder on a file system with locks"
            ) from error
        raise CheckpointError(
            f"run folder {path} is in use by {f'process {holder}' if holder else 'another process'}",
            hint="wait until that process ends, or give this run another name",
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
