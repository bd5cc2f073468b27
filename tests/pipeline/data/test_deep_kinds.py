"""Images of more than 8 bits a channel in every kind of file: one shot is one image, or refused by its name."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.modality import Modality
from pipeline.data.decoding import inspect_images
from pipeline.data.deep_images import to_eight_bits
from pipeline.data.image_faults import fault_hint, fault_lines
from pipeline.data.image_files import (
    AS_STORED,
    FROM_ANYWHERE,
    Adjustment,
    Decoded,
    ImageReading,
    count_pixels,
    decode_image,
)
from pipeline.data.images import ImageTable
from tests.pipeline.data.raw_images import ALPHA, png_chunks, png_of, tiff_of
from tests.pipeline.data.test_any_image import TURNS, cosine

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

HEIGHT, WIDTH = 64, 32


def shot(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Counts of a warm body, as of a thermal camera: 29,000 + 4 x a grey level, and sensor noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    body = np.exp(-((2 * columns / width - 1) ** 2 * 3.4 + (2 * rows / height - 1) ** 2 * 1.6))
    noise = np.random.default_rng(4).normal(0, 4, body.shape)
    return (29_000 + 4 * np.rint(30 + 180 * body + noise)).astype(np.uint16)


def channels(values: np.ndarray, number: int, alpha: np.ndarray | None = None) -> np.ndarray:
    repeated = np.repeat(values[..., None], number, axis=2)
    return repeated if alpha is None else np.dstack([repeated, alpha.astype(np.uint16)])


def opaque() -> np.ndarray:
    return np.full((HEIGHT, WIDTH), 65_535)


def decoded(path: Path, content: bytes, reading: ImageReading = FROM_ANYWHERE) -> Decoded:
    """From the file and from its bytes, which must agree."""
    path.write_bytes(content)
    found, of_bytes = (decode_image(source, HEIGHT, WIDTH, reading) for source in (path, content))
    np.testing.assert_array_equal(found.pixels, of_bytes.pixels)
    assert found.adjustments == of_bytes.adjustments
    return found


def plain(tmp_path: Path, reading: ImageReading = FROM_ANYWHERE) -> np.ndarray:
    """The shot as a TIFF of one channel of 16 bits."""
    Image.fromarray(shot()).save(tmp_path / "plain.tif")
    return decode_image(tmp_path / "plain.tif", HEIGHT, WIDTH, reading).pixels


GREYS = {
    "LA PNG": lambda: png_of(channels(shot(), 1, opaque())),
    "RGB PNG": lambda: png_of(channels(shot(), 3)),
    "RGBA PNG": lambda: png_of(channels(shot(), 3, opaque())),
    "RGB TIFF": lambda: tiff_of(channels(shot(), 3)),
    "RGB TIFF, big-endian": lambda: tiff_of(channels(shot(), 3), ">"),
    "RGB TIFF, deflate": lambda: tiff_of(channels(shot(), 3), deflate=True),
    "RGB TIFF, deflate, big-endian": lambda: tiff_of(channels(shot(), 3), ">", deflate=True),
    "RGB TIFF in planes": lambda: tiff_of(channels(shot(), 3), planes=True),
    "RGB BigTIFF": lambda: tiff_of(channels(shot(), 3), big=True),
    "RGBA TIFF": lambda: tiff_of(channels(shot(), 3, opaque()), extra=ALPHA),
    "LA TIFF": lambda: tiff_of(channels(shot(), 1, opaque()), extra=ALPHA),
    "64-bit floating point": lambda: tiff_of(channels(shot().astype(float), 1)),
    "64-bit floating point, deflate, big-endian": lambda: tiff_of(channels(shot() / 7, 1), ">", deflate=True),
    "64-bit floating point, BigTIFF": lambda: tiff_of(channels(shot() / 7, 1), big=True),
    "64-bit integers": lambda: tiff_of(channels(shot().astype(np.int64) - 30_000, 1)),
    "RGB 32-bit floating point": lambda: tiff_of(channels(shot().astype(np.float32), 3)),
    "16-bit floating point": lambda: tiff_of(channels((shot() - 29_000.0).astype(np.float16), 1)),
}


@pytest.mark.parametrize("kind", GREYS)
def test_grey_of_every_kind_is_the_grey_of_one_channel(tmp_path: Path, kind: str) -> None:
    found = decoded(tmp_path / "a.img", GREYS[kind]())
    assert cosine(found.pixels, plain(tmp_path)) >= 0.98
    np.testing.assert_allclose(found.pixels.astype(int), plain(tmp_path), atol=1)
    assert found.adjustments == {Adjustment.SCALED}


@pytest.mark.parametrize("kind", ["LA PNG", "RGB PNG", "RGB TIFF", "LA TIFF", "64-bit floating point"])
def test_a_fixed_range_applies_to_every_kind(tmp_path: Path, kind: str) -> None:
    reading = ImageReading(deep_range=(29_100.0, 29_700.0))
    found = decoded(tmp_path / "a.img", GREYS[kind](), reading)
    np.testing.assert_array_equal(found.pixels, plain(tmp_path, reading))
    assert found.adjustments == {Adjustment.SCALED_BY_RANGE}


@pytest.mark.parametrize("kind", [png_of, tiff_of])
def test_colours_have_one_range(tmp_path: Path, kind) -> None:
    # Channels from 1,000 to 1,510 in steps of 2: 255 levels above the lowest value of all channels.
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    values[0, 0] = 0, 100, 255
    found = decoded(tmp_path / "a.img", kind((1_000 + 2 * values).astype(np.uint16)))
    np.testing.assert_array_equal(found.pixels, values)


def test_the_lower_byte_of_an_interlaced_png_is_read(tmp_path: Path) -> None:
    # Adam7 of 2 x 2 pixels: pass 1 has pixel (0, 0), pass 6 has (0, 1), pass 7 the second row.
    passes = [500] * 3, [585] * 3, [670] * 3 + [755] * 3
    rows = b"".join(b"\0" + struct.pack(f">{len(some)}H", *some) for some in passes)
    (tmp_path / "a.png").write_bytes(png_chunks(struct.pack(">2I5B", 2, 2, 16, 2, 0, 0, 1), rows))
    found = decode_image(tmp_path / "a.png", 2, 2, FROM_ANYWHERE)
    assert found.pixels[..., 0].tolist() == [[0, 85], [170, 255]]


class TestTransparency:
    @pytest.mark.parametrize("kind", ["LA PNG", "RGBA PNG", "RGBA TIFF", "LA TIFF"])
    @pytest.mark.parametrize("below", [0, 65_535])
    def test_transparent_pixels_are_white_and_have_no_influence(self, tmp_path: Path, kind: str, below: int) -> None:
        alpha, values = opaque(), shot()
        alpha[:20], values[:20] = 0, below
        pixels = channels(values, 1 if kind.startswith("LA") else 3, alpha)
        found = decoded(tmp_path / "a.img", png_of(pixels) if "PNG" in kind else tiff_of(pixels, extra=ALPHA))
        assert (found.pixels[:20] == 255).all()
        Image.fromarray(shot()[20:]).save(tmp_path / "seen.png")
        seen = decode_image(tmp_path / "seen.png", HEIGHT - 20, WIDTH, FROM_ANYWHERE).pixels
        np.testing.assert_array_equal(found.pixels[20:], seen)
        assert found.adjustments == {Adjustment.SCALED, Adjustment.COMPOSITED}

    def test_half_transparent_pixels_are_mixed_with_white(self, tmp_path: Path) -> None:
        black = channels(np.full((HEIGHT, WIDTH), 9_000, np.uint16), 1, opaque() // 2 + 1)  # alpha 128 of 255
        assert set(np.unique(decoded(tmp_path / "a.png", png_of(black)).pixels)) == {127}

    @pytest.mark.parametrize("number", [1, 3])
    def test_a_transparent_value_is_compared_in_16_bits(self, tmp_path: Path, number: int) -> None:
        values = shot()
        values[:20], values[20, 0] = 29_002, 29_003  # values of the shot are multiples of 4
        key = (b"tRNS", struct.pack(f">{number}H", *[29_002] * number))
        found = decoded(tmp_path / "a.png", png_of(channels(values, number), key))
        assert (found.pixels[:20] == 255).all() and (found.pixels[20, 0] < 60).all()
        assert Adjustment.COMPOSITED in found.adjustments

    def test_an_image_without_an_opaque_pixel_is_white(self, tmp_path: Path) -> None:
        content = png_of(channels(shot(), 1, np.zeros((HEIGHT, WIDTH))))
        assert (decoded(tmp_path / "a.png", content).pixels == 255).all()


@pytest.mark.parametrize("tag", TURNS)
@pytest.mark.parametrize("number", [1, 3])
def test_turned_tiffs_are_upright(tmp_path: Path, number: int, tag: int) -> None:
    turned = np.asarray(Image.fromarray(shot()).transpose(TURNS[tag]))
    values = channels(turned.astype(float) if number == 1 else turned, number)
    found = decoded(tmp_path / "a.tif", tiff_of(values, tags={274: tag}))
    np.testing.assert_allclose(found.pixels.astype(int), plain(tmp_path), atol=1)
    assert Adjustment.TURNED in found.adjustments
    assert Adjustment.NOT_TURNED in decoded(tmp_path / "a.tif", tiff_of(values, tags={274: tag}), AS_STORED).adjustments


class TestLostBits:
    @pytest.mark.parametrize("kind", ["a.ppm", "a.tif"])
    def test_images_reduced_to_few_levels_are_counted(self, tmp_path: Path, kind: str) -> None:
        values = channels(shot(), 3)
        content = b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + values.astype(">u2").tobytes()
        if kind == "a.tif":  # colours that are multiplied by their opacity
            content = tiff_of(channels(shot(), 3, opaque()), extra=1)
        found = decoded(tmp_path / kind, content)
        assert found.adjustments == {Adjustment.UPPER_BITS, Adjustment.FEW_LEVELS}

    def test_an_image_that_uses_all_bits_keeps_its_levels(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 65_536, (HEIGHT, WIDTH, 3)).astype(">u2")
        found = decoded(tmp_path / "a.ppm", b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + values.tobytes())
        assert found.adjustments == {Adjustment.UPPER_BITS}
        np.testing.assert_allclose(found.pixels.astype(int), values.astype(int) >> 8, atol=1)

    def test_a_jpeg_2000_of_16_bits_is_counted(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "a.jp2")
        content = bytearray((tmp_path / "a.jp2").read_bytes())
        assert not decoded(tmp_path / "a.jp2", bytes(content)).adjustments
        start = content.index(b"\xff\x4f\xff\x51") + 40  # behind the sizes, three bytes a channel: depth - 1 and steps
        assert content[start : start + 2] == b"\0\3"
        content[start + 2 : start + 11 : 3] = bytes([15]) * 3
        assert Adjustment.UPPER_BITS in decoded(tmp_path / "a.jp2", bytes(content)).adjustments


class TestUnsupportedTiffs:
    @pytest.mark.parametrize(
        ("content", "name"),
        [
            (tiff_of(channels(shot(), 2)), "2 channels of 16-bit unsigned integers"),
            (tiff_of(channels(shot(), 2), extra=0), "2 channels of 16-bit unsigned integers"),
            (tiff_of(channels(shot() / 7, 3), planes=True), "3 channels of 64-bit floating point in separate planes"),
            (tiff_of(channels(shot() / 7, 1), deflate=True, tags={317: 3}), "64-bit floating point, compressed"),
            (tiff_of(channels(shot() + 0j, 1).view(float), tags={339: 6}), "numbers of another kind"),
            (b"MM\0+\0\x08\0\0" + bytes(30), "big-endian BigTIFF"),
        ],
        ids=["two channels", "two with an unknown second", "planes", "predictor", "complex", "big-endian BigTIFF"],
    )
    def test_they_are_refused_by_their_kind(self, tmp_path: Path, content: bytes, name: str) -> None:
        with pytest.raises(ValueError, match=rf"unsupported kind of TIFF \(.*{name}\): save it .* 32-bit floats"):
            decoded(tmp_path / "a.tif", content)

    def test_they_are_counted_and_their_hint_fits(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_bytes(tiff_of(channels(shot(), 2)))
        (tmp_path / "b.tif").write_bytes(b"II*\0" + bytes(range(9)))
        table = ImageTable(tmp_path, ("a.tif", "b.tif"), np.ones(2, dtype=np.int64), Modality.INFRARED)
        found = inspect_images([table], FROM_ANYWHERE).unreadable
        kinds = [line.split(":")[0] for line in fault_lines(found)]
        assert kinds[0] == "1 of an unsupported kind of TIFF" and len(kinds) == 2
        advice = "save the TIFFs as 16-bit integers or 32-bit floats"
        assert fault_hint(found) == f"{advice}, copy the others again from their source"
        assert fault_hint(found[:1]) == advice

    def test_cut_and_large_ones_are_no_unsupported_ones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = tiff_of(channels(shot() / 7, 1), tags={273: 10**6})
        with pytest.raises(OSError, match=r"damaged|truncated"):
            decoded(tmp_path / "a.tif", whole)
        monkeypatch.setattr("pipeline.data.image_files.MOST_PIXELS", HEIGHT * WIDTH - 1)
        with pytest.raises(ValueError, match=rf"{WIDTH} x {HEIGHT} pixels, more than"):
            decoded(tmp_path / "a.tif", tiff_of(channels(shot() / 7, 1)))


@pytest.mark.parametrize(
    ("height", "width", "bad"), [(24, 12, 2), (24, 12, 5), (32, 16, 3), (64, 32, 12), (128, 64, 41)]
)
@pytest.mark.parametrize("where", ["hot", "dead", "both"])
def test_the_promised_bad_pixels_do_not_take_the_range(height: int, width: int, bad: int, where: str) -> None:
    # 0.5 % of the sensor's pixels, and by chance more in a crop: 288 pixels have 1.4 on average, deviation 1.2.
    clean, random = shot(height, width), np.random.default_rng(bad)
    changed = clean.copy()
    hot, dead = random.choice(np.arange(40_000, 65_536), bad, False), random.choice(20_000, bad, False)
    places = random.choice(clean.size, 2 * bad, replace=False)
    if where != "dead":
        changed.flat[places[:bad]] = hot
    if where != "hot":
        changed.flat[places[bad:]] = dead
    shades = [to_eight_bits(values[..., None], None)[0].astype(int) for values in (clean, changed)]
    same = clean == changed
    np.testing.assert_allclose(shades[1][same], shades[0][same], atol=4)
    assert cosine(shades[0][same], shades[1][same]) >= 0.98


@pytest.mark.parametrize("kind", ["u2", "f8"])
def test_pixels_are_counted_without_decoding(kind: str) -> None:
    file = tiff_of(channels(shot(), 1).astype(kind))
    assert count_pixels(file) == HEIGHT * WIDTH
    with pytest.raises(OSError, match=r"no image|text"):
        count_pixels(b"not an image")
