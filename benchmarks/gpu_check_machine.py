"""The GPU check's parts `machine` and `tests`: what is here, and what pytest finds with it."""

import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.clustering_machine import describe_machine
from benchmarks.gpu_check_parts import Check, Row, Rows, Skip
from benchmarks.training_speed import matmul_peak
from pipeline.runtime.device import device_name, using_device
from pipeline.runtime.environment import describe_environment

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"mark\.gpu\b|\bno_gpu\b")
RESULT = re.compile(r"^(tests/\S+?\.py::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.MULTILINE)
NEAR_THE_END = 0.9  # of a time box: then pytest is ended, and what it has found is kept


def machine(check: Check) -> Rows:
    """Hardware, versions, and the speed of a large product."""
    yield "machine", lambda: describe_here(torch.device(check.device))
    for precision in ("float32", "bfloat16"):
        yield f"product in {precision}", lambda precision=precision: product(check, precision)


def describe_here(device: torch.device) -> Row:
    """Machine, versions and code."""
    described = describe_machine(str(device)) | describe_environment(device_name(device))
    described["faiss_gpus"] = faiss_gpus()
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        described |= {
            "gpu_memory_bytes": found.total_memory,
            "capability": f"{found.major}.{found.minor}",
            "multiprocessors": found.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": driver_version(),
        }
    return described


def faiss_gpus() -> int | None:
    """How many GPUs faiss can use; None without faiss."""
    if find_spec("faiss") is None:
        return None
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def driver_version() -> str | None:
    """Of the GPU's driver, where its own program is here."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip().partition("\n")[0] or None


def product(check: Check, precision: Any) -> Row:
    """Operations a second of a large product."""
    device = torch.device(check.device)
    if device.type == "cpu" and precision == "bfloat16":
        raise Skip("bfloat16 is for GPUs")
    with using_device(device, precision):
        return {"peak_flops": matmul_peak(device, precision, toy=check.dry_run)}


def tests(check: Check) -> Rows:
    """The tests that need a GPU; without one, all of them are skipped."""
    yield "pytest -m gpu", lambda: run_tests(check)


def run_tests(check: Check) -> Row:
    """Count what pytest finds, until its time is over."""
    if find_spec("pytest") is None:
        raise Skip("there is no pytest here")
    files, left_out = marked_files()
    # Without the options of pyproject.toml: these check shapes at every call, and need plug-ins.
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-o", "addopts=", "--import-mode=importlib"]
    command += ["-p", "no:cacheprovider", "--color=no", "--tb=short", *files]
    visible = {"CUDA_VISIBLE_DEVICES": visible_gpu(check.device)}
    log = check.scratch / "pytest.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | visible, stdout=output, stderr=subprocess.STDOUT)
        try:
            code: int | None = process.wait(NEAR_THE_END * check.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    return counted(log.read_text(encoding="utf-8"), code) | {"left_out": left_out}


def marked_files() -> tuple[list[str], list[str]]:
    """Files with tests that need a GPU, and those of them that need hypothesis where there is none."""
    files = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py")}
    own = {name: text for name, text in sorted(files.items()) if MARKED.search(text)}
    missing = find_spec("hypothesis") is None
    left_out = [name for name, text in own.items() if missing and "from hypothesis" in text]
    return [name for name in own if name not in left_out], left_out


def visible_gpu(device: str) -> str:
    """The tests use the first GPU that they see; none on a CPU."""
    if device == "cpu":
        return ""
    index = int(device.partition(":")[2] or 0)
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",")[index] if listed else str(index)


def counted(log: str, code: int | None) -> Row:
    """Tests by result; those that did not pass by name.

    Args:
        log: What pytest printed with `-v`.
        code: Its exit code; None if it was ended.
    """
    results = RESULT.findall(log)
    found: Row = {"counts": dict(Counter(result.lower() for _, result in results))}
    found["not_passed"] = [name for name, result in results if result in ("FAILED", "ERROR")]
    if code is None:
        return found | {"ended": f"out of time after {len(results)} tests"}
    if code == 0:
        return found
    if not results:
        return {"failed": f"pytest ended with exit code {code}", "trace": log.splitlines()[-12:]}
    return found | {"trace": log.splitlines()[-40:]}
