"""What the processes of `test_several_processes.py` and `test_several_machines.py` do; processes import this module."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.memory import PrototypeMemory
from pipeline import features
from pipeline.config.cclnet import CclnetConfig
from pipeline.console import print_error
from pipeline.data.transforms import augmentation, channel_augmentation
from pipeline.data.transforms.augmentation import preprocess
from pipeline.errors import DataError, TrainingError, VireidError
from pipeline.methods import train as plain
from pipeline.methods.cclnet import stages
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.runs import run as experiment
from pipeline.runtime.distributed import Processes, joined_if_torchrun
from pipeline.training.loop import require_equal_ranks


def train(config: CclnetConfig) -> None:
    """The rounds of a run, on this rank."""
    plain(config)


def in_float64(text: TextPrototypes) -> TextPrototypes:
    return replace(text, features=text.features.double())


def train_in_float64(config: CclnetConfig, memories: Path) -> None:
    """The rounds of a run in float64; every process leaves its memories after each round."""
    rank, real = Processes.here().rank, stages.run_epoch
    build = experiment.DualStemEncoder.from_clip

    def keeping(*arguments, **named):
        losses = real(*arguments, **named)
        number = len(list(memories.glob(f"*-{rank}.npz"))) + 1
        np.savez(
            memories / f"{number}-{rank}.npz", *(memory.prototypes.numpy() for memory in arguments[2].updates.memories)
        )
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "run_epoch", keeping)
        patch.setattr(stages, "PrototypeMemory", lambda rows: PrototypeMemory(rows.double()))
        text_loss = stages.TextLoss
        patch.setattr(
            stages, "TextLoss", lambda texts, *rest, **named: text_loss(texts.map(in_float64), *rest, **named)
        )
        patch.setattr(experiment.DualStemEncoder, "from_clip", lambda *a, **k: build(*a, **k).double())
        for module in (augmentation, channel_augmentation, features):
            patch.setattr(module, "preprocess", lambda *a: preprocess(*a).double())
        train(config)


def at_step_of_second(step: int, act: Callable[[], None]) -> None:
    """Let the process of rank 1 act at a step of training that follows."""
    from pipeline.methods.cclnet import contrast as epoch

    if os.environ["RANK"] == "1":
        real, calls = epoch.prototype_contrast, 0

        def counted(*arguments):
            nonlocal calls
            calls += 1
            if calls == step:
                act()
            return real(*arguments)

        epoch.prototype_contrast = counted


def lose_the_second_process(config: CclnetConfig, step: int) -> None:
    """The rounds of a run, in which the process that follows is killed at a step of training."""
    at_step_of_second(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    train(config)


def train_on_a_host(config_file: str, memories: str, lost_at: str = "") -> None:
    """The rounds of a run in float64, on a rank of torchrun; rank 1 is killed with its torchrun at a step."""
    if lost_at:
        at_step_of_second(int(lost_at), lambda: [os.kill(pid, signal.SIGKILL) for pid in (os.getppid(), os.getpid())])
    try:
        with joined_if_torchrun("cpu"):
            train_in_float64(CclnetConfig.model_validate_json(Path(config_file).read_text()), Path(memories))
    except VireidError as error:
        print_error(error)
        sys.exit(1)


def command_that_waits(folder: str, step: str, *arguments: str) -> None:
    """A command line, on a rank of torchrun; rank 1 writes a file at a step and waits for a file there."""
    from flows.cli.app import main

    def wait() -> None:
        (Path(folder) / "waiting").touch()
        while not (Path(folder) / "go").exists():
            time.sleep(0.1)

    at_step_of_second(int(step), wait)
    sys.argv = ["vireid", *arguments]
    main()


def fail(rank: int, kind: str) -> None:
    """One process fails, the other one waits for it."""
    if Processes.here().rank == rank:
        if kind == "known":
            raise DataError("an image is missing", hint="bring it back")
        raise ValueError("a mistake of ours")
    torch.distributed.barrier()


def exchange_and_normalise(out: Path) -> None:
    """Everything that processes tell each other, for unequal shares; each writes what it got."""
    exchange(out)
    normalise(out)
    compare(out)


def exchange(out: Path) -> None:
    """Values, rows, and features with gradients."""
    processes = Processes.here()
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    told = processes.from_rank_zero(lambda: {"rank": processes.rank, "rows": torch.arange(3), "none": None})
    rows = processes.gather_rows(table[processes.share(5)], 5)
    own = torch.from_numpy(table[processes.share(5)]).requires_grad_()
    gathered = processes.gather_features(own, 5)
    # The loss sum (i + 1) x_i^2 over all rows: its gradient is 2 (i + 1) x_i. Averaging over two processes halves
    # what each adds, so each has to carry twice its own part.
    (gathered.square().sum(dim=1) * torch.arange(1, 6)).sum().backward()
    np.savez(
        out / f"told-{processes.rank}.npz",
        told=np.array([told["rank"], *told["rows"].tolist(), told["none"] is None]),
        rows=rows,
        gathered=gathered.detach().numpy(),
        gradient=own.grad.numpy(),
    )


def normalise(out: Path) -> None:
    """Batch norm over unequal shares of one batch, and its gradients."""
    from models.batch_norm import synchronise_batch_norms

    processes = Processes.here()
    generator = torch.Generator().manual_seed(3)
    images, weights = torch.randn(2, 7, 4, 3, 2, generator=generator, dtype=torch.float64)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(4).double())
    synchronise_batch_norms(network, torch.device("cpu"))
    own = images[processes.share(7)].clone().requires_grad_()
    output = network(own)
    (output * weights[processes.share(7)]).sum().backward()
    np.savez(
        out / f"norm-{processes.rank}.npz",
        output=output.detach().numpy(),
        gradient=own.grad.numpy(),
        mean=network[0].running_mean.numpy(),
        variance=network[0].running_var.numpy(),
        scale=network[0].weight.grad.numpy(),
    )


def compare(out: Path) -> None:
    """Weights that are equal on all ranks, then weights of which rank 1 has changed one bit."""
    processes = Processes.here()
    weights = torch.nn.Parameter(torch.arange(1.0, 7.0).reshape(2, 3))
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(2)), weights])
    require_equal_ranks(optimiser, processes)
    if processes.rank == 1:
        weights.data[1, 2] = torch.nextafter(weights[1, 2], torch.tensor(7.0))
    with pytest.raises(TrainingError) as caught:
        require_equal_ranks(optimiser, processes)
    (out / f"compared-{processes.rank}.txt").write_text(caught.value.message)
