"""The mark of servers on an index: they hold its vectors in memory, which no change of the folder reaches."""

import fcntl
import logging
import os
from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.inference.index import SERVED, read_record
from pipeline.runtime.folder_lock import is_lockable

logger = logging.getLogger(__name__)

_UNKNOWN = frozenset({0})
"""Generations begin with 1."""


def mark_served(folder: Path) -> int | None:
    """Mark an index as served, until this process ends however that happens; any number of servers may do so.

    The file `served` inside it lists the generations that they opened, and stays afterwards. Open the index after this.

    Returns:
        An open file descriptor: closing it ends the mark. None for a folder that cannot be written.

    Raises:
        CheckpointError: The folder cannot be locked.
        DataError: It holds no index any more.
    """
    if not is_lockable(folder, SERVED):
        logger.warning("%s cannot be written: `vireid forget` does not notice that it is served", folder)
        return None
    try:
        mark = os.open(folder / SERVED, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unlockable(folder, error) from error
    try:
        if _try_lock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB):
            os.ftruncate(mark, 0)  # generations of servers that have ended
        fcntl.flock(mark, fcntl.LOCK_SH)
        os.write(mark, f"{read_record(folder).generation}\n".encode())
    except OSError as error:
        os.close(mark)
        raise _unlockable(folder, error) from error
    except BaseException:
        os.close(mark)
        raise
    return mark


def served_generations(folder: Path) -> frozenset[int]:
    """The generations of an index that running servers may hold; empty without a server, {0} if they are unknown.

    Raises:
        OSError: The mark cannot be read.
    """
    file = folder / SERVED
    if not file.is_file():
        return frozenset()
    mark = os.open(file, (os.O_RDWR if os.access(file, os.W_OK) else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        if _try_lock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return frozenset()
    finally:
        os.close(mark)
    lines = file.read_bytes().split()
    return frozenset(map(int, lines)) if lines and all(map(bytes.isdigit, lines)) else _UNKNOWN


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    return True


def _unlockable(folder: Path, error: OSError) -> CheckpointError:
    hint = "choose an --index folder on a file system with locks"
    return CheckpointError(f"{folder} cannot be marked as served: {error.strerror}", hint=hint)
