"""What the figures of the clustering benchmark depend on."""

import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clustering.parallel import num_threads

VERSIONS = ("numpy", "numba", "scikit-learn", "faiss-cpu", "faiss-gpu", "torch")


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, memory, threads, versions, the day, how busy it was; and the GPU where one was used."""
    described = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": num_threads(),
        "search_threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "busy": round(os.getloadavg()[0], 1),  # mean number of running programs in the last minute, this one among them
        "python": platform.python_version(),
        "versions": installed(),
        "day": date.today().isoformat(),
    }
    if device != "cpu":
        import torch

        described["gpu"] = torch.cuda.get_device_name(device)
    return described


def processor() -> str:
    """Its name, as Linux gives it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed() -> dict[str, str]:
    """Versions of the libraries; of faiss there is one build."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
