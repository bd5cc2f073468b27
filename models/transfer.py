"""Upload of small host arrays to a device."""

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor


def upload(array: Shaped[np.ndarray, "..."], device: torch.device) -> Tensor:
    """Copy an array to a device without waiting for it.

    A GPU copies from page-locked memory when its turn comes; a copy from pageable memory may make the host wait. On the
    CPU the tensor shares the array's memory: do not write to it afterwards.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
