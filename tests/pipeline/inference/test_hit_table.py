"""The table of a search has the vector of each hit."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import ImageList, list_images
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.groups import GroupBy, Grouping
from pipeline.inference.index import Gallery, GallerySource
from pipeline.inference.index_refresh import refresh_gallery
from pipeline.inference.searching import find_similar, hit_columns, search_gallery
from pipeline.runtime.outputs import HITS
from pipeline.runtime.table_files import TableFiles
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    for number, colour in enumerate([(250, 0, 0), (200, 60, 0), (190, 0, 70), (0, 0, 250)]):
        paint(tmp_path / "day" / "aaab"[number] / f"{number}.png", colour)
    return refresh_gallery(
        tmp_path / "index", MeanEncoder(), GallerySource(tmp_path / "day", Modality.VISIBLE), batch_size=4
    )[0]


@pytest.fixture
def queries(tmp_path: Path) -> ImageList:
    for number, colour in enumerate([(240, 10, 10), (20, 0, 220)]):
        paint(tmp_path / "night" / f"{number}.png", colour)
    return list_images(tmp_path / "night", Modality.INFRARED)


def test_the_vector_of_a_hit_is_that_of_its_index(gallery: Gallery, queries: ImageList, tmp_path: Path) -> None:
    result = search_gallery(MeanEncoder(), queries, gallery, 3, batch_size=4)
    columns = hit_columns(result, "mean")
    assert [len(values) for values in columns.values()] == [6] * len(columns) and list(columns)[-1] == "vector"
    row_of = {file.path: row for row, file in enumerate(gallery.files)}
    for path, vector in zip(columns["path"], columns["vector"], strict=True):
        np.testing.assert_array_equal(vector, gallery.vectors[row_of[path]])
    assert "vector" not in json.dumps(result.to_dict())
    without = hit_columns(result, "mean", vectors=False)
    assert without == {name: values for name, values in columns.items() if name != "vector"}
    TableFiles(*(tmp_path / name for name in ("hits.csv", "hits.parquet", "hits.sqlite"))).write(HITS, without)
    assert (tmp_path / "hits.csv").read_text().splitlines()[1].startswith("mean,0.png")


@pytest.mark.parametrize("by", ["mean", "medoid"])
def test_the_vector_of_a_group_is_the_one_that_was_compared(gallery: Gallery, queries: ImageList, by: GroupBy) -> None:
    result = search_gallery(
        MeanEncoder(), queries, gallery, 2, batch_size=4, grouping=Grouping(gallery="folder", by=by)
    )
    (red, blue) = result.queries[0].vectors
    assert [hit.group for hit in result.queries[0].hits] == ["a", "b"]
    members = np.asarray(gallery.vectors[:3])
    mean = unit_rows(members.sum(axis=0, keepdims=True), "groups")[0]
    expected = mean if by == "mean" else members[np.argmax(members @ mean)]
    np.testing.assert_allclose(red, expected, atol=1e-6)
    np.testing.assert_allclose(blue, gallery.vectors[3], atol=1e-6)


def test_a_query_without_a_match_has_no_vector(gallery: Gallery, queries: ImageList) -> None:
    result = search_gallery(MeanEncoder(), queries, gallery, 1, batch_size=4)
    found = find_similar(queries.listed()[:1], gallery.vectors[:1], gallery, 1, threshold=1.1)
    assert found[0].vectors == ()
    columns = hit_columns(type(result)((*found, *result.queries[:1]), (), None, None), "mean")
    none, vector = columns["vector"]
    assert (columns["rank"], none) == ([None, 1], None) and len(vector) == 12
