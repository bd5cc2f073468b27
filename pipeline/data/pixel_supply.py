"""Stored pixels for the encoder: resident on the device if they fit, else read one batch ahead."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from models.modality import PerModality
from models.transfer import upload
from pipeline.console import progress
from pipeline.data.images import StoredImages, gather_pixels

logger = logging.getLogger(__name__)

_CHUNK: Final = 1024  # images that move to the device at once


@runtime_checkable
class PixelSupply(Protocol):
    """Pixels of images of one modality, batch after batch, on the device."""

    def batches(self, positions: Sequence[Int64[np.ndarray, " _"]]) -> Iterator[UInt8[Tensor, "_ height width 3"]]:
        """The pixels of each batch, in its order; positions may repeat."""
        ...


class StreamedPixels:
    """Pixels in the store: a thread reads the next batch while one is used."""

    def __init__(self, images: StoredImages, device: torch.device) -> None:
        self._images = images
        self._device = device

    def batches(self, positions: Sequence[Int64[np.ndarray, " _"]]) -> Iterator[UInt8[Tensor, "_ height width 3"]]:
        """The pixels of each batch; a GPU copies them beside its other work."""
        copying = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-images") as reader:
            pending = [reader.submit(self._read, batch) for batch in positions[:1]]
            for following in (*positions[1:], None):
                if not pending:
                    return
                pixels = pending.pop().result()
                if following is not None:
                    pending.append(reader.submit(self._read, following))
                yield pixels if copying is None else _copy(pixels, self._device, copying)

    def _read(self, batch: Int64[np.ndarray, " batch"]) -> UInt8[Tensor, "batch height width 3"]:
        shape = (len(batch), *self._images.pixels.shape[1:])
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        gather_pixels(self._images, batch, out=pixels.numpy())
        return pixels


class ResidentPixels:
    """Pixels of all images on the device; a batch is one index operation.

    Cost: 4.25 GB for the 34,167 training images of SYSU-MM01 at 288 x 144.
    """

    def __init__(self, images: StoredImages, device: torch.device) -> None:
        # In the order of the store, which is then read forwards; `_places` finds an image in it.
        order = np.argsort(images.rows, kind="stable")
        self._places = np.empty_like(order)
        self._places[order] = np.arange(len(order))
        self._pixels = torch.empty((len(order), *images.pixels.shape[1:]), dtype=torch.uint8, device=device)
        starts = range(0, len(order), _CHUNK)
        chunks = StreamedPixels(images, device).batches([order[start : start + _CHUNK] for start in starts])
        bar = progress(zip(starts, chunks, strict=True), "move images to the device", total=len(starts), unit="chunks")
        for start, chunk in bar:
            self._pixels[start : start + len(chunk)] = chunk

    def batches(self, positions: Sequence[Int64[np.ndarray, " _"]]) -> Iterator[UInt8[Tensor, "_ height width 3"]]:
        """The pixels of each batch; the indices of all batches are uploaded once."""
        if len(positions) == 0:
            return
        places = upload(self._places[np.concatenate(positions)], self._pixels.device)
        for rows in places.split([len(batch) for batch in positions]):
            yield self._pixels.index_select(0, rows)


def supply_pixels(
    images: PerModality[StoredImages], device: torch.device, *, memory_share: float
) -> PerModality[PixelSupply]:
    """Keep the pixels of both modalities on a GPU if they fit in `memory_share` of its free memory, else stream."""
    size = sum(images.map(lambda some: len(some) * int(np.prod(some.pixels.shape[1:]))))
    if device.type != "cuda":
        return images.map(lambda some: StreamedPixels(some, device))
    free, _ = torch.cuda.mem_get_info(device)
    if size > memory_share * free:
        logger.info(
            "the %.2f GB of training images are more than %g of the %.2f GB that %s has free: they are streamed",
            size / 1e9, memory_share, free / 1e9, device,
        )  # fmt: skip
        return images.map(lambda some: StreamedPixels(some, device))
    return images.map(lambda some: ResidentPixels(some, device))


def _copy(pixels: Tensor, device: torch.device, copying: torch.cuda.Stream) -> Tensor:
    with torch.cuda.stream(copying):
        on_device = pixels.to(device, non_blocking=True)
    current = torch.cuda.current_stream(device)
    current.wait_stream(copying)
    on_device.record_stream(current)
    return on_device
