"""Exact search by faiss on a GPU, where it is built for it."""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from clustering.exact_search import SPARE_CANDIDATES, search_all_pairs

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32, Int32

logger = logging.getLogger(__name__)

# A card for which faiss was not built ends the process, with a message for its developers, instead of raising.
TRIAL = """
import sys, faiss, numpy
rows = numpy.eye(64, dtype="float32")
faiss.knn_gpu(faiss.StandardGpuResources(), rows, rows, 4, metric=faiss.METRIC_INNER_PRODUCT, device=int(sys.argv[1]))
"""
TRIAL_SECONDS = 120
LONGEST_LISTS = 2_048  # that faiss selects on a GPU


def search_with_faiss(
    features: Float32[np.ndarray, "n d"], k: int, device: torch.device
) -> Int32[np.ndarray, "n k"] | None:
    """List the k most similar images of every image, or return None where faiss cannot do it on this device.

    Whether it can is tried once in a process of its own. If it cannot although it sees GPUs, the reason is logged once.

    Args:
        features: Unit rows, contiguous.
        k: From 1 to n.
        device: The device that the caller works on.

    Returns:
        The same lists as on the CPU.

    Cost: Some seconds for the first call on a device; then the features once more on the device.
    """
    import faiss  # here, for the same reason as in `exact_search`

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    if device.type != "cuda" or (device.index or 0) >= gpus or k + SPARE_CANDIDATES > LONGEST_LISTS:
        return None
    if not _works(device.index or 0):
        return None
    try:
        ranks, _ = search_all_pairs(features, k, gpu=device.index or 0)
    except (RuntimeError, ValueError) as error:  # out of memory, or coarse
        logger.warning("faiss did not search on %s (%s): torch does, with the same result", device, _first_line(error))
        return None
    return ranks


@cache
def _works(gpu: int) -> bool:
    """Try a small search in another process."""
    command = [sys.executable, "-c", TRIAL, str(gpu)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_SECONDS)  # noqa: S603 - our own words
    except subprocess.TimeoutExpired:
        reason = f"no answer in {TRIAL_SECONDS} s"
    else:
        if done.returncode == 0:
            return True
        reason = "it holds no code for this card" if "no kernel image" in done.stderr else f"exit {done.returncode}"
    logger.warning("faiss cannot search on cuda:%d (%s): torch does, with the same result", gpu, reason)
    return False


def _first_line(error: Exception) -> str:
    """What an error says, without the places in the source that faiss adds."""
    return str(error).strip().partition("\n")[0][:200]
