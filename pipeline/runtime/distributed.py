"""The processes that train one model together: who this one is, and the few things that they tell each other.

Each process runs the same stages. It encodes its share of the images, gets the others' features, and so computes the
same losses, memories and weights as all others. What happens once (clustering, prompts, files) happens on the first
process, and the others are told.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, distributed

_PATIENCE = timedelta(days=2)
"""How long a process waits for the others, which may be clustering: a lost one is noticed by who started it."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process, `rank` of `count`; on this machine it is `local_rank` of `local_count`."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @staticmethod
    def here() -> "Processes":
        """The group that this process has joined; a process alone otherwise."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return Processes()
        return Processes(
            rank=distributed.get_rank(),
            count=distributed.get_world_size(),
            local_rank=int(os.environ["LOCAL_RANK"]),
            local_count=int(os.environ["LOCAL_WORLD_SIZE"]),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process clusters, writes and reports."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process's part of `total` things in a row; the parts of all differ by one at most.

        >>> [Processes(rank, 3).share(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return self._share_of(self.rank, total)

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Let the first process make a value, and give it to all.

        Args:
            make: Called on the first process alone. Tensors, numbers, strings, booleans and None in dictionaries and
                lists, as in a checkpoint: what can be read without running code.

        Returns:
            What it made; the tensors are on the CPU on all processes but the first.
        """
        if self.count == 1:
            return make()
        value, content = None, io.BytesIO()
        if self.is_first:
            value = make()
            torch.save(value, content)
        length = torch.tensor([content.getbuffer().nbytes])
        distributed.broadcast(length, src=0)
        packed = torch.frombuffer(content.getbuffer(), dtype=torch.uint8) if self.is_first else _bytes(int(length))
        distributed.broadcast(packed, src=0)
        if self.is_first:
            return value
        return torch.load(io.BytesIO(packed.numpy().data), map_location="cpu", weights_only=True)

    def gather_rows(self, rows: Num[np.ndarray, "share d"], total: int) -> Num[np.ndarray, "total d"]:
        """Put together the rows of all processes, each of which has its `share` of them, on every process.

        Cost:
            Every process receives all rows: 280 MB for 34,167 features of width 2,048.
        """
        if self.count == 1:
            return rows
        gathered: np.ndarray = torch.cat(self._all(torch.from_numpy(rows), total)).numpy()
        return gathered

    def gather_features(self, rows: Float[Tensor, "share d"], total: int) -> Float[Tensor, "total d"]:
        """Like `gather_rows` for tensors on the device, and differentiable.

        A loss of the gathered rows must be the same on all processes, and gradients must be averaged over them, as
        `DistributedDataParallel` does: a row's gradient then is that of the loss, however many processes there are.
        """
        if self.count == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self, total)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return gathered

    def _share_of(self, rank: int, total: int) -> slice:
        return slice(total * rank // self.count, total * (rank + 1) // self.count)

    def _all(self, rows: Tensor, total: int) -> list[Tensor]:
        """The rows of each process; on the way all have the length of the longest."""
        shares = [self._share_of(rank, total) for rank in range(self.count)]
        lengths = [share.stop - share.start for share in shares]
        assert len(rows) == lengths[self.rank], f"{len(rows)} rows where {lengths[self.rank]} of {total} are due"
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        received = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(received, padded)
        return [part[:length] for part, length in zip(received, lengths, strict=True)]


ALONE = Processes()
"""The one process of most runs."""


class _Gather(torch.autograd.Function):
    """All processes compute the same loss, so each finds its own rows' gradient in its own copy: nobody is asked."""

    @staticmethod
    def forward(context: Any, rows: Tensor, processes: Processes, total: int) -> Tensor:
        context.processes, context.total = processes, total
        return torch.cat(processes._all(rows, total))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        processes: Processes = context.processes
        own = gradients[0][processes.share(context.total)]
        return own * processes.count, None, None


@contextmanager
def joined(device_type: str, *, init_method: str = "env://") -> Iterator[Processes]:
    """Be one of several processes inside the `with` block; RANK, WORLD_SIZE and the like say which, as torchrun sets.

    Args:
        device_type: `cuda` or `cpu`: GPUs talk by NCCL, host memory by gloo, whichever the device is.
        init_method: Where the processes meet: the address that torchrun gave, or a file of their own.
    """
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    distributed.init_process_group(
        backend,
        init_method=init_method,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=_PATIENCE,
    )
    try:
        yield Processes.here()
    finally:
        distributed.destroy_process_group()


@contextmanager
def joined_if_torchrun(device_type: str) -> Iterator[Processes]:
    """Like `joined` in a process that torchrun has started; nothing otherwise, and the process is alone."""
    if distributed.is_torchelastic_launched():
        with joined(device_type) as processes:
            yield processes
    else:
        yield ALONE


def _bytes(length: int) -> Tensor:
    return torch.empty(length, dtype=torch.uint8)
