"""From two folders of photographs to a manifest: cameras, people, and a count of everything that is skipped."""

import csv
import os
import shutil
from pathlib import Path

import pytest

from models.modality import Modality, PerModality
from pipeline.data.datasets.manifest.adapter import check_manifest, read_manifest
from pipeline.data.datasets.manifest.folders import FolderPatterns, write_folders
from pipeline.data.datasets.manifest.writer import ManifestSummary
from pipeline.data.image_list import list_images
from pipeline.errors import ConfigError, DataError


def fill(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    fill(root, "day/gate/a.jpg", "day/Hof Süd [neu]/2026/11/b.TIFF", "night/hall/c.png")
    return root


def write(site: Path, out: Path | None = None, **options: object) -> ManifestSummary:
    folders = PerModality([site / "day"], [site / "night"])
    return write_folders(folders, out or site / "site.csv", **options)  # type: ignore[arg-type]


class TestCameras:
    def test_a_camera_is_the_first_folder_below_the_given_one(self, site):
        summary = write(site)
        assert (site / "site.csv").read_text(encoding="utf-8") == (
            "path,modality,camera,split\n"
            "day/Hof Süd [neu]/2026/11/b.TIFF,visible,Hof Süd [neu],train\n"
            "day/gate/a.jpg,visible,gate,train\n"
            "night/hall/c.png,infrared,hall,train\n"
        )
        assert str(summary) == f"{site / 'site.csv'}: 2 visible and 1 infrared images of 3 cameras"
        assert check_manifest(site / "site.csv").passed
        assert read_manifest(site / "site.csv").training.images.map(len) == PerModality(2, 1)

    def test_images_directly_in_a_folder_are_of_a_camera_of_its_name(self, site, monkeypatch):
        fill(site, "night/d.jpg")
        monkeypatch.chdir(site / "night")
        write_folders(PerModality([Path("../day")], [Path()]), Path("../site.csv"))
        assert {row["camera"] for row in rows_of(site / "site.csv")} == {"gate", "Hof Süd [neu]", "hall", "night"}

    def test_one_name_in_both_modalities_is_two_cameras_unless_the_user_declares_one(self, site):
        fill(site, "night/gate/d.jpg")
        (note,) = write(site).notes
        assert "1 names of cameras are in both modalities" in note and "--same-cameras" in note
        found = {(row["path"], row["camera"]) for row in rows_of(site / "site.csv")}
        assert {("day/gate/a.jpg", "gate-visible"), ("night/gate/d.jpg", "gate-infrared")} < found
        assert {camera.rpartition("-")[2] for _, camera in found} == {"visible", "infrared"}
        (note,) = write(site, site / "same.csv", same_cameras=True).notes
        assert "evaluation excludes a query's own camera: gate" in note
        assert {row["camera"] for row in rows_of(site / "same.csv")} == {"gate", "Hof Süd [neu]", "hall"}

    def test_numbers_beside_texts_become_texts(self, site):
        fill(site, "day/1/x.jpg", "night/02/x.jpg")
        (note,) = write(site).notes
        assert note == "names of cameras are numbers and texts: each begins with camera- now"
        assert {"camera-1", "camera-2", "camera-gate"} < {row["camera"] for row in rows_of(site / "site.csv")}
        assert check_manifest(site / "site.csv").passed

    def test_a_pattern_reads_it_from_the_path_with_the_name_of_the_given_folder(self, site):
        fill(site, "day/gate/c7_x.jpg", "night/hall/c8_x.jpg")
        summary = write(site, patterns=FolderPatterns(camera=r"/c(\d)_"))
        assert [row["camera"] for row in rows_of(site / "site.csv")] == ["7", "8"]
        (note,) = summary.notes
        assert note.startswith(
            "3 images do not match --camera-pattern and are skipped: day/Hof Süd [neu]/2026/11/b.TIFF"
        )
        write(site, site / "given.csv", patterns=FolderPatterns(camera=r"^(\w+)/"))
        assert {row["camera"] for row in rows_of(site / "given.csv")} == {"day", "night"}


class TestPlaces:
    def test_images_outside_of_the_file_s_folder_start_from_a_column(self, site, tmp_path):
        out = tmp_path / "elsewhere" / "site.csv"
        (note,) = write(site, out).notes
        assert note == f"the images are not below the folder of site.csv: its column images_root names {site}"
        assert {(row["images_root"], row["path"][:6]) for row in rows_of(out)} == {
            (str(site), "day/Ho"), (str(site), "day/ga"), (str(site), "night/")
        }  # fmt: skip
        beside = site / "site.csv"
        write(site)
        assert read_manifest(out).fingerprint == read_manifest(beside).fingerprint
        assert list_images(out, Modality.VISIBLE).paths == list_images(beside, Modality.VISIBLE).paths
        moved = shutil.move(site, tmp_path / "moved")
        with pytest.raises(DataError, match=f"there is no folder {site}"):
            read_manifest(out)
        assert len(read_manifest(out, images_root=Path(moved)).images.visible) == 2

    def test_a_column_of_several_folders_is_refused(self, tmp_path):
        out = tmp_path / "site.csv"
        text = (
            "path,modality,camera,split,images_root\nday/gate/a.jpg,visible,1,train,a\nnight/c.jpg,infrared,2,train,b\n"
        )
        out.write_text(text)
        with pytest.raises(DataError, match="column images_root names 2 folders, first 'a' and 'b'"):
            read_manifest(out)

    def test_folders_that_overlap_are_refused(self, site):
        with pytest.raises(ConfigError, match="one folder, or one in the other"):
            write_folders(PerModality([site], [site / "night"]), site / "site.csv")
        (site / "again").symlink_to(site / "day")
        with pytest.raises(ConfigError, match="one folder, or one in the other"):
            write_folders(PerModality([site / "day"], [site / "again"]), site / "site.csv")


class TestSkipped:
    def test_everything_is_counted_by_its_reason(self, site):
        day = site / "day"
        fill(
            site,
            "day/gate/film.mp4",
            "day/gate/phone.HEIC",
            "day/gate/.trash/x.jpg",
            "day/gate/Thumbs.db",
            "day/gate/._a.jpg",
        )
        (day / "gate" / "empty.jpg").touch()
        (day / "gate" / "gone.jpg").symlink_to(site / "absent.jpg")
        (day / "link").symlink_to(site / "night")
        fill(site, "day/gate/back\\slash.jpg", os.fsdecode(b"day/gate/\xff.jpg"))
        summary = write(site)
        assert summary.visible == 2
        assert set(summary.notes) == {
            "2 files skipped by extension: day/gate/film.mp4, day/gate/phone.HEIC; HEIC needs the package pillow-heif",
            "3 hidden files and folders are skipped: day/gate/._a.jpg, day/gate/.trash, day/gate/Thumbs.db",
            "2 links to folders, out of the folder, or to nothing are not followed: day/gate/gone.jpg, day/link/",
            "1 empty files are skipped: day/gate/empty.jpg",
            "2 images have names that a manifest cannot hold: day/gate/back\\slash.jpg, day/gate/\\udcff.jpg",
        }

    def test_a_modality_of_which_nothing_is_left_is_an_error_with_the_reasons(self, site):
        shutil.rmtree(site / "night" / "hall")
        (site / "night" / "x.jpg").touch()
        with pytest.raises(DataError, match=r"no infrared image is left of .*night.*1 empty files are skipped"):
            write(site)
        assert not (site / "site.csv").exists()

    def test_an_existing_file_is_not_replaced(self, site):
        write(site)
        with pytest.raises(DataError, match=r"site\.csv exists"):
            write(site)


class TestPeople:
    @pytest.fixture
    def crowd(self, tmp_path: Path) -> Path:
        root = tmp_path / "crowd"
        names = [f"p{person}_t{person}{part}_20261128_14030{part}" for person in range(1, 5) for part in (1, 2)]
        fill(root, *(f"{place}/{name}.jpg" for place in ("day/a", "night/b") for name in names))
        fill(root, "day/a/p-1_t1.jpg", "day/a/poster.jpg")
        return root

    def test_people_tracks_and_times_come_from_names(self, crowd):
        patterns = FolderPatterns(person=r"/p(-?\d+)_", track=r"_(t\d+)", time=r"(\d{8}_\d{6})")
        summary = write(crowd, patterns=patterns, test_share=0.5)
        first = rows_of(crowd / "site.csv")[0]
        assert (first["path"], first["person"]) == ("day/a/p1_t11_20261128_140301.jpg", "1")
        assert (first["track"], first["time"]) == ("t11", "2026-11-28T14:03:01")
        assert (summary.people, summary.images) == (4, 16)
        assert set(summary.notes) == {
            "1 images do not match --person-pattern and are skipped: day/a/poster.jpg",
            "1 images have no time by --time-pattern and are listed without: day/a/p-1_t1.jpg",
            "1 images of junk people are skipped (--junk-people): day/a/p-1_t1.jpg",
            "2 people are in test, chosen with seed 1",
        }
        dataset = read_manifest(crowd / "site.csv")
        assert dataset.test is not None and dataset.test.images.map(len) == PerModality(4, 4)

    def test_tests_need_people(self, site):
        for options in ({"split": "test"}, {"test_share": 0.5}):
            with pytest.raises(ConfigError, match="needs people, by --person-pattern"):
                write(site, **options)

    @pytest.mark.parametrize(
        ("pattern", "message"), [("p(", "is no regular expression"), ("p1", "has 0 groups"), ("(p)(1)", "has 2 groups")]
    )
    def test_a_pattern_is_a_regular_expression_with_one_group(self, site, pattern, message):
        with pytest.raises(ConfigError, match=message):
            write(site, patterns=FolderPatterns(person=pattern))
