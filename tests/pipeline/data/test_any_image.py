"""Images of every kind: what comes out, what is refused, and how much of a huge one is decoded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decoding import Adjustment, decode_any_image, decode_image, open_any_image

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_common_images_are_those_of_a_data_set(tmp_path: Path, name: str, mode: str) -> None:
    Image.fromarray(noise(40, 20)).convert(mode).save(tmp_path / name)
    found = decode_any_image(tmp_path / name, 16, 8)
    np.testing.assert_array_equal(found.pixels, decode_image(tmp_path / name, 16, 8))
    assert not found.adjustments


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("low", [0, 7_000])
def test_sixteen_bits_are_scaled_from_darkest_to_brightest(tmp_path: Path, name: str, low: int) -> None:
    # A thermal camera's counts: a narrow band, which a fixed scale would show as black.
    values = (low + np.linspace(0, 510, 16 * 8).round()).astype(np.uint16).reshape(16, 8)
    Image.fromarray(values).save(tmp_path / name)
    found = decode_any_image(tmp_path / name, 16, 8)
    expected = np.rint((values.astype(float) - low) / 2).astype(np.uint8)
    np.testing.assert_array_equal(found.pixels, np.repeat(expected[:, :, None], 3, axis=2))
    assert found.adjustments == {Adjustment.SCALED}


def test_a_constant_image_of_sixteen_bits_is_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 9_000, np.uint16)).save(tmp_path / "a.png")
    assert decode_any_image(tmp_path / "a.png", 4, 4).pixels.max() == 0


def test_floating_point_images_are_scaled_and_holes_are_dark(tmp_path: Path) -> None:
    values = np.array([[0.0, 1.0], [2.0, np.nan]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(decode_any_image(tmp_path / "a.tif", 2, 2).pixels[..., 0], [[0, 128], [255, 0]])


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    found = decode_any_image(tmp_path / "a.gif", 8, 4)
    assert found.adjustments == {Adjustment.FIRST_FRAME}
    assert found.pixels[0, 0].tolist() == [255, 0, 0]


def test_colours_of_print_are_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    found = decode_any_image(tmp_path / "a.jpg", 8, 4)
    assert found.adjustments == {Adjustment.OTHER_COLOURS}
    red, green, blue = found.pixels.mean(axis=(0, 1))
    assert red > 200 and green < 60 and blue < 60


def test_a_huge_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path) -> None:
    Image.new("RGB", (10_000, 10_000), (200, 100, 50)).save(tmp_path / "a.jpg", quality=10)
    opened = open_any_image(tmp_path / "a.jpg", (64, 64))
    assert opened.image.size == (1_250, 1_250)
    found = decode_any_image(tmp_path / "a.jpg", 16, 8).pixels.astype(int)
    assert np.abs(found - [200, 100, 50]).max() <= 6


def test_a_huge_image_that_must_be_decoded_in_full_is_refused(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="10000 x 10000 pixels, more than 50,000,000"):
        decode_any_image(tmp_path / "a.png", 16, 8)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0 cut"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        decode_any_image(tmp_path / "a.jpg", 16, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_an_image_that_was_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.img"
    Image.fromarray(noise(64, 64)).save(path, format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode_any_image(path, 16, 8)
