"""From folders to a manifest: what patterns say, whole people in test, and nothing written that would not be read."""

import csv
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.modality import Modality
from pipeline.data.datasets.manifest import writer as manifest_writer
from pipeline.data.datasets.manifest.adapter import check_manifest, read_manifest
from pipeline.data.datasets.manifest.rows import ManifestRow
from pipeline.data.datasets.manifest.writer import write_manifest
from pipeline.errors import CheckpointError, ConfigError, DataError

PATTERN = "cam{camera}/{person}/{name}"

# Cameras 1 and 2 are visible, 3 is infrared; of person 12 there are two visible images.
IMAGES = (
    "cam1/0007/a.jpg",
    "cam1/0012/a.jpg",
    "cam1/0012/b.PNG",
    "cam2/0012/a.jpg",
    "cam3/0007/c.jpeg",
    "cam3/0012/c.bmp",
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return fill(tmp_path / "site", *IMAGES)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "site.csv"


def fill(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def crowd(root: Path, people: int) -> Path:
    """Somebody before each of two cameras, `people` times."""
    return fill(root, *(f"cam{camera}/{person:04d}/1.jpg" for person in range(1, people + 1) for camera in (1, 3)))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


class TestRows:
    def test_a_row_says_what_the_path_says(self, site, out):
        summary = write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        # By person, then camera, then path; numbers without their zeros.
        assert out.read_text() == (
            "path,modality,camera,person,split\n"
            "cam1/0007/a.jpg,visible,1,7,train\n"
            "cam3/0007/c.jpeg,infrared,3,7,train\n"
            "cam1/0012/a.jpg,visible,1,12,train\n"
            "cam1/0012/b.PNG,visible,1,12,train\n"
            "cam2/0012/a.jpg,visible,2,12,train\n"
            "cam3/0012/c.bmp,infrared,3,12,train\n"
        )
        assert (summary.path, summary.images, summary.people) == (out, 6, 2)
        assert (summary.visible, summary.infrared, summary.notes) == (4, 2, ())
        assert str(summary) == f"{out}: 4 visible and 2 infrared images of 2 people"

    def test_what_is_written_is_read_back(self, site, out):
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        training = read_manifest(out, images_root=site).training
        assert training.images.visible.paths == (IMAGES[0], *IMAGES[1:4])
        assert training.images.infrared.paths == IMAGES[4:]
        assert training.images.visible.cameras.tolist() == [1, 1, 1, 2]
        assert [people.ids.tolist() for people in training.people] == [[7, 12, 12, 12], [7, 12]]

    def test_nothing_below_the_folder_changes(self, site, out):
        def snapshot() -> list[tuple[str, int, int]]:
            return sorted((str(one), one.stat().st_mtime_ns, one.stat().st_size) for one in [site, *site.rglob("*")])

        before = snapshot()
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        assert snapshot() == before
        assert sorted(path.name for path in out.parent.iterdir()) == ["site", "site.csv"]

    @pytest.mark.parametrize("written", ["3", "03", "003"])
    @pytest.mark.parametrize("listed", ["3", "03"])
    def test_a_camera_is_its_number_whatever_zeros_are_before_it(self, tmp_path, out, written, listed):
        site = fill(tmp_path / "site", "cam01/7/a.jpg", f"cam{written}/7/a.jpg")
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=[listed])
        assert [(row["camera"], row["modality"]) for row in rows_of(out)] == [("1", "visible"), ("3", "infrared")]

    def test_cameras_and_people_may_be_texts(self, tmp_path, out):
        site = fill(tmp_path / "site", "Hof/zoë/a.jpg", "Hof/anna/b.jpg", "nacht 2/zoë/c.jpg")
        write_manifest(site, out, pattern="{camera}/{person}/{name}", infrared_cameras=["nacht 2"])
        assert [tuple(row.values())[:4] for row in rows_of(out)] == [
            ("Hof/anna/b.jpg", "visible", "Hof", "anna"),
            ("Hof/zoë/a.jpg", "visible", "Hof", "zoë"),
            ("nacht 2/zoë/c.jpg", "infrared", "nacht 2", "zoë"),
        ]
        assert read_manifest(out, images_root=site).training.people.infrared.ids.tolist() == [2]

    def test_the_modality_may_be_a_part_of_the_path_with_a_name_of_its_own(self, tmp_path, out):
        site = fill(tmp_path / "site", "Thermal/7/a.bmp", "RGB/7/a.bmp", "infrared/7/b.bmp", "visible/7/b.bmp")
        summary = write_manifest(
            site,
            out,
            pattern="{modality}/{person}/{name}",
            modality_names={"Thermal": "infrared", "RGB": "visible"},
        )
        assert {row["path"].partition("/")[0]: row["modality"] for row in rows_of(out)} == {
            "Thermal": "infrared",
            "RGB": "visible",
            "infrared": "infrared",
            "visible": "visible",
        }
        assert summary.notes == ("the pattern names no camera: visible images get camera 1, infrared ones camera 2",)

    def test_without_cameras_queries_still_find_their_matches(self, tmp_path, out):
        # One camera for both modalities would hide all of a person's other images from the person's queries.
        site = fill(tmp_path / "site", *(f"{side}/{person}/a.jpg" for side in Modality for person in (1, 2, 3)))
        write_manifest(site, out, pattern="{modality}/{person}/{name}", test_share=0.5)
        assert check_manifest(out, images_root=site).passed

    def test_the_split_may_be_a_part_of_the_path(self, tmp_path, out):
        paths = ("train/cam1/7/a.jpg", "train/cam3/7/a.jpg", "query/cam3/9/a.jpg", "gallery/cam1/9/a.jpg")
        site = fill(tmp_path / "site", *paths)
        write_manifest(site, out, pattern="{split}/" + PATTERN, infrared_cameras=["3"])
        assert {row["path"]: row["split"] for row in rows_of(out)} == {path: path.partition("/")[0] for path in paths}
        assert check_manifest(out, images_root=site).passed

    def test_the_split_may_be_the_same_for_all(self, site, out):
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"], split="query")
        assert {row["split"] for row in rows_of(out)} == {"query"}

    def test_a_pattern_without_people_makes_a_manifest_to_train_on(self, tmp_path, out):
        site = fill(tmp_path / "site", "cam1/a.jpg", "cam3/a.jpg")
        summary = write_manifest(site, out, pattern="cam{camera}/{name}", infrared_cameras=["3"])
        assert out.read_text().splitlines()[0] == "path,modality,camera,split"
        assert summary.people == 0
        assert summary.notes == ("the pattern names no person: the manifest can be trained on, not evaluated",)
        assert not read_manifest(out, images_root=site).training.people.visible.known

    def test_parts_without_a_meaning_are_passed_over(self, tmp_path, out):
        site = fill(tmp_path / "site", "2024/0007_c1_x9.jpg", "2025/0007_c3_y.jpg")
        write_manifest(site, out, pattern="{}/{person}_c{camera}_{}.jpg", infrared_cameras=["3"])
        assert [(row["camera"], row["person"]) for row in rows_of(out)] == [("1", "7"), ("3", "7")]
        out.unlink()
        write_manifest(site, out, pattern="{_}/{person}_c{camera}_{_}.jpg", infrared_cameras=["3"])
        assert len(rows_of(out)) == 2

    def test_fields_are_as_short_as_can_be_and_end_at_a_slash(self, tmp_path, out):
        site = fill(tmp_path / "site", "1_2_3/7/a.jpg", "3_0/7/a.jpg", "3/x/7/a.jpg")
        summary = write_manifest(site, out, pattern="{camera}_{}/{person}/{name}", infrared_cameras=["3"])
        assert [(row["path"], row["camera"]) for row in rows_of(out)] == [("1_2_3/7/a.jpg", "1"), ("3_0/7/a.jpg", "3")]
        assert summary.notes == ("1 images do not match the pattern and are excluded, first: 3/x/7/a.jpg",)

    def test_signs_of_regular_expressions_stand_for_themselves(self, tmp_path, out):
        site = fill(tmp_path / "site", "cam1 (a+b)/7/x.jpg", "cam3 (a+b)/7/x.jpg", "cam3 (aab)/7/x.jpg")
        summary = write_manifest(site, out, pattern="cam{camera} (a+b)/{person}/{name}", infrared_cameras=["3"])
        assert (summary.images, len(summary.notes)) == (2, 1)

    def test_images_that_do_not_fit_are_counted_and_other_files_passed_over(self, site, out):
        fill(site, "cam1/loose.jpg", "cam9_0007.jpg", "exp/list.txt", "cam1/0007/.hidden.jpg", "cam1/0007/Thumbs.db")
        summary = write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        assert summary.images == len(rows_of(out)) == 6
        assert summary.notes == (
            "2 images do not match the pattern and are excluded, first: cam1/loose.jpg",
            "1 file skipped by extension: exp/list.txt",
        )
        assert str(summary).endswith(f"\nnote: {summary.notes[0]}\nnote: {summary.notes[1]}")

    def test_every_readable_kind_is_listed_and_the_rest_is_named(self, site, out):
        kinds = ("tif", "TIFF", "webp", "jfif", "jp2", "gif", "pgm")
        fill(site, *(f"cam3/0009/{number}.{kind}" for number, kind in enumerate(kinds)))
        fill(site, "cam3/0009/a.heic", "cam3/0009/b.heic", "cam3/0009/c.raw")
        summary = write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        assert summary.images == 6 + len(kinds)
        (note,) = summary.notes
        assert note.startswith("3 files skipped by extension: cam3/0009/a.heic, cam3/0009/c.raw, cam3/0009/b.heic")

    def test_a_folder_of_other_files_alone_is_refused_with_their_names(self, tmp_path, out):
        site = fill(tmp_path / "site", "cam1/7/a.heic", "cam3/7/b.heic")
        with pytest.raises(DataError, match=r"none of 0 images .*; 2 files skipped by extension: cam1/7/a\.heic"):
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])

    def test_names_that_csv_quotes_are_read_back(self, tmp_path, out):
        names = ["a,b.jpg", 'say "x".jpg', " a .jpg", "été 漢.jpg", "'.jpg", "#;=1+1.jpg"]
        site = fill(tmp_path / "site", *(f"cam{camera}/Anna,\nB./{name}" for camera in (1, 3) for name in names))
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        images = read_manifest(out, images_root=site).images
        assert images.visible.paths == tuple(f"cam1/Anna,\nB./{name}" for name in sorted(names))
        assert images.infrared.paths == tuple(f"cam3/Anna,\nB./{name}" for name in sorted(names))

    def test_the_order_of_listings_changes_nothing(self, site, out, monkeypatch):
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"], test_share=0.5)
        content = out.read_bytes()
        out.unlink()
        listed = Path.iterdir
        monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"], test_share=0.5)
        assert out.read_bytes() == content

    def test_the_folder_of_the_manifest_is_made(self, site, tmp_path):
        path = tmp_path / "new" / "deep" / "SITE.CSV"
        write_manifest(site, path, pattern=PATTERN, infrared_cameras=["3"])
        assert len(rows_of(path)) == 6


class TestShares:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_whole_people_go_into_test(self, tmp_path, out, seed):
        site = crowd(tmp_path / "site", 10)
        summary = write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"], test_share=0.3, seed=seed)
        rows = rows_of(out)
        sides = {split: {row["person"] for row in rows if row["split"] == split} for split in ("train", "test")}
        assert len(rows) == 20
        assert (len(sides["train"]), len(sides["test"])) == (7, 3)
        assert not sides["train"] & sides["test"]
        assert summary.notes == (f"3 people are in test, chosen with seed {seed}",)
        dataset = read_manifest(out, images_root=site)
        assert (len(dataset.training.images.visible), len(dataset.test.images.infrared)) == (7, 3)

    def test_the_seed_decides_who(self, tmp_path):
        site = crowd(tmp_path / "site", 20)
        written = []
        for number, seed in enumerate((1, 1, 2)):
            path = tmp_path / f"{number}.csv"
            write_manifest(site, path, pattern=PATTERN, infrared_cameras=["3"], test_share=0.5, seed=seed)
            written.append(path.read_text())
        assert written[0] == written[1] != written[2]

    def test_other_images_of_the_same_people_do_not_change_who_is_drawn(self, tmp_path):
        site = crowd(tmp_path / "site", 20)
        tested = []
        for number in range(2):
            path = tmp_path / f"{number}.csv"
            write_manifest(site, path, pattern=PATTERN, infrared_cameras=["3"], test_share=0.5)
            tested.append({row["person"] for row in rows_of(path) if row["split"] == "test"})
            fill(site, "cam2/0003/1.jpg", "cam2/0019/7.jpg")
        assert tested[0] == tested[1]

    @pytest.mark.parametrize(("share", "tested"), [(0.001, 1), (0.25, 1), (0.5, 2), (0.999, 3)])
    def test_no_side_is_ever_empty(self, tmp_path, out, share, tested):
        # Four people: a quarter is one, a half two, and all but one is the most.
        site = crowd(tmp_path / "site", 4)
        write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"], test_share=share)
        assert len({row["person"] for row in rows_of(out) if row["split"] == "test"}) == tested
        assert check_manifest(out, images_root=site).passed

    def test_a_person_written_with_and_without_zeros_is_one(self, tmp_path):
        paths = [f"cam{camera}/{person}/1.jpg" for camera in (1, 3) for person in ("7", "07", "0007", "8", "008")]
        site = fill(tmp_path / "site", *paths)
        for seed in range(6):
            path = tmp_path / f"{seed}.csv"
            summary = write_manifest(site, path, pattern=PATTERN, infrared_cameras=["3"], test_share=0.5, seed=seed)
            assert summary.people == 2
            assert len({(row["person"], row["split"]) for row in rows_of(path)}) == 2
            assert check_manifest(path, images_root=site).passed

    def test_one_person_cannot_be_split(self, tmp_path, out):
        site = crowd(tmp_path / "site", 1)
        with pytest.raises(DataError, match="one person cannot be split") as caught:
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"], test_share=0.5)
        assert "--test-share" in caught.value.hint
        assert not out.exists()


WRONG_REQUESTS = [
    ({"pattern": "{site}/{person}/{name}"}, "--pattern knows no {site}"),
    ({"pattern": "cam{camera}/{person}/{person}_{name}"}, "--pattern has {person} twice"),
    ({"infrared_cameras": ()}, "either {modality} in the pattern or --infrared-cameras must name"),
    ({"pattern": "{modality}/" + PATTERN}, "either {modality} in the pattern or --infrared-cameras must name"),
    ({"pattern": "{person}/{name}"}, "--infrared-cameras needs {camera} in the pattern"),
    ({"infrared_cameras": ["3", "6"]}, "no image is of the infrared camera 6; found: 1, 2, 3"),
    (
        {"pattern": "{modality}/{person}/{name}", "infrared_cameras": (), "modality_names": {"cam1": "visible"}},
        "cam2/0012/a.jpg: the modality 'cam2' has no meaning",
    ),
    (
        {"pattern": "{modality}/{person}/{name}", "infrared_cameras": (), "modality_names": {"cam1": "thermal"}},
        "'thermal' is not visible or infrared",
    ),
    ({"split": "tets"}, "split 'tets' does not exist"),
    ({"pattern": "cam{camera}/{split}/{name}"}, "cam1/0007/a.jpg: the split '0007' has no meaning, nor have '0012'"),
    ({"pattern": "cam{camera}/{}/{name}", "split": "val"}, "--split val needs {person} in the pattern"),
    ({"test_share": 0.0}, "--test-share puts a share of the people, between 0 and 1,"),
    ({"test_share": 1.0}, "--test-share puts a share of the people, between 0 and 1,"),
    ({"test_share": float("nan")}, "--test-share puts a share of the people, between 0 and 1,"),
    ({"test_share": 0.5, "split": "val"}, "--test-share puts a share of the people"),
    ({"test_share": 0.5, "pattern": "cam{camera}/{}/{name}"}, "--test-share puts a share of the people"),
    ({"test_share": 0.5, "pattern": "cam{camera}/{person}/{split}"}, "--test-share puts a share of the people"),
]


class TestErrors:
    @pytest.mark.parametrize(("change", "message"), WRONG_REQUESTS)
    def test_a_request_that_makes_no_sense_is_refused_and_nothing_is_written(self, site, out, change, message):
        request = {"pattern": PATTERN, "infrared_cameras": ["3"]} | change
        with pytest.raises((ConfigError, DataError)) as caught:
            write_manifest(site, out, **request)
        assert message in caught.value.message
        assert caught.value.hint
        assert not out.exists()

    def test_the_folder_must_exist(self, tmp_path, out):
        with pytest.raises(DataError, match="there is no folder"):
            write_manifest(tmp_path / "absent", out, pattern=PATTERN, infrared_cameras=["3"])

    def test_an_existing_file_is_never_overwritten(self, site, out):
        out.write_text("mine")
        with pytest.raises(DataError) as caught:
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        assert caught.value.message == f"{out} exists"
        assert "--out" in caught.value.hint
        assert out.read_text() == "mine"

    def test_only_csv_is_written(self, site, tmp_path):
        with pytest.raises(ConfigError, match=r"is no \.csv file"):
            write_manifest(site, tmp_path / "site.jsonl", pattern=PATTERN, infrared_cameras=["3"])
        assert not (tmp_path / "site.jsonl").exists()

    def test_a_file_in_the_place_of_a_folder_is_named(self, site, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="is a file"):
            write_manifest(site, tmp_path / "file" / "site.csv", pattern=PATTERN, infrared_cameras=["3"])

    def test_a_full_disk_leaves_nothing_behind(self, site, out, monkeypatch):
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        assert [path.name for path in out.parent.iterdir()] == ["site"]

    def test_a_pattern_that_fits_nothing_is_shown_with_the_first_image(self, site, out):
        with pytest.raises(DataError) as caught:
            write_manifest(site, out, pattern="camera{camera}/{person}/{name}", infrared_cameras=["3"])
        wanted = f"none of 6 images below {site} is named like camera{{camera}}/{{person}}/{{name}}"
        assert caught.value.message == f"{wanted}; the first image is cam1/0007/a.jpg"
        assert not out.exists()

    def test_a_folder_without_images_is_refused(self, tmp_path, out):
        site = fill(tmp_path / "site", "notes.txt")
        with pytest.raises(DataError, match="none of 0 images below"):
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("cam1/-1/a.jpg", "person -1 is negative"),
            ("cam1/anna/a.jpg", "person must be all integers or all text; 'anna' is text"),
            ("camx/0007/a.jpg", "camera must be all integers or all text; 'x' is text"),
            (f"cam1/{'1' * 19}/a.jpg", "has more than 18 digits"),
            ("cam1/ /a.jpg", "rows need a person"),
        ],
    )
    def test_cameras_and_people_that_would_not_be_read_back_are_refused(self, site, out, path, message):
        fill(site, path)
        with pytest.raises(DataError) as caught:
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"], split="test", junk_people=[])
        assert message in caught.value.message
        assert not out.exists()

    def test_names_that_would_not_be_read_back_are_skipped_and_counted(self, site, out):
        fill(site, r"cam1/7/a\b.jpg", "cam1/7/a\rb.jpg", os.fsdecode(b"cam1/7/\xff.jpg"), "\udcff/x.jpg")
        summary = write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])
        assert summary.images == len(rows_of(out)) == 6
        (note,) = summary.notes
        assert note.startswith("4 images have names that a manifest cannot hold: cam1/7/a\rb.jpg, cam1/7/a\\b.jpg, ")
        note.encode()  # it can be printed

    def test_a_folder_of_such_names_alone_is_refused_with_them(self, tmp_path, out):
        site = fill(tmp_path / "site", "cam1/7/\udcff.jpg")
        with pytest.raises(DataError, match=r"none of 0 images .*; 1 images have names .*: cam1/7/\\udcff\.jpg"):
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])


@given(
    people=st.lists(st.integers(0, 10**6), min_size=2, max_size=12, unique=True),
    share=st.floats(0, 1, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 2**32),
)
@example(people=[0, 1], share=1e-300, seed=0)
@example(people=[0, 1], share=1 - 1e-16, seed=0)
def test_shares_are_rounded_within_one_person_of_either_side(people, share, seed):
    row = ManifestRow(0, "a.jpg", Modality.VISIBLE, "1", "", "train")
    rows = [replace(row, person=str(person)) for person in people for _ in range(2)]
    found = manifest_writer.split_by_people(rows, share, seed, [])
    sides = {split: {one.person for one in found if one.split == split} for split in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert sides["train"] and sides["test"]
    inner = 1 <= share * len(people) <= len(people) - 1
    assert not inner or abs(len(sides["test"]) - share * len(people)) <= 0.5
    shuffled = random.Random(seed).sample(rows, len(rows))
    again = manifest_writer.split_by_people(shuffled, share, seed, [])
    assert {(one.person, one.split) for one in again} == {(one.person, one.split) for one in found}


MARKET = "{split}/{person}_c{camera}s{}_{name}"


def market(root: Path) -> Path:
    """Names of Market-1501: person -1 shows no person, 0000 is background."""
    names = {"bounding_box_train": ("0002", "0007"), "Bounding_Box_Test": ("-1", "0000", "0005"), "query": ("0005",)}
    paths = [
        f"{folder}/{person}_c{camera}s1_000{camera}51_00.jpg"
        for folder, people in names.items()
        for person in people
        for camera in (1, 3)
    ]
    return fill(root, *paths)


class TestJunkAndSplits:
    SPLITS: ClassVar = {"bounding_box_train": "train", "bounding_box_test": "gallery"}

    def test_junk_people_are_excluded_and_counted_and_folders_are_splits(self, tmp_path, out):
        request = {"pattern": MARKET, "infrared_cameras": ["3"], "split_names": self.SPLITS}
        summary = write_manifest(market(tmp_path / "site"), out, **request)
        assert {(row["person"], row["split"]) for row in rows_of(out)} == {
            ("2", "train"), ("7", "train"), ("5", "gallery"), ("5", "query"),
        }  # fmt: skip
        (note,) = summary.notes
        assert note.startswith("4 images of junk people are excluded: -1 (2), 0000 (2)")
        assert check_manifest(out, images_root=tmp_path / "site").passed

    def test_the_user_names_other_junk_people(self, tmp_path, out):
        request = {"pattern": MARKET, "infrared_cameras": ["3"], "split_names": self.SPLITS}
        write_manifest(market(tmp_path / "site"), out, **request, junk_people=["-1", "0007"])
        assert {row["person"] for row in rows_of(out)} == {"0", "2", "5"}
        out.unlink()
        with pytest.raises(DataError, match="person -1 is negative") as caught:
            write_manifest(tmp_path / "site", out, **request, junk_people=[])
        assert "--junk-people" in caught.value.hint

    def test_person_zero_of_other_folders_is_a_person(self, tmp_path, out):
        site = fill(tmp_path / "site", "cam1/0000/a.jpg", "cam3/0000/a.jpg")
        assert write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"]).people == 1

    def test_nothing_but_junk_is_refused(self, tmp_path, out):
        site = fill(tmp_path / "site", "cam1/-1/a.jpg", "cam3/-1/a.jpg")
        with pytest.raises(DataError, match=r"no image below .* is left: 2 images of junk people"):
            write_manifest(site, out, pattern=PATTERN, infrared_cameras=["3"])

    def test_all_folders_without_a_meaning_are_named(self, tmp_path, out):
        with pytest.raises(ConfigError) as caught:
            write_manifest(market(tmp_path / "site"), out, pattern=MARKET, infrared_cameras=["3"])
        assert "the split 'Bounding_Box_Test' has no meaning, nor have 'bounding_box_train'" in caught.value.message
        assert "--split-names 'Bounding_Box_Test=...,bounding_box_train=...'" in caught.value.hint

    @pytest.mark.parametrize("change", [{"split_names": {"query": "probe"}}, {"pattern": PATTERN}])
    def test_split_names_without_a_meaning_are_refused(self, tmp_path, out, change):
        request = {"pattern": MARKET, "infrared_cameras": ["3"], "split_names": self.SPLITS} | change
        with pytest.raises(ConfigError, match=r"probe|needs \{split\}"):
            write_manifest(market(tmp_path / "site"), out, **request)

    def test_backslashes_of_a_pattern_are_slashes(self, tmp_path, out):
        site = fill(tmp_path / "site", "cam1/7/a.jpg", "cam3/7/a.jpg")
        assert write_manifest(site, out, pattern=".\\cam{camera}\\{person}\\{name}", infrared_cameras=["3"]).images == 2

    def test_usual_names_of_modalities_need_no_option(self, tmp_path, out):
        site = fill(tmp_path / "site", "RGB/7/a.jpg", "Thermal/7/a.jpg", "IR/7/b.jpg")
        summary = write_manifest(site, out, pattern="{modality}/{person}/{name}")
        assert (summary.visible, summary.infrared) == (1, 2)
