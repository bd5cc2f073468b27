"""The ranks of distributed training, and their communication.

Each rank runs the same stages: it encodes its share of the images and gathers the features of the others, so all ranks
compute the same losses, memories and weights. Rank 0 alone clusters, learns prompts and writes files, and broadcasts
the results.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, distributed

from pipeline.errors import RankError
from pipeline.runtime.connections import open_descriptors, watched_connections
from pipeline.runtime.user_environment import choose_interface

_PATIENCE = timedelta(days=2)
"""Timeout of collectives: rank 0 may be clustering. The launcher or the connections show a lost rank."""

MEETING = timedelta(minutes=5)
"""Until all ranks of torchrun have connected: it starts them together, so they differ by the time to import torch."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process: `rank` of `count`, on this machine `local_rank` of `local_count`."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @staticmethod
    def here() -> "Processes":
        """The process group of this process; a single process without one."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return Processes()
        return Processes(
            rank=distributed.get_rank(),
            count=distributed.get_world_size(),
            local_rank=int(os.environ["LOCAL_RANK"]),
            local_count=int(os.environ["LOCAL_WORLD_SIZE"]),
        )

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank 0, which clusters, writes and reports."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This rank's part of `total` items in order; parts differ by at most one.

        >>> [Processes(rank, 3).share(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return self._share_of(self.rank, total)

    def from_rank_zero(self, make: Callable[[], Any]) -> Any:
        """Compute a value on rank 0 (`make`) and broadcast it; its tensors are on the CPU on the other ranks.

        The value has tensors, numbers, strings, booleans and None in dictionaries and lists, as a checkpoint: it is
        read without running code.
        """
        if self.count == 1:
            return make()
        value, content = None, io.BytesIO()
        if self.is_rank_zero:
            value = make()
            torch.save(value, content)
        length = torch.tensor([content.getbuffer().nbytes])
        distributed.broadcast(length, src=0)
        packed = (
            torch.frombuffer(content.getbuffer(), dtype=torch.uint8)
            if self.is_rank_zero
            else length.new_empty(int(length), dtype=torch.uint8)
        )
        distributed.broadcast(packed, src=0)
        if self.is_rank_zero:
            return value
        return torch.load(io.BytesIO(packed.numpy().data), map_location="cpu", weights_only=True)

    def gather_rows(self, rows: Num[np.ndarray, "share d"], total: int) -> Num[np.ndarray, "total d"]:
        """Concatenate the rows of all ranks, each of which has its `share`, on every rank.

        Cost: Every rank receives all rows: 280 MB for 34,167 features of width 2,048.
        """
        if self.count == 1:
            return rows
        gathered: np.ndarray = torch.cat(self._all(torch.from_numpy(rows), total)).numpy()
        return gathered

    def gather_features(self, rows: Float[Tensor, "share d"], total: int) -> Float[Tensor, "total d"]:
        """Differentiable `gather_rows` for tensors on the device.

        A loss of the gathered rows must be the same on all ranks, and gradients must be averaged over them, as
        `DistributedDataParallel` does: a row's gradient is then that of the loss, whatever the number of ranks.
        """
        if self.count == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self, total)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return gathered

    def _share_of(self, rank: int, total: int) -> slice:
        return slice(total * rank // self.count, total * (rank + 1) // self.count)

    def _all(self, rows: Tensor, total: int) -> list[Tensor]:
        """The rows of each rank, padded to the longest for the transfer."""
        shares = [self._share_of(rank, total) for rank in range(self.count)]
        lengths = [share.stop - share.start for share in shares]
        assert len(rows) == lengths[self.rank], f"{len(rows)} rows where {lengths[self.rank]} of {total} are due"
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        received = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(received, padded)
        return [part[:length] for part, length in zip(received, lengths, strict=True)]


ALONE = Processes()  # a run of one process


class _Gather(torch.autograd.Function):
    """Every rank computes the full-batch loss, so `backward` needs no communication."""

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
def joined(device_type: str, *, init_method: str = "env://", meeting: timedelta = _PATIENCE) -> Iterator[Processes]:
    """Be one of several ranks inside the `with` block; RANK, WORLD_SIZE etc. are set as by torchrun.

    GPUs communicate by NCCL, host memory by gloo on any device. `init_method` is the rendezvous, `meeting` its limit.
    """
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    distributed.init_process_group(
        backend,
        init_method=init_method,
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=meeting,
    )
    try:
        distributed.distributed_c10d._set_pg_timeout(_PATIENCE)
        yield Processes.here()
    finally:
        distributed.destroy_process_group()


@contextmanager
def joined_if_torchrun(device_type: str) -> Iterator[Processes]:
    """`joined` in a process that torchrun has started; otherwise a single process.

    All ranks leave together, so that a connection which closes earlier is a lost rank.

    Raises:
        RankError: The ranks do not find each other, or one is lost: its process, its machine or the network to it.
    """
    if not distributed.is_torchelastic_launched():
        yield ALONE
        return
    choose_interface(os.environ.get("MASTER_ADDR", "localhost"))
    before = open_descriptors()
    with ExitStack() as stack:
        try:
            processes = stack.enter_context(joined(device_type, meeting=MEETING))
        except RuntimeError as error:
            raise _not_met(error) from error
        stack.enter_context(watched_connections(before))
        yield processes
        distributed.all_reduce(torch.zeros(1))


def _not_met(error: RuntimeError) -> RankError:
    names = ("RANK", "WORLD_SIZE", "GLOO_SOCKET_IFNAME")
    rank, count, interface = (os.environ.get(name, "of this machine's name") for name in names)
    return RankError(
        f"rank {rank} of {count} cannot connect to the others by interface {interface}: {str(error).splitlines()[0]}",
        hint="see the output of the other machines; set GLOO_SOCKET_IFNAME to the interface that reaches them",
    )
