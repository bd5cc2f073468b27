"""Small host arrays on their way to a device."""

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor


def upload(array: Shaped[np.ndarray, "..."], device: torch.device) -> Tensor:
    """Hand an array to a device without waiting for it.

    A GPU fetches it from page-locked memory when its turn comes; a copy from ordinary memory may make the host wait.

    Args:
        array: What to hand over; do not write to it afterwards: on the CPU the tensor shares its memory.
        device: Where the tensor is needed.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
