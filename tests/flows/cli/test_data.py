"""`vireid data`: what is missing from a data set is found before a run, and images are decoded once."""

import codecs
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli import options as cli_options
from pipeline.data.synthetic.writer import LAYOUTS, generate_dataset
from tests.flows.command_line import Call
from tests.reference.feature_sets import identity_features


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A drawn data set in every layout."""
    place = tmp_path_factory.mktemp("drawn")
    for layout in LAYOUTS:
        generate_dataset(place / layout, size="smoke", layout=layout, difficulty="easy", height=32, width=16, workers=1)
    return {layout: place / layout for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_complete_data_set_passes(vireid: Call, drawn: dict[str, Path], layout: str) -> None:
    code, out, err = vireid("data", "check", layout, str(drawn[layout]), "--json")
    assert code == 0, (out, err)
    check = json.loads(out)
    assert check["passed"]
    assert check["rows"][-1]["name"] == "images that cannot be decoded"
    assert all(row["expected"] == row["found"] for row in check["rows"])
    code, out, _ = vireid("data", "check", layout, str(drawn[layout]), "--skip-images")
    assert code == 0
    assert "expected" in out and "found" in out


def first_image(root: Path) -> Path:
    return min(path for path in root.rglob("*") if path.suffix in (".jpg", ".bmp"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_image_is_named_and_the_set_refused(
    vireid: Call, drawn: dict[str, Path], layout: str, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(drawn[layout], root)
    gone = first_image(root)
    gone.unlink()
    code, out, _ = vireid("data", "check", layout, str(root), "--skip-images")
    assert code == 1
    assert "not complete" in out
    assert gone.stem.split("_")[0] in out
    code, out, _ = vireid("data", "check", layout, str(root), "--skip-images", "--json")
    assert code == 1
    assert not json.loads(out)["passed"]


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "cut short"])
def test_an_image_that_cannot_be_read_is_named(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path, content: bytes | None
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(drawn["sysu"], root)
    image = root / "cam1" / "0001" / "0001.jpg"
    if not image.is_file():
        image = first_image(root)
    image.write_bytes(image.read_bytes()[:200] if content is None else content)
    code, out, _ = vireid("data", "check", "sysu", str(root), "--json")
    assert code == 1
    row = json.loads(out)["rows"][-1]
    assert (row["name"], row["found"]) == ("images that cannot be decoded", 1)
    assert image.relative_to(root).as_posix() in json.loads(out)["offenders"][0]


def test_images_are_decoded_once_and_compared_with_their_digests(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    arguments = ("data", "index", "sysu", str(drawn["sysu"]), "--cache", str(cache), "--height", "32", "--width", "16")
    code, out, _ = vireid(*arguments)
    assert code == 0
    assert "of 32 x 16" in out
    arrays = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert len(arrays) == 2
    assert vireid(*arguments)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == arrays
    check = ("data", "check", "sysu", str(drawn["sysu"]), "--skip-images", "--cache", str(cache))
    assert vireid(*check)[0] == 0
    # One changed byte in one array.
    path = next(iter(arrays))
    pixels = np.load(path)
    pixels[0, 0, 0, 0] ^= 1
    np.save(path, pixels)
    code, out, _ = vireid(*check)
    assert code == 1
    assert "damaged arrays" in out and path.name in out
    code, _, err = vireid(*arguments)
    assert code == 1
    assert "not the bytes that were written" in err


def test_a_cache_without_these_images_is_an_error(vireid: Call, drawn: dict[str, Path], tmp_path: Path) -> None:
    code, _, err = vireid("data", "check", "sysu", str(drawn["sysu"]), "--skip-images", "--cache", str(tmp_path))
    assert code == 1
    assert "holds no decoded copy" in err


@pytest.mark.parametrize("command", ["check", "index"])
def test_an_unknown_data_set_names_the_known_ones(vireid: Call, tmp_path: Path, command: str) -> None:
    code, _, err = vireid("data", command, "market", str(tmp_path))
    assert code == 1
    assert "'market'" in err and "llcm" in err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_that_is_something_else_says_what_is_missing(vireid: Call, tmp_path: Path, layout: str) -> None:
    code, _, err = vireid("data", "check", layout, str(tmp_path))
    assert code == 1
    assert "hint:" in err


def test_folders_become_a_manifest_that_trains(vireid: Call, tmp_path: Path) -> None:
    site = tmp_path / "site"
    for camera in (1, 2, 3):
        for person in ("anna", "björn"):
            folder = site / f"cam{camera}" / person
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (16, 32), (40 * camera, 100, 100)).save(folder / f"{number}.jpg")
    written = tmp_path / "site.csv"
    code, out, err = vireid(
        "data",
        "manifest",
        str(site),
        "--pattern",
        "cam{camera}/{person}/{name}",
        "--infrared-cameras",
        "3",
        "--out",
        str(written),
        "--split",
        "train",
    )
    assert code == 0, err
    assert "8 visible and 4 infrared images of 2 people" in out
    code, out, err = vireid("data", "check", "manifest", str(written), "--root", str(site), "--json")
    assert code == 0, (out, err)
    code, _, err = vireid(
        "data", "manifest", str(site), "--pattern", "{camera}/{name}", "--out", str(tmp_path / "no.csv")
    )
    assert code == 1
    assert "hint:" in err
    assert not (tmp_path / "no.csv").exists()


@pytest.fixture
def deep_site(tmp_path: Path) -> Path:
    """Four people before a visible camera that writes JPEG and a thermal one that writes TIFF of 16 bits."""
    generator = np.random.default_rng(0)
    for person in range(1, 5):
        for camera in (1, 3):
            folder = tmp_path / "site" / f"cam{camera}" / f"{person:04d}"
            folder.mkdir(parents=True)
            for shot in range(2):
                shades = generator.integers(0, 256, (32, 16, 3), dtype=np.uint8)
                if camera == 1:
                    Image.fromarray(shades).save(folder / f"{shot}.jfif", format="JPEG")
                else:
                    Image.fromarray(29_000 + 4 * shades[..., 0].astype(np.uint16)).save(folder / f"{shot}.tiff")
    (tmp_path / "site" / "cam1" / "0001" / "9.heic").write_bytes(b"\0\0\0\x18ftypheic")
    return tmp_path / "site"


def test_a_site_of_deep_images_is_listed_checked_and_decoded(vireid: Call, deep_site: Path, tmp_path: Path) -> None:
    written = tmp_path / "site.csv"
    pattern = ("--pattern", "cam{camera}/{person}/{name}", "--infrared-cameras", "3")
    code, out, err = vireid("data", "manifest", str(deep_site), *pattern, "--out", str(written))
    assert code == 0, err
    assert "8 visible and 8 infrared images of 4 people" in out
    assert "1 file skipped by extension: cam1/0001/9.heic" in out
    place = (str(written), "--root", str(deep_site))
    code, out, err = vireid("data", "check", "manifest", *place, "--json")
    assert code == 0, err
    assert any(note.startswith("8 of 16 images have more than 8 bits") for note in json.loads(out)["notes"])
    cache = ("--cache", str(tmp_path / "images"), "--height", "32", "--width", "16")
    for options in ((), ("--orientation", "ignore"), ("--deep-range", "29000,30020")):
        code, _, err = vireid("data", "index", "manifest", *place, *cache, *options)
        assert code == 0 and "8 of 16 images have more than 8 bits" in err, err
    records = [json.loads(path.read_text())["reading"] for path in (tmp_path / "images").glob("*/index.json")]
    assert len(records) == 3 and {"orientation": "ignore", "deep_range": "image", "background": "white"} in records
    code, out, err = vireid("data", "check", "manifest", *place, "--skip-images", "--cache", str(tmp_path / "images"))
    assert code == 0, (out, err)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--orientation", "upright", "--orientation 'upright' does not exist"),
        ("--deep-range", "9,3", "--deep-range '9,3' is not two ascending numbers"),
        ("--deep-range", "1,2,3", "is not two ascending numbers"),
        ("--deep-range", "nan,3", "is not two ascending numbers"),
    ],
)
def test_a_wrong_way_of_reading_has_a_hint(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path, option: str, value: str, words: str
) -> None:
    code, _, err = vireid("data", "index", "sysu", str(drawn["sysu"]), "--cache", str(tmp_path), option, value)
    assert code == 1 and words in err and "hint:" in err


def test_the_home_sign_is_replaced_wherever_it_begins_an_argument(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(drawn["sysu"].parent))
    assert vireid("data", "check", "sysu", "~/sysu", "--skip-images")[0] == 0
    manifest = tmp_path / "m.csv"
    shutil.copy(drawn["manifest"] / "manifest.csv", manifest)
    code, _, err = vireid("data", "check", "manifest", str(manifest), "--skip-images", "--root=~/manifest")
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    code, _, err = vireid("data", "check", "sysu", "./~/sysu", "--skip-images")
    assert code == 1 and "there is no folder ~/sysu" in err


@pytest.mark.parametrize("option", ["-o~/x", "--out=~/x", "~/x"])
def test_options_of_every_form_name_the_home_folder(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/folder/of/me")
    assert cli_options._at_home(option) == option.replace("~", "/folder/of/me")
    assert cli_options._at_home("--set=a~b") == "--set=a~b"


@pytest.mark.parametrize("out", ["-o=~/x/labels.npy", "-o=x/labels.npy", "--out=~/x/labels.npy"])
def test_an_equals_sign_after_a_short_option_is_no_part_of_its_value(
    vireid: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    np.save("features.npy", identity_features(48, 4, 16))
    code, _, err = vireid("label", "features.npy", "--k1", "6", "--k2", "2", out)
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.npy", "x"]
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["labels.npy"]


def test_only_one_equals_sign_of_options_is_stripped() -> None:
    given = ["search", "-k=5", "-o==x", "-o=", "--set=a=b", "-oa=b", "--", "-k=5"]
    expected = ["search", "-k", "5", "-o", "=x", "-o", "", "--set=a=b", "-oa=b", "--", "-k=5"]
    assert [*cli_options._without_equals(given)] == expected


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("layout", ["sysu", "regdb", "llcm", "manifest"])
def test_lists_that_another_editor_saved_are_the_same(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path, layout: str, mark: bytes, end: bytes
) -> None:
    root = tmp_path / layout
    shutil.copytree(drawn[layout], root, copy_function=os.link)
    for file in [*root.rglob("*.txt"), *root.glob("manifest.csv")]:
        content = mark + file.read_bytes().replace(b"\n", end)
        file.unlink()
        file.write_bytes(content)
    assert vireid("data", "check", layout, str(root), "--skip-images")[0] == 0


def test_lists_of_regdb_are_read_with_other_separators_and_case(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "regdb"
    shutil.copytree(drawn["regdb"], root, copy_function=os.link)
    for file in root.rglob("*.txt"):
        lines = file.read_text().replace("Visible", "visible").replace("/", "\\").replace(" ", ",")
        file.unlink()
        file.write_text(lines.replace(".bmp", ".BMP"), encoding="utf-16")
    assert vireid("data", "check", "regdb", str(root), "--skip-images")[0] == 0


def test_unreadable_images_are_counted_by_kind_and_skipped_on_request(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(drawn["manifest"], root)
    images = sorted(root.rglob("*.jpg"))
    images[0].write_bytes(b"")
    for image in images[1:3]:
        image.write_bytes(image.read_bytes()[:200])
    code, out, _ = vireid("data", "check", "manifest", str(root), "--json")
    check = json.loads(out)
    assert code == 1 and check["rows"][-1]["found"] == 3
    assert [line.partition(":")[0] for line in check["offenders"]] == ["1 empty", "2 truncated"]
    size = ["--cache", str(tmp_path / "images"), "--height", "32", "--width", "16"]
    code, _, err = vireid("data", "index", "manifest", str(root), *size)
    assert code == 1 and "1 empty" in err and "2 truncated" in err and "--skip-unreadable" in err
    code, out, err = vireid("data", "index", "manifest", str(root), *size, "--skip-unreadable")
    assert code == 0, err
    assert out.startswith("skipped: 1 empty: ")
    counts = [int(number) for number in out.splitlines()[2].replace(" and ", " ").split() if number.isdecimal()][:2]
    assert sum(counts) == len(images) - 3
