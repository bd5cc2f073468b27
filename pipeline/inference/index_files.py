"""Writing of an index: a new generation of its files, or the present one without some of its images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32

from clustering.gallery_search import GalleryLists
from models.modality import Modality
from pipeline.inference.calibration import carry_over
from pipeline.inference.index import (
    FORMAT,
    INDEX,
    Gallery,
    IndexedFile,
    IndexRecord,
    digest_of_lists,
    is_own,
    open_gallery,
    read_record,
)
from pipeline.runtime import atomic_files

BLOCK = 4_096
"""Vectors written at once: a million of them take gigabytes."""


Kept = Callable[[str, Path], bool]
"""Whether an image stays, by its path and the folder that it starts from."""


def write_generation(
    path: Path,
    origin: Mapping[str, Any],
    files: Sequence[IndexedFile],
    vectors: Iterable[Float32[np.ndarray, "b dim"]],
    *,
    dim: int,
    last: IndexRecord | None,
    has_lists: bool,
    strangers: Kept | None = None,
) -> None:
    """Write the files of a generation, then the record that names them, and remove those of others.

    Args:
        path: The index's folder, locked.
        origin: The entries of the record that state where images and vectors come from.
        files: The images.
        vectors: Their unit rows, in blocks.
        dim: Dimensions of a vector.
        last: The record of the present generation; its calibration is made again.
        has_lists: Whether inverted lists are built.
        strangers: Those of the calibration that stay; all if None.
    """
    generation = 1 + (0 if last is None else last.generation)
    vectors_file, files_file = path / f"vectors-{generation:06d}.npy", path / f"files-{generation:06d}.jsonl"

    def write(file: BinaryIO) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(files), dim)}
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(np.ascontiguousarray(rows, dtype="<f4").data for rows in vectors)

    atomic_files.replace_file(vectors_file, write)
    atomic_files.write_lines(files_file, [asdict(file) for file in files])
    lists = _write_lists(path / f"lists-{generation:06d}.faiss", vectors_file) if has_lists else None
    calibration = None
    if last is not None and last.calibration is not None:
        mapped = np.load(vectors_file, mmap_mode="r", allow_pickle=False)
        modality, encoder = Modality(origin["modality"]), origin["encoder"]
        gallery = Gallery(Path(origin["root"]), tuple(files), mapped, modality, encoder, None, None)
        after = path / f"calibration-{generation:06d}.npz"
        calibration = carry_over(path / last.calibration, after, gallery, files_file, strangers)
    record = {
        **origin,
        "format": FORMAT,
        "generation": generation,
        "images": len(files),
        "dim": dim,
        "vectors": vectors_file.name,
        "files": files_file.name,
        "lists": lists,
        "calibration": calibration,
    }
    atomic_files.write_json(path / INDEX, record)
    for stale in stale_files(path):
        stale.unlink()


def stale_files(path: Path) -> list[Path]:
    """Files of an index that its record does not name, such as those of an earlier generation after a kill."""
    record = read_record(path)
    current = {record.vectors, record.files, record.calibration, *([record.lists.file] if record.lists else [])}
    return [file for file in path.iterdir() if is_own(file.name) and file.name not in current and file.is_file()]


def keep_images(path: Path, kept: Kept) -> None:
    """Rewrite a locked index with some of its images and of the strangers of its calibration.

    Its lists are built again. An index without any image is removed.

    Raises:
        DataError: The index is damaged.
        CheckpointError: It cannot be written; the present one is complete.
    """
    record = read_record(path)
    before = open_gallery(path, record.encoder)
    rows = np.flatnonzero([kept(file.path, before.root) for file in before.files])
    if not len(rows):
        for file in [path / INDEX, *(one for one in path.iterdir() if is_own(one.name))]:
            file.unlink()  # the record first: without it, the folder is no index
        return

    def blocks() -> Iterator[Float32[np.ndarray, "b dim"]]:
        for start in range(0, len(rows), BLOCK):
            yield before.vectors[rows[start : start + BLOCK]]

    write_generation(
        path,
        atomic_files.read_json(path / INDEX) or {},
        [before.files[row] for row in rows],
        blocks(),
        dim=record.dim,
        last=record,
        has_lists=record.lists is not None,
        strangers=kept,
    )


def _write_lists(path: Path, vectors: Path) -> dict[str, Any]:
    built = GalleryLists.build(np.load(vectors, mmap_mode="r", allow_pickle=False))
    content = built.to_bytes()

    def write(file: BinaryIO) -> None:
        file.write(content.data)

    atomic_files.replace_file(path, write)
    return {
        "file": path.name, "effort": built.effort, "recall": built.recall, "sha256": digest_of_lists(content),
    }  # fmt: skip
