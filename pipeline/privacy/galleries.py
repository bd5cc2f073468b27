"""Galleries in Milvus: the rows of forgotten images, and of strangers of a calibration, are deleted."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.inference.milvus_address import MilvusAddress
from pipeline.inference.milvus_deletion import choose_rows, delete_rows
from pipeline.inference.milvus_gallery import find_milvus
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Findings, Order, Trace


def gallery_traces(
    address: MilvusAddress, names: ImageNames, manifest: Path | None, found: Findings
) -> Iterator[Trace]:
    """The trace of a gallery in Milvus, with its calibration.

    `manifest` is the one whose columns select images in galleries, or None.

    Raises:
        ConfigError, DataError, CheckpointError: The database cannot be opened or read; see `open_milvus`.
    """
    gallery = find_milvus(address, None)
    if gallery is None:
        found.absent.append(address)
        return
    chosen = choose_rows(gallery, names.match)
    if not (chosen.rows or chosen.strangers or chosen.damaged):
        return
    what, empty = "vectors of strangers in a calibration", len(chosen.rows) == chosen.images
    if address.file is None or not empty:
        found.remains.append(_in_files(address))
    damaged = ", and the damaged calibration is removed" if chosen.damaged else ""
    selects = manifest is not None and Path(gallery.record.source) == manifest.resolve()
    yield Trace(
        address,
        "vectors of a gallery in Milvus" if chosen.rows else what,
        len(chosen.rows) + len(chosen.strangers) or None,
        "the collection is removed" if empty else "deleted" + damaged,
        lambda: delete_rows(gallery, names.match),
        order=Order.SELECTING_INDEX if selects else Order.INDEX,
        certain=bool(chosen.rows or chosen.strangers),
    )


def _in_files(address: MilvusAddress) -> str:
    """What a deletion of rows leaves, as a sentence."""
    if address.file is None:
        return (
            f"{address}: deleted vectors stay in the files of the server until it has compacted them, which --yes "
            "requests, and has cleared its storage"
        )
    return (
        f"{address}: deleted vectors stay in {address.file} until milvus-lite compacts its files, after later writes, "
        "if at all; remove this folder to be sure: the next search makes a gallery in it again"
    )
