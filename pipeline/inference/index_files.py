"""Writing of an index: a new generation of its files, or the present one without some of its images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float32

from clustering.gallery_search import GalleryLists
from pipeline.inference.index import (
    FORMAT,
    INDEX,
    IndexedFile,
    digest_of_lists,
    is_own,
    open_gallery,
    read_record,
)
from pipeline.runtime import atomic_files

BLOCK = 4_096
"""Vectors written at once: a million of them take gigabytes."""


def write_generation(
    path: Path,
    origin: Mapping[str, Any],
    files: Sequence[IndexedFile],
    vectors: Iterable[Float32[np.ndarray, "b dim"]],
    *,
    dim: int,
    generation: int,
    has_lists: bool,
) -> None:
    """Write the files of a generation, then the record that names them, and remove those of others.

    Args:
        path: The index's folder, locked.
        origin: The entries of the record that state where images and vectors come from.
        files: The images.
        vectors: Their unit rows, in blocks.
        dim: Dimensions of a vector.
        generation: Its number, higher than the present one.
        has_lists: Whether inverted lists are built.
    """
    vectors_file, files_file = path / f"vectors-{generation:06d}.npy", path / f"files-{generation:06d}.jsonl"

    def write(file: BinaryIO) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(files), dim)}
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(np.ascontiguousarray(rows, dtype="<f4").data for rows in vectors)

    atomic_files.replace_file(vectors_file, write)
    atomic_files.write_lines(files_file, [asdict(file) for file in files])
    lists = _write_lists(path / f"lists-{generation:06d}.faiss", vectors_file) if has_lists else None
    record = {
        **origin,
        "format": FORMAT,
        "generation": generation,
        "images": len(files),
        "dim": dim,
        "vectors": vectors_file.name,
        "files": files_file.name,
        "lists": lists,
    }
    atomic_files.write_json(path / INDEX, record)
    for stale in stale_files(path):
        stale.unlink()


def stale_files(path: Path) -> list[Path]:
    """Files of an index that its record does not name, such as those of an earlier generation after a kill."""
    record = read_record(path)
    current = {record.vectors, record.files, *([record.lists.file] if record.lists else [])}
    return [file for file in path.iterdir() if is_own(file.name) and file.name not in current and file.is_file()]


def keep_rows(path: Path, kept: Bool[np.ndarray, " n"]) -> None:
    """Rewrite a locked index with some of its images; without any, remove it. Its lists are built again.

    Raises:
        DataError: The index is damaged.
        CheckpointError: It cannot be written; the present one is complete.
    """
    record = read_record(path)
    if not kept.any():
        for file in [path / INDEX, *(one for one in path.iterdir() if is_own(one.name))]:
            file.unlink()  # the record first: without it, the folder is no index
        return
    before = open_gallery(path, record.encoder)
    rows = np.flatnonzero(kept)

    def blocks() -> Iterator[Float32[np.ndarray, "b dim"]]:
        for start in range(0, len(rows), BLOCK):
            yield before.vectors[rows[start : start + BLOCK]]

    write_generation(
        path,
        atomic_files.read_json(path / INDEX) or {},
        [before.files[row] for row in rows],
        blocks(),
        dim=record.dim,
        generation=record.generation + 1,
        has_lists=record.lists is not None,
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
