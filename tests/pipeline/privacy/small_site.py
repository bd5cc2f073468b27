"""A site of a few painted images, with what this program makes of them."""

import json
from pathlib import Path

import numpy as np

from models.modality import Modality, PerModality
from pipeline.data.image_list import list_images
from pipeline.data.images import ImageTable
from pipeline.data.store import ImageStore, open_store
from pipeline.inference.embedded_files import embed_to_file
from pipeline.inference.index import Gallery, GallerySource
from pipeline.inference.index_refresh import Kind, refresh_gallery
from pipeline.inference.search_page import write_search_page
from pipeline.inference.searching import hit_columns, search_gallery
from pipeline.privacy.forgetting import Places, Report, Sources, forget
from pipeline.privacy.selection import Selection, images_of_person
from pipeline.runtime.outputs import HITS
from pipeline.runtime.table_files import TableFiles
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

CAMERAS = {"day": "visible", "night": "infrared"}
PEOPLE = ("anna", "ben", "3")
SHOTS = (1, 2)


def make_site(folder: Path) -> Path:
    """Two shots of each person by each camera, and their manifest, which is returned; `ben` has times."""
    lines = ["path,modality,camera,person,split,time"]
    for at, person in enumerate(PEOPLE):
        for camera, modality in CAMERAS.items():
            for shot in SHOTS:
                path = f"{camera}/{person}/{shot}.png"
                paint(folder / path, (80 * at + 10 * shot, 200 - 60 * at, 100 if camera == "day" else 20))
                time = f"2026-11-0{shot}T10:00" if person == "ben" else ""
                lines.append(f"{path},{modality},{camera},{person},{'train' if shot == 1 else 'test'},{time}")
    manifest = folder / "site.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def make_store(manifest: Path, cache: Path) -> ImageStore:
    """Its decoded images."""
    images = list_images(manifest, None)

    def table(modality: Modality) -> ImageTable:
        paths = tuple(images.paths[row] for row in images.of(modality))
        return ImageTable(manifest.parent, paths, np.ones(len(paths), np.int64), modality)

    return open_store(PerModality.build(table), height=8, width=4, cache_folder=cache)


def make_index(source: Path, folder: Path, kind: Kind = "auto") -> Gallery:
    """The index of its visible images."""
    return refresh_gallery(folder, MeanEncoder(), GallerySource(source, Modality.VISIBLE), batch_size=4, kind=kind)[0]


def make_features(source: Path, file: Path) -> Path:
    """The vectors of all its images, as an archive and as tables."""
    tables = TableFiles(*(file.with_suffix(form) for form in (".csv", ".parquet", ".sqlite")))
    embed_to_file(MeanEncoder(), list_images(source, None), file, batch_size=4, tables=tables)
    return file


def make_results(manifest: Path, gallery: Gallery, folder: Path) -> list[Path]:
    """All that a search with its infrared images writes: a page, tables, JSON."""
    queries = list_images(manifest, Modality.INFRARED)
    result = search_gallery(MeanEncoder(), queries, gallery, 6, batch_size=4)
    write_search_page(result, queries, gallery, folder / "page.html")
    tables = TableFiles(*(folder / f"hits.{form}" for form in ("csv", "parquet", "sqlite")))
    tables.write(HITS, hit_columns(result, "mean"))
    record = {"index": "indexes/site", "gallery": len(gallery.files), **result.to_dict()}
    (folder / "found.json").write_text(json.dumps(record))
    return sorted(folder.iterdir())


def anna(manifest: Path, indexes: Path | None = None) -> Selection:
    """The images of one person."""
    return images_of_person("anna", manifest, None, indexes or manifest.parent / "no-indexes")


def forget_now(selection: Selection, folder: Path, *also: Path, manifest: Path | None = None, **what: bool) -> Report:
    """Remove what is found in `folder/runs`, `folder/indexes` and other places."""
    places = Places(folder / "runs", folder / "indexes", also)
    return forget(selection, places, Sources(manifest, **what), really=True)
