"""What the steps of an epoch show: images, clusters and text rows, looked up before the first step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from clustering.dbscan import OUTLIER, PseudoLabels
from models.modality import PerModality
from models.transfer import upload
from pipeline.data.pixel_supply import PixelSupply
from pipeline.data.sampling import CrossModalBatches
from pipeline.processes import Processes
from pipeline.training.state import TextPrototypes


@dataclass(frozen=True, slots=True)
class TrainingImagesAndLabels:
    """The images of one modality: pixels, cluster, and the row of the text that described each (-1: none)."""

    pixels: PixelSupply
    labels: Int64[np.ndarray, " n"]
    text_rows: Int64[np.ndarray, " n"]


def labelled_images(pixels: PixelSupply, labels: PseudoLabels, text: TextPrototypes | None) -> TrainingImagesAndLabels:
    """Put images, clusters and text rows side by side.

    Raises:
        ValueError: A text row is asked for that does not exist.
    """
    text_rows = np.full(len(labels.labels), OUTLIER, dtype=np.int64) if text is None else text.labels
    if text is not None and text_rows.max(initial=OUTLIER) >= text.features.shape[0]:
        raise ValueError(f"label {text_rows.max()} has no text: there are {text.features.shape[0]}")
    return TrainingImagesAndLabels(pixels, labels.labels, text_rows)


@dataclass(frozen=True, slots=True)
class EpochSteps:
    """What the steps of an epoch need, on the device already; matrices have one row a step.

    `positions` are those of this process's share of the images, labels and texts those of the whole batch.
    """

    pixels: PerModality[PixelSupply]
    positions: PerModality[list[Int64[np.ndarray, " share"]]]
    host_labels: PerModality[Int64[Tensor, "steps batch"]]
    labels: PerModality[Int64[Tensor, "steps batch"]]
    text_rows: PerModality[Int64[Tensor, "steps batch"]]
    processes: Processes

    @staticmethod
    def plan(
        sources: PerModality[TrainingImagesAndLabels],
        batches: CrossModalBatches,
        processes: Processes,
        device: torch.device,
    ) -> "EpochSteps":
        """Look up all labels of an epoch at once."""
        labels = sources.map_with(lambda source, at: source.labels[at], batches.positions)
        text_rows = sources.map_with(lambda source, at: source.text_rows[at], batches.positions)
        return EpochSteps(
            pixels=sources.map(lambda source: source.pixels),
            positions=batches.positions.map(lambda at: list(at[:, processes.share(at.shape[1])])),
            host_labels=labels.map(torch.from_numpy),
            labels=labels.map(lambda rows: upload(rows, device)),
            text_rows=text_rows.map(lambda rows: upload(rows, device)),
            processes=processes,
        )

    def __len__(self) -> int:
        return len(self.positions.visible)

    def of_step(self, rows: PerModality[Int64[Tensor, "steps batch"]], step: int) -> PerModality[Tensor]:
        """One step's row of each modality's matrix."""
        return rows.map(lambda matrix: matrix[step])

    def pixel_batches(self) -> Iterator[PerModality[UInt8[Tensor, "share height width 3"]]]:
        """The pixels of this process's share of each step."""
        visible, infrared = self.pixels.map_with(lambda supply, at: supply.batches(at), self.positions)
        return (PerModality(*pair) for pair in zip(visible, infrared, strict=True))
