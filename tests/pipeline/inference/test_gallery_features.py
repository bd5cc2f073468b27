"""A gallery that is a feature file: searched as its images are, without opening them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import ImageList, list_images
from pipeline.errors import ConfigError, DataError
from pipeline.inference.embedded_files import embed_to_file
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import Kind, Refreshed, refresh_gallery
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    """Eight images of both modalities."""
    rows = ["path,modality,camera,person,split"]
    for number in range(8):
        paint(tmp_path / "site" / f"{number}.png", (20 * number, 9 * number % 7, 50))
        rows.append(f"{number}.png,{'infrared' if number % 2 else 'visible'},c,p{number},test")
    (tmp_path / "site" / "m.csv").write_text("\n".join(rows) + "\n")
    return list_images(tmp_path / "site" / "m.csv", None)


@pytest.fixture(params=["f.npz", "f.parquet"])
def features(images: ImageList, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    embed_to_file(MeanEncoder(), images, tmp_path / request.param, batch_size=4)
    return tmp_path / request.param


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_the_index_is_that_of_the_images(images: ImageList, features: Path, tmp_path: Path, kind: Kind) -> None:
    source = GallerySource(tmp_path / "site" / "m.csv", Modality.VISIBLE)
    expected, _ = refresh_gallery(tmp_path / "a", MeanEncoder(), source, batch_size=4, kind=kind)
    shutil.rmtree(tmp_path / "site")
    encoder = MeanEncoder()
    source = GallerySource(features, Modality.VISIBLE)
    found, refreshed = refresh_gallery(tmp_path / "b", encoder, source, batch_size=4, kind=kind)
    assert refreshed == Refreshed(kept=0, embedded=4, gone=0, unreadable=0) and encoder.encoded == 0
    assert [file.path for file in found.files] == [file.path for file in expected.files]
    assert found.root == expected.root and (found.lists is None) == (kind == "exact")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    again = refresh_gallery(tmp_path / "b", encoder, source, batch_size=4, kind=kind)[1]
    assert again == Refreshed(kept=4, embedded=0, gone=0, unreadable=0)
    os.utime(features, ns=(1, 1))
    changed = refresh_gallery(tmp_path / "b", encoder, source, batch_size=4, kind=kind)[1]
    assert (changed.kept, changed.embedded) == (0, 4)


def test_features_of_another_encoder_or_without_the_modality_are_refused(
    images: ImageList, features: Path, tmp_path: Path
) -> None:
    def refused(source: GallerySource, error: type[Exception], message: str, digest: str = "mean") -> None:
        with pytest.raises(error, match=message):
            refresh_gallery(tmp_path / "index", MeanEncoder(digest), source, batch_size=4)
        assert not (tmp_path / "index").exists()

    refused(GallerySource(features, Modality.VISIBLE), DataError, r"made by another encoder \(mean\) than", "other")
    refused(GallerySource(features, Modality.VISIBLE, ("test",)), ConfigError, "neither splits nor a root")
    np.savez(tmp_path / "theirs.npz", features=np.eye(2), paths=["a", "b"], modalities=["visible"] * 2)
    refused(GallerySource(tmp_path / "theirs.npz", Modality.VISIBLE), DataError, r"another encoder \(None\)")
    embed_to_file(MeanEncoder(), images.only(images.of(Modality.INFRARED)), features, batch_size=4)
    refused(GallerySource(features, Modality.VISIBLE), DataError, "has no visible images")
