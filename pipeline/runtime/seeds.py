"""Random generators: one seed, and a generator for each named purpose.

Generators are keyed by name, stage and round, so that consumers do not influence each other, and a run resumed at round
12 draws the same numbers as an uninterrupted one.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, equal on every machine.

    >>> derive_seed(1, "batches", "prepare", 3) == derive_seed(1, "batches", "prepare", 3)
    True
    >>> derive_seed(1, "batches", 3) == derive_seed(1, "augment", 3)
    False
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(derive_seed(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A torch generator for one purpose, on the device where its numbers are used."""
    import torch  # not above: commands that read data sets do without it

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *purpose))
