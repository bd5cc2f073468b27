"""Versions, code and machine of a run."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")

# Packages whose version can change a number or the meaning of a file.
_DISTRIBUTIONS = (
    "usl-vireid", "torch", "torchvision", "open_clip_torch", "timm", "safetensors", "numpy", "scipy", "scikit-learn",
    "numba", "faiss-cpu", "faiss-gpu", "pillow", "prefect", "mlflow", "pydantic",
)  # fmt: skip


def describe_environment(device: str) -> dict[str, Any]:
    """Versions (null if not installed), git commit (null outside a checkout) and machine, as plain JSON types.

    `device` is `cpu`, or the name of the GPU; `modified` is whether the checkout differed from the commit.

    >>> describe_environment("cpu")["device"]
    'cpu'
    """
    commit, modified = _commit(Path(__file__).resolve().parents[2])
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": device,
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        "commit": commit,
        "modified": modified,
    }


def peak_resident_bytes() -> int:
    """Peak memory of this process only: that of getrusage survives exec, so a process would inherit its parent's."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_memory() -> dict[str, float]:
    """Peak memory of this process and, on a GPU, of torch's allocator; bytes."""
    import torch  # not above: `vireid label` needs no torch

    peak = {"memory/process_peak_bytes": float(peak_resident_bytes())}
    if torch.cuda.is_initialized():
        peak["memory/device_peak_bytes"] = float(torch.cuda.max_memory_allocated())
    return peak


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> tuple[str | None, bool | None]:
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder:
        return None, None  # no checkout, or one of another project around an installed copy
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return _git(folder, "rev-parse", "--verify", "HEAD"), None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
