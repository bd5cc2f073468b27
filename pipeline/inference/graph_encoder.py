"""The networks of both modalities as graphs with their weights, used as an encoder: none of our networks is needed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from models.modality import Modality, PerModality
from pipeline.errors import WeightsError
from pipeline.inference.encoder import encode_batch


@dataclass(frozen=True, eq=False)
class GraphEncoder:
    """As `TrainedEncoder` asks; a graph is loaded when its modality is first encoded.

    Attributes:
        name: Where it comes from, for people.
        digest: Which weights it has.
        height: Of the images, pixels.
        width: Of the images, pixels.
        files: The graphs.
        device: Where they compute.
    """

    name: str
    digest: str
    height: int
    width: int
    files: PerModality[Path]
    device: torch.device
    _graphs: dict[Modality, Any] = field(default_factory=dict, init=False)

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """As for `TrainedEncoder`."""
        if modality not in self._graphs:
            self._graphs[modality] = _load(self.files[modality], self.device)
        graph = self._graphs[modality]
        return encode_batch(
            self.name, lambda: graph(torch.from_numpy(pixels).to(self.device)), len(pixels), self.device, "float32"
        )


def _load(file: Path, device: torch.device) -> Any:
    """A graph; nothing is unpickled."""
    try:
        program = torch.export.load(file)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{file} is no graph of ours: {error}", hint="register the run's models again") from error
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()
