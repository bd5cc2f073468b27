"""Images of every kind: what comes out, what is refused, and how much of a huge one is decoded."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.image_files import (
    AS_STORED,
    FROM_ANYWHERE,
    Adjustment,
    Decoded,
    ImageReading,
    decode_image,
    open_image,
    reason_of,
)
from tests.pipeline.data.raw_images import png_chunks

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning:PIL")

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright image is stored under each orientation tag."""


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def decoded(path: Path, reading: ImageReading = FROM_ANYWHERE) -> Decoded:
    """From the file and from its bytes, which must agree."""
    found = decode_image(path, 16, 8, reading)  # first: it refuses what cannot be read
    of_bytes = decode_image(path.read_bytes(), 16, 8, reading)
    np.testing.assert_array_equal(found.pixels, of_bytes.pixels)
    assert found.adjustments == of_bytes.adjustments
    return found


def plainly(path: Path) -> np.ndarray:
    """The reading of published images, step by step."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((8, 16), Image.Resampling.LANCZOS))


def shot() -> np.ndarray:
    """A thermal shot: counts of a warm body on a cold ground, a narrow band of 16 bits."""
    rows, columns = np.mgrid[0:128, 0:64]
    body = np.exp(-((columns - 32) ** 2 / 300 + (rows - 66) ** 2 / 2500))
    return np.rint(29_100 + 1_200 * body + np.random.default_rng(4).normal(0, 20, body.shape)).astype(np.uint16)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of two images less their means, which bright images share."""
    one, other = (some.astype(float).ravel() - some.mean() for some in (one, other))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jfif", "a.jpe", "a.bmp", "a.webp", "a.tif", "a.gif", "a.jp2"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
@pytest.mark.parametrize("reading", [AS_STORED, FROM_ANYWHERE])
def test_images_of_eight_bits_keep_their_bytes(tmp_path: Path, name: str, mode: str, reading: ImageReading) -> None:
    image = Image.fromarray(noise(40, 20)).convert(mode)
    try:
        image.save(tmp_path / name)
    except OSError:
        pytest.skip(f"{name} cannot have mode {mode}")
    found = decoded(tmp_path / name, reading)
    np.testing.assert_array_equal(found.pixels, plainly(tmp_path / name))
    assert not found.adjustments


class TestDeepImages:
    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    @pytest.mark.parametrize("low", [0, 7_000])
    def test_sixteen_bits_are_scaled_from_darkest_to_brightest(self, tmp_path: Path, name: str, low: int) -> None:
        values = (low + np.linspace(0, 510, 16 * 8).round()).astype(np.uint16).reshape(16, 8)
        Image.fromarray(values).save(tmp_path / name)
        found = decoded(tmp_path / name)
        expected = np.rint((values.astype(float) - low) / 2).astype(np.uint8)
        np.testing.assert_array_equal(found.pixels, np.repeat(expected[:, :, None], 3, axis=2))
        assert found.adjustments == {Adjustment.SCALED}

    @pytest.mark.parametrize(
        ("kind", "name"),
        [("<u2", "a.png"), (">u2", "a.tif"), ("<i4", "a.tif"), ("<f4", "a.tif"), ("<u2", "a.pgm"), ("<u2", "a.jp2")],
    )
    def test_all_kinds_of_one_shot_are_one_image(self, tmp_path: Path, kind: str, name: str) -> None:
        Image.fromarray(shot()).save(tmp_path / "plain.png")
        Image.fromarray(shot().astype(kind)).save(tmp_path / name)
        np.testing.assert_array_equal(decoded(tmp_path / name).pixels, decoded(tmp_path / "plain.png").pixels)

    def test_twelve_bits_are_read(self, tmp_path: Path) -> None:
        # 4 x 2 pixels of 12 bits in a hand-made TIFF: two values in three bytes.
        values = [0, 100, 200, 300, 400, 500, 600, 700]
        packed = b"".join(struct.pack(">I", a << 12 | b)[1:] for a, b in zip(values[::2], values[1::2], strict=True))
        entries = [
            (256, 4),
            (257, 2),
            (258, 12),
            (259, 1),
            (262, 1),
            (273, 200),
            (277, 1),
            (278, 2),
            (279, len(packed)),
        ]
        header = b"II*\0" + struct.pack("<IH", 8, len(entries))
        header += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(4)
        (tmp_path / "a.tif").write_bytes(header.ljust(200, b"\0") + packed)
        found = decode_image(tmp_path / "a.tif", 2, 4, FROM_ANYWHERE)
        assert found.pixels[..., 0].ravel().tolist() == [round(value * 255 / 700) for value in values]

    @pytest.mark.parametrize(
        "kind", ["one dead pixel", "one hot pixel", "both", "border", "columns", "saturated corner"]
    )
    def test_few_or_undefined_pixels_do_not_take_the_range(self, tmp_path: Path, kind: str) -> None:
        clean, changed = shot(), shot()
        match kind:
            case "one dead pixel":
                changed[3, 3] = 0
            case "one hot pixel":
                changed[3, 3] = 65_535
            case "both":
                changed[3, 3], changed[100, 3] = 65_535, 0
            case "border":
                changed[:3], changed[-3:], changed[:, :2], changed[:, -2:] = 0, 0, 0, 0
            case "columns":
                changed[:, 2] = 0
            case _:
                changed[:12, :8] = 65_535
        Image.fromarray(clean).save(tmp_path / "clean.tif")
        Image.fromarray(changed).save(tmp_path / "changed.tif")
        pixels = [decode_image(tmp_path / name, 128, 64, FROM_ANYWHERE).pixels for name in ("clean.tif", "changed.tif")]
        same = clean == changed
        np.testing.assert_allclose(pixels[1][same].astype(int), pixels[0][same], atol=5)
        if "one" in kind:
            assert cosine(*pixels) > 0.98

    @pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, -273.15, -9_999.0])
    def test_undefined_temperatures_do_not_take_the_range(self, tmp_path: Path, fill: float) -> None:
        celsius = (shot() / 100 - 273.15).astype(np.float32)
        Image.fromarray(celsius).save(tmp_path / "clean.tif")
        filled = celsius.copy()
        filled[:9] = fill
        Image.fromarray(filled).save(tmp_path / "filled.tif")
        clean, found = (
            decode_image(tmp_path / f"{name}.tif", 128, 64, FROM_ANYWHERE).pixels for name in ("clean", "filled")
        )
        np.testing.assert_allclose(found[9:].astype(int), clean[9:], atol=3)
        assert (found[:9] == (255 if fill == np.inf else 0)).all()

    def test_a_fixed_range_is_the_same_for_all_images(self, tmp_path: Path) -> None:
        reading = ImageReading(deep_range=(1_000.0, 1_510.0))
        Image.fromarray(np.array([[0, 1_000], [1_255, 9_000]], np.uint16)).save(tmp_path / "a.png")
        found = decode_image(tmp_path / "a.png", 2, 2, reading)
        assert found.pixels[..., 0].tolist() == [[0, 0], [128, 255]]
        assert found.adjustments == {Adjustment.SCALED_BY_RANGE}
        Image.fromarray(np.full((2, 2), 20, np.uint16)).save(tmp_path / "b.png")
        assert Adjustment.OUT_OF_RANGE in decode_image(tmp_path / "b.png", 2, 2, reading).adjustments

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (np.full((4, 4), 9_000, np.uint16), [0]),
            (np.array([[-5.0, -4.0], [-3.0, -3.0]], np.float32), [0, 128, 255, 255]),
            (np.array([[0.0, 1.0], [2.0, np.nan]], np.float32), [0, 128, 255, 0]),
            (np.array([[0, 65_535], [0, 65_535]], np.uint16), [0, 255, 0, 255]),
            (np.array([[0, 1], [2, 3]], np.uint16), [0, 85, 170, 255]),
            (np.array([[-2_000_000_000, 0], [2_000_000_000, 0]], np.int32), [0, 128, 255, 128]),
        ],
        ids=["constant", "negative", "hole", "two values", "few values", "large"],
    )
    def test_extreme_values(self, tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
        Image.fromarray(values).save(tmp_path / "a.tif")
        found = decode_image(tmp_path / "a.tif", *values.shape, FROM_ANYWHERE).pixels[..., 0].ravel().tolist()
        assert found[: len(expected)] == expected

    def test_scale_and_unit_do_not_matter(self, tmp_path: Path) -> None:
        small, large = shot() / 65_535, shot().astype(float)
        for name, values in (("small", small), ("large", large)):
            Image.fromarray(values.astype(np.float32)).save(tmp_path / f"{name}.tif")
        pixels = [decoded(tmp_path / f"{name}.tif").pixels.astype(int) for name in ("small", "large")]
        np.testing.assert_allclose(*pixels, atol=1)

    def test_without_a_finite_value_it_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(ValueError, match="no pixel has a finite value"):
            decoded(tmp_path / "a.tif")


class TestOrientation:
    @pytest.mark.parametrize("tag", TURNS)
    @pytest.mark.parametrize("name", ["a.png", "a.tif", "grey.tif", "a.webp", "deep.png", "deep.tif"])
    def test_a_turned_photograph_is_the_upright_one(self, tmp_path: Path, name: str, tag: int) -> None:
        upright = Image.fromarray(shot()[:40, :20].copy() if "deep" in name else noise(40, 20))
        upright = upright.convert("L") if "grey" in name else upright
        stored = upright.transpose(TURNS[tag])
        exif = Image.Exif()
        exif[0x0112] = tag
        kept = {"lossless": True} if name.endswith("webp") else {}
        stored.save(tmp_path / name, exif=exif, **kept)
        for other, image in (("upright", upright), ("stored", stored)):
            image.save(tmp_path / f"{other}.png")
        found = decoded(tmp_path / name)
        np.testing.assert_array_equal(found.pixels, decoded(tmp_path / "upright.png").pixels)
        assert Adjustment.TURNED in found.adjustments
        ignored = decoded(tmp_path / name, AS_STORED)
        np.testing.assert_array_equal(ignored.pixels, decoded(tmp_path / "stored.png").pixels)
        assert Adjustment.NOT_TURNED in ignored.adjustments

    @pytest.mark.parametrize("tag", [0, 1, 9, 65_000])
    def test_a_tag_without_a_meaning_turns_nothing(self, tmp_path: Path, tag: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = tag
        Image.fromarray(noise(40, 20)).save(tmp_path / "a.jpg", exif=exif)
        found = decoded(tmp_path / "a.jpg")
        np.testing.assert_array_equal(found.pixels, plainly(tmp_path / "a.jpg"))
        assert not found.adjustments

    @pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"])
    def test_a_damaged_block_of_tags_damages_no_image(self, tmp_path: Path, exif: bytes) -> None:
        Image.fromarray(noise(40, 20)).save(tmp_path / "a.jpg", exif=exif)
        np.testing.assert_array_equal(decoded(tmp_path / "a.jpg").pixels, plainly(tmp_path / "a.jpg"))


class TestTransparency:
    @pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "key", "gif"])
    def test_cut_outs_do_not_depend_on_hidden_pixels(self, tmp_path: Path, kind: str) -> None:
        seen = np.zeros((40, 20), bool)
        seen[10:30, 5:15] = True
        colours = np.where(seen[..., None], noise(40, 20) // 2, 255).astype(np.uint8)
        Image.fromarray(colours).convert("L" if kind == "LA" else "RGB").save(tmp_path / "white.png")
        name = tmp_path / ("a.gif" if kind == "gif" else "a.png")
        if kind in ("RGBA", "LA"):
            below = np.where(seen[..., None], colours, noise(40, 20, seed=1))
            image = Image.fromarray(below).convert(kind)
            image.putalpha(Image.fromarray((255 * seen).astype(np.uint8)))
            image.save(name)
        elif kind == "key":
            below = np.where(seen[..., None], colours, [1, 254, 3]).astype(np.uint8)
            Image.fromarray(below).save(name, transparency=(1, 254, 3))
        else:
            colours = np.where(seen[..., None], [40, 90, 10], 255).astype(np.uint8)
            Image.fromarray(colours).save(tmp_path / "white.png")
            image = Image.fromarray(seen.astype(np.uint8), "P")
            image.putpalette([7, 200, 80, 40, 90, 10])
            image.save(name, transparency=0)
        found = decoded(name)
        np.testing.assert_array_equal(found.pixels, decoded(tmp_path / "white.png").pixels)
        assert found.adjustments == {Adjustment.COMPOSITED}

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
    def test_opaque_images_keep_their_bytes(self, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(noise(40, 20)).convert("L").convert(mode) if mode != "RGBA" else None
        image = image or Image.fromarray(noise(40, 20)).convert("RGBA")
        image.save(tmp_path / "a.tif")
        found = decoded(tmp_path / "a.tif")
        np.testing.assert_array_equal(found.pixels, plainly(tmp_path / "a.tif"))
        assert not found.adjustments

    def test_half_transparent_pixels_are_mixed_with_white(self, tmp_path: Path) -> None:
        Image.new("RGBA", (8, 16), (0, 0, 0, 128)).save(tmp_path / "a.png")
        assert set(np.unique(decoded(tmp_path / "a.png").pixels)) == {127}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (8, 16), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.img", kind, save_all=True, append_images=frames[1:])
    found = decoded(tmp_path / "a.img")
    assert found.adjustments == {Adjustment.FIRST_FRAME}
    red, green, _ = found.pixels.astype(int).mean(axis=(0, 1))
    assert red > 240 and green < 20


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.jpg"), ("CMYK", "a.tif"), ("LAB", "a.tif")])
def test_other_colours_are_converted(tmp_path: Path, mode: str, name: str) -> None:
    Image.new(mode, (4, 8), (0, 255, 255, 0)[: len(mode)]).save(tmp_path / name)
    assert decoded(tmp_path / name).adjustments == {Adjustment.OTHER_COLOURS}
    if mode == "CMYK":
        red, green, blue = decoded(tmp_path / name).pixels.mean(axis=(0, 1))
        assert red > 200 and green < 60 and blue < 60


class TestSize:
    @pytest.mark.parametrize("turned", [False, True])
    def test_a_huge_jpeg_is_decoded_at_a_part_of_its_size(self, tmp_path: Path, turned: bool) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6 if turned else 1
        Image.new("RGB", (10_000, 5_000), (200, 100, 50)).save(tmp_path / "a.jpg", quality=10, exif=exif)
        opened = open_image(tmp_path / "a.jpg", FROM_ANYWHERE, (64, 2_400))
        assert opened.image.size == ((1_250, 2_500) if turned else (5_000, 2_500))
        pixels = decoded(tmp_path / "a.jpg").pixels.astype(int)
        assert np.abs(pixels - [200, 100, 50]).max() <= 6

    def test_a_huge_image_that_must_be_decoded_in_full_is_refused(self, tmp_path: Path) -> None:
        Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match="10000 x 10000 pixels, more than 50,000,000"):
            decoded(tmp_path / "a.png")

    def test_an_absurd_size_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png_chunks(struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0), b""))
        with pytest.raises(ValueError, match="more than 178,956,970 pixels"):
            decoded(tmp_path / "a.png")


class TestNoImages:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "an empty file"),
            (b"no image at all", "no image, but a text"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            (b"\0\0\0\x18ftypheic", "plugin"),
            (b"\0\1\2\3", "no image"),
        ],
    )
    def test_the_reason_names_what_it_is(self, tmp_path: Path, content: bytes, reason: str) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(OSError, match=reason) as caught:
            decoded(tmp_path / "a.jpg")
        assert str(tmp_path) not in reason_of(caught.value)

    @pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0 cut", b"II*\0\x08\0\0\0"])
    def test_a_beginning_alone_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises((OSError, ValueError)):
            decoded(tmp_path / "a.jpg")

    def test_a_drawing_starts_no_other_program(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
        with pytest.raises(ValueError, match="a drawing of the kind EPS"):
            decoded(tmp_path / "a.jpg")

    def test_a_pipe_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.jpg")
        with pytest.raises(OSError, match="not a regular file"):
            decoded(tmp_path / "a.jpg")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "AVIF"])
    def test_damage_anywhere_is_an_error_or_an_image(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "a.img"
        Image.fromarray(noise(64, 64)).save(path, format=kind)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises((OSError, ValueError)):
            decoded(path)
        generator = np.random.default_rng(0)
        for _ in range(12):
            damaged = bytearray(whole)
            for place in generator.integers(0, min(len(whole), 400), 4):
                damaged[place] = generator.integers(0, 256)
            path.write_bytes(damaged)
            try:
                found = decoded(path)
            except (OSError, ValueError):
                continue
            assert found.pixels.shape == (16, 8, 3)
