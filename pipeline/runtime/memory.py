"""How much fits into a device's memory, found by trying."""

from collections.abc import Callable

import torch


def largest_fitting(attempt: Callable[[int], object], too_many: int) -> int | None:
    """Halve a size until the work of that size fits.

    Args:
        attempt: Does the work of a size and raises `torch.OutOfMemoryError` where memory is too small.
        too_many: A size that did not fit.

    Returns:
        The first that fits; None if not even 1 does.
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
