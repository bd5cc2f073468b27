"""Precision of the network."""

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


def network_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """Context in which stems and trunk compute in `precision`; heads, losses and memories stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
