"""Lock of a run folder: one process at a time."""

import fcntl
import os
from pathlib import Path

from pipeline.errors import CheckpointError

_KERNEL_LOCKS = Path("/proc/locks")


def lock_folder(path: Path, name: str, what: str = "run folder") -> int:
    """Lock a folder, made if missing, until this process ends; a second lock in the process is refused too.

    The file `name` inside it contains this process's number and stays afterwards. `what` names the folder in messages.

    Returns:
        An open file descriptor: closing it releases the lock.

    Raises:
        CheckpointError: Another process has locked the folder, or it cannot be written or locked.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (OSError, ValueError) as error:  # a name with a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(
            f"{path} cannot be used as a {what}: {reason}", hint="choose a folder that you can write to"
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
            f"{what} {path} is in use by {f'process {holder}' if holder else 'another process'}",
            hint="wait until that process ends, or use another folder",
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def is_lockable(path: Path, name: str) -> bool:
    """Whether this user may write the folder and its lock: not so on a read-only disk or in another user's folder."""
    lock = path / name
    return os.access(path, os.W_OK) and (not lock.exists() or os.access(lock, os.W_OK))


def lock_holder(path: Path, name: str) -> int | None:
    """The process of this machine that has locked the folder, or None; takes no lock and writes nothing.

    Trying the lock would hold it for a moment and make a starting run fail, so this reads the kernel's list of locks,
    which does not contain processes of other machines or containers.
    """
    file = path / name
    try:
        number, inode = file.read_bytes().decode("ascii", "replace").strip(), file.stat().st_ino
        held = _KERNEL_LOCKS.read_text(encoding="ascii")
    except OSError:
        return None  # never locked, or a system without this list
    # Such as `4: FLOCK ADVISORY WRITE 20829 fe:00:2252859 0 EOF`: the process, then device and inode of the file.
    locks = [line.split() for line in held.splitlines()]
    is_held = any(
        lock[1] == "FLOCK" and lock[4] == number and lock[5].rpartition(":")[2] == str(inode) for lock in locks
    )
    return int(number) if is_held else None
