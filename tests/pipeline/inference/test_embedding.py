"""Images into vectors: order, what cannot be read, and going on after an interruption."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.modality import Modality
from pipeline.data.image_files import AS_STORED
from pipeline.data.image_list import ImageList, list_images
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.feature_files import read_features, read_vectors
from pipeline.inference import embedding
from pipeline.inference.embedded_files import embed_to_file
from pipeline.inference.embedding import embed_images, forget_parts, require_some
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images, each with a grey of its own."""
    for number in range(7):
        paint(tmp_path / "images" / f"{number}.png", (10 * number, 0, 0))
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 2)


def images_of(folder: Path) -> ImageList:
    return list_images(folder, Modality.INFRARED)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_every_image_once_and_in_order(folder: Path, batch_size: int) -> None:
    encoder = MeanEncoder()
    found = embed_images(encoder, images_of(folder), batch_size=batch_size)
    np.testing.assert_array_equal(found.rows, np.arange(7))
    np.testing.assert_array_equal(found.vectors[:, 0], 10.0 * np.arange(7))
    assert encoder.encoded == 7 and not found.unreadable


def test_conversions_are_counted_and_another_reading_gives_other_vectors(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.new("RGB", (16, 8))
    half.paste((250, 0, 0), (0, 0, 8, 8))
    half.save(folder / "0.png", exif=exif)
    with caplog.at_level("INFO"):
        turned = embed_images(MeanEncoder(), images_of(folder), batch_size=4)
    assert "1 of 7 images have an orientation tag: applied" in caplog.text
    np.testing.assert_allclose(turned.vectors[0][::3], [250, 250, 0, 0], atol=5)
    encoder = MeanEncoder()
    encoder.reading = AS_STORED
    with caplog.at_level("INFO"):
        stored = embed_images(encoder, images_of(folder), batch_size=4)
    assert "1 of 7 images have an orientation tag that is not applied" in caplog.text
    np.testing.assert_allclose(stored.vectors[0][::3], [250, 0, 250, 0], atol=50)


def test_what_cannot_be_read_is_passed_over_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "2.png").write_bytes(b"")
    (folder / "3.png").write_bytes(b"no image")
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:40])
    images = images_of(folder)
    (folder / "6.png").unlink()
    with caplog.at_level("WARNING"):
        found = embed_images(MeanEncoder(), images, batch_size=4)
    assert found.rows.tolist() == [0, 1, 4] and found.vectors[:, 0].tolist() == [0.0, 10.0, 40.0]
    assert [one.path for one in found.unreadable] == ["2.png", "3.png", "5.png", "6.png"]
    assert (
        "4 of 7 images cannot be read: 1 empty: 2.png (an empty file); 2 not an image: 3.png (no image, but a text), "
        "5.png; 1 impossible to open: 6.png (No such file or directory)"
    ) in caplog.text


def test_large_images_cause_no_warning_and_filters_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    paint(tmp_path / "large.png", (10, 0, 0), (12, 12))  # above the limit, below twice the limit
    before = list(warnings.filters)
    assert len(embed_images(MeanEncoder(), images_of(tmp_path), batch_size=4).rows) == 1
    assert not recwarn.list and warnings.filters == before


def test_where_nothing_can_be_read_there_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    found = embed_images(MeanEncoder(), images_of(tmp_path), batch_size=4)
    with pytest.raises(DataError, match=r"none of 1 images can be read: 1 .*: a\.jpg \("):
        require_some(found)


def test_unusual_images_are_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        Image.fromarray(np.full((4, 4), number, np.uint16)).save(folder / f"deep{number}.png")
    with caplog.at_level("INFO"):
        embed_images(MeanEncoder(), images_of(folder), batch_size=4)
    assert caplog.text.count("more than 8 bits") == 1 and "3 of 10 images" in caplog.text


@pytest.mark.parametrize("lasts", [0, 1, 2, 4, 5])
def test_an_interrupted_call_goes_on(folder: Path, tmp_path: Path, lasts: int) -> None:
    parts, images = tmp_path / "parts", images_of(folder)
    (folder / "3.png").write_bytes(b"no image")
    with pytest.raises(KeyboardInterrupt):
        embed_images(MeanEncoder(lasts=lasts), images, batch_size=1, parts=parts)
    again = MeanEncoder()
    found = embed_images(again, images, batch_size=1, parts=parts)
    whole = embed_images(MeanEncoder(), images, batch_size=1)
    np.testing.assert_array_equal(found.vectors, whole.vectors)
    np.testing.assert_array_equal(found.rows, whole.rows)
    assert found.unreadable == whole.unreadable
    finished = {0: 0, 1: 0, 2: 2, 4: 3, 5: 5}[lasts]
    assert again.encoded == 6 - finished
    forget_parts(parts)
    assert not parts.exists()


def test_parts_of_an_image_that_was_changed_meanwhile_are_not_taken(folder: Path, tmp_path: Path) -> None:
    parts, images = tmp_path / "parts", images_of(folder)
    with pytest.raises(KeyboardInterrupt):
        embed_images(MeanEncoder(lasts=4), images, batch_size=1, parts=parts)
    paint(folder / "0.png", (222, 0, 0))
    assert embed_images(MeanEncoder(), images, batch_size=1, parts=parts).vectors[0, 0] == 222.0


def test_parts_of_other_images_or_of_another_encoder_are_not_taken(folder: Path, tmp_path: Path) -> None:
    parts, images = tmp_path / "parts", images_of(folder)
    embed_images(MeanEncoder(), images, batch_size=4, parts=parts)
    other = MeanEncoder(digest="other")
    embed_images(other, images, batch_size=4, parts=parts)
    assert other.encoded == 7
    fewer = MeanEncoder(digest="other")
    embed_images(fewer, images.only(np.arange(6)), batch_size=4, parts=parts)
    assert fewer.encoded == 6


def test_a_manifest_becomes_a_file_that_other_commands_read(folder: Path) -> None:
    rows = [
        f"{number}.png,{'infrared' if number % 2 else 'visible'},c{number % 3},p{number % 4},test"
        for number in range(7)
    ]
    (folder / "m.csv").write_text("\n".join(["path,modality,camera,person,split", *rows]) + "\n")
    written = embed_to_file(MeanEncoder(), list_images(folder / "m.csv", None), folder / "f.npz", batch_size=4)
    assert (written.images, written.dim, written.unreadable, written.people_known) == (7, 12, 0, True)
    found = read_features(folder / "f.npz")
    # Visible ones first; the stand-in encoder makes them brighter by one.
    assert found.paths == tuple(f"{number}.png" for number in (0, 2, 4, 6, 1, 3, 5))
    assert found.vectors[:, 0].tolist() == [1, 21, 41, 61, 10, 30, 50]
    assert found.people.tolist() == [1, 3, 1, 3, 2, 4, 2]
    assert found.cameras is not None and found.cameras.tolist() == [1, 3, 2, 1, 2, 1, 3]
    assert not list(folder.glob("*.parts"))


def test_vectors_of_unknown_people_can_still_be_clustered(folder: Path) -> None:
    embed_to_file(MeanEncoder(), images_of(folder), folder / "f.npz", batch_size=4)
    assert read_vectors(folder / "f.npz").shape == (7, 12)
    with pytest.raises(DataError, match="no array person_ids"):
        read_features(folder / "f.npz")


def test_the_file_must_be_an_archive(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.npz archive or a \.parquet table"):
        embed_to_file(MeanEncoder(), images_of(folder), folder / "f.npy", batch_size=4)
