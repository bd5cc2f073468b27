"""Device, precision and memory of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from models.precision import Precision
from pipeline.errors import ConfigError

PrecisionSetting = Literal["auto", "float32", "bfloat16"]


def resolve_device(name: str, local_rank: int = 0, local_count: int = 1) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device that exists here; each local rank gets its own GPU.

    Raises:
        ConfigError: The name is none of these, or this machine has no such device, or fewer GPUs than ranks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is not a device", hint="use auto, cpu, cuda, or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported", hint="use auto, cpu, cuda, or cuda:N")
    if device.type == "cpu":
        return device
    num_gpus = torch.cuda.device_count()
    if (device.index or 0) >= num_gpus:
        raise ConfigError(f"there is no device {name!r}; GPUs here: {num_gpus}", hint="use auto or cpu")
    if local_count == 1:
        return device
    if ":" in name:
        raise ConfigError(
            f"{local_count} processes cannot share {name!r}", hint="use --device cuda, or a single process"
        )
    if local_count > num_gpus:
        raise ConfigError(
            f"{local_count} processes for {num_gpus} GPU{'s' * (num_gpus > 1)}: each process needs one of its own",
            hint=f"use --processes {num_gpus}",
        )
    return torch.device("cuda", local_rank)


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU, such as `NVIDIA A100-SXM4-80GB`."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def count_gpus() -> int:
    """Number of GPUs of this machine."""
    return torch.cuda.device_count()


def resolve_precision(name: PrecisionSetting, device: torch.device) -> Precision:
    """Precision of the network: `auto` is bfloat16 on a GPU.

    Raises:
        ConfigError: bfloat16 on a CPU, where it would be slower and change results.
    """
    if device.type == "cpu":
        if name == "bfloat16":
            raise ConfigError("execution.precision = 'bfloat16' is for GPUs", hint="use auto or float32")
        return "float32"
    return "bfloat16" if name == "auto" else name


def recorded_precision(name: PrecisionSetting, device: torch.device) -> Precision:
    """The precision of a finished run on any device: on a CPU float32, also where it was trained in bfloat16."""
    return resolve_precision("auto" if device.type == "cpu" else name, device)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def using_device(device: torch.device, precision: Precision, local_count: int = 1) -> Iterator[None]:
    """Configure torch for a device inside the `with` block; `local_count` ranks share the cores of this machine.

    With float32, GPU convolutions do not use TensorFloat-32.
    """
    if device.type == "cpu":
        with cpu_threads(max(1, torch.get_num_threads() // local_count)):
            yield
        return
    shorter = precision != "float32"
    with (
        torch.cuda.device(device),
        # Shapes repeat, so searching the fastest convolution pays off.
        torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=shorter),
    ):
        yield


def largest_fitting(attempt: Callable[[int], object], too_many: int) -> int | None:
    """Halve a size until `attempt(size)` fits in memory; None if not even 1 does.

    `attempt` raises `torch.OutOfMemoryError` if memory is too small.
    """
    size = too_many // 2
    while size >= 1:
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            size //= 2
        else:
            return size
    return None
