import csv
import dataclasses
import hashlib
import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from models.modality import Modality
from pipeline.data.datasets.llcm import check_llcm, read_llcm
from pipeline.data.datasets.regdb import check_regdb, read_regdb
from pipeline.data.synthetic.cameras import LLCM_STATIONS, REGDB_STATIONS, SYSU_STATIONS, station_cameras
from pipeline.data.synthetic.images import Studio, StudioSettings
from pipeline.data.synthetic.knobs import DEFAULT
from pipeline.data.synthetic.layouts import plan_llcm, plan_regdb
from pipeline.data.synthetic.plan import Plan, Shot, write_labelled_list
from pipeline.data.synthetic.writer import LAYOUTS, SyntheticSummary, generate_dataset

Sets = dict[str, tuple[Path, SyntheticSummary]]
LLCM_MODALITIES = {station.number: station.modality for station in LLCM_STATIONS}

# Over all pixels before JPEG of size smoke at 48 x 24, seed 1, difficulty default. They change with the drawing only:
# then `GENERATOR_VERSION` changes too.
GOLDEN = {
    "sysu": "9cfc7bf1848c83f9d80f3c8895db8afee8f164bf9d3d9b7bd3bcc4baf589dfe2",
    "regdb": "c4aba858f4c55cd216325c447e62c5e1cc8fa4bc7f2f00d191842af33d9cbe21",
    "llcm": "e332b6d985a45b66690d49caab6451a04b5a46f662430a992a5a33084c6d5466",
    "manifest": "9cfc7bf1848c83f9d80f3c8895db8afee8f164bf9d3d9b7bd3bcc4baf589dfe2",
}


def read_list(path: Path) -> list[tuple[str, int]]:
    entries = [line.rsplit(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(name, int(label)) for name, label in entries]


def truth(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "truth" / "images.jsonl").read_text(encoding="utf-8").splitlines()]


def image_files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".jpg", ".bmp", ".png")
    }


class TestEveryLayout:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_pixels_are_those_that_were_committed(self, smoke_sets: Sets, layout):
        assert smoke_sets[layout][1].pixel_digest == GOLDEN[layout]

    def test_the_same_pixels_come_from_two_workers(self, tmp_path):
        # Workers know nothing of layouts: this one, where a camera is two stations, speaks for all.
        again = generate_dataset(tmp_path / "again", size="smoke", layout="llcm", height=48, width=24, workers=2)

        assert again.pixel_digest == GOLDEN["llcm"]

    @pytest.mark.parametrize("layout", ["regdb", "llcm"])
    def test_another_seed_gives_other_pixels(self, tmp_path, layout):
        other = generate_dataset(
            tmp_path / "other", size="smoke", layout=layout, seed=2, height=48, width=24, workers=1
        )

        assert other.pixel_digest != GOLDEN[layout]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_some_images_drawn_alone_are_those_of_the_whole(self, smoke_sets: Sets, layout):
        folder, summary = smoke_sets[layout]
        plan = LAYOUTS[layout].plan("smoke", 1, DEFAULT)
        studio = Studio(StudioSettings(1, summary.num_people, DEFAULT, LAYOUTS[layout].stations, 48, 24))
        rows = truth(folder)

        for place in (300, 7, 145):
            shot, row = plan.shots[place], rows[place]
            portrait = studio.draw(shot.person, shot.station, shot.index)
            assert row["path"] == shot.path.as_posix()
            assert row["pixels"] == hashlib.sha256(portrait.pixels.tobytes()).hexdigest()

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_truth_names_every_file_once_and_says_its_modality(self, smoke_sets: Sets, layout):
        folder, summary = smoke_sets[layout]
        rows = truth(folder)

        assert sorted(row["path"] for row in rows) == sorted(image_files(folder))
        by_modality = Counter(row["modality"] for row in rows)
        assert by_modality == {"visible": summary.num_visible, "infrared": summary.num_infrared}
        for row in rows[::20]:
            assert Image.open(folder / row["path"]).mode == ("RGB" if row["modality"] == "visible" else "L")

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_counts_are_those_of_the_plan_in_every_split_modality_and_camera(self, smoke_sets: Sets, layout):
        folder, summary = smoke_sets[layout]
        facts = json.loads((folder / "drawn.json").read_text())
        plan = LAYOUTS[layout].plan("smoke", 1, DEFAULT)
        rows = truth(folder)

        assert facts["layout"] == layout
        assert sum(split["people"] for split in facts["counts"].values()) == summary.num_people
        for split, counts in facts["counts"].items():
            of_split = [row for row in rows if row["person"] in plan.people[split]]
            assert counts["people"] == len({row["person"] for row in of_split})
            for modality in Modality:
                assert counts[modality] == sum(row["modality"] == modality for row in of_split)
            for camera, of_camera in counts["cameras"].items():
                seen = [row["person"] for row in of_split if row["camera"] == int(camera)]
                assert of_camera == {"images": len(seen), "people": len(set(seen))}

    def test_layouts_with_cameras_of_their_own_share_no_station(self):
        numbers = [station.number for station in (*SYSU_STATIONS, *REGDB_STATIONS, *LLCM_STATIONS)]

        assert len(set(numbers)) == 6 + 2 + 18

    @pytest.mark.parametrize("stations", [REGDB_STATIONS, LLCM_STATIONS])
    def test_both_sides_of_a_camera_hang_in_one_spot_and_differ_in_light(self, stations):
        by_geometry: dict[int, list] = {}
        for station, camera in zip(stations, station_cameras(stations, 1, DEFAULT, 32, 16), strict=True):
            by_geometry.setdefault(station.geometry, []).append(camera)

        assert len(by_geometry) == len(stations) // 2
        for visible, infrared in by_geometry.values():
            assert (visible.modality, infrared.modality) == (Modality.VISIBLE, Modality.INFRARED)
            assert visible.place == infrared.place
            for name in ("elevation", "facing", "scale"):
                assert getattr(visible, name) == getattr(infrared, name)
            assert visible.light_direction != infrared.light_direction
            assert visible.scene.shape[:2] == infrared.scene.shape[:2]

    @pytest.mark.parametrize("layout", ["regdb", "llcm"])
    def test_visible_and_infrared_images_never_show_one_instant(self, smoke_sets: Sets, layout):
        poses = [json.dumps(row["pose"]) for row in truth(smoke_sets[layout][0])]

        assert len(set(poses)) == len(poses)


class TestLabelledLists:
    def test_labels_are_places_among_the_people_and_lines_keep_the_order_of_the_shots(self, tmp_path):
        shots = [Shot(person, 1, 1, 1, PurePosixPath(f"a b/{person}.jpg")) for person in (2, 3, 7)]

        write_labelled_list(tmp_path / "list.txt", shots, (2, 7))

        assert (tmp_path / "list.txt").read_text() == "a b/2.jpg 0\na b/7.jpg 1\n"


class TestRegdb:
    def test_large_has_the_published_people_and_images(self):
        plan = plan_regdb("large", 1, DEFAULT)
        counts = plan.counts(REGDB_STATIONS)

        # 412 people with 10 + 10 images are 8,240; half of them, 206, make 2,060 lines a list.
        assert len(plan.shots) == 8240
        for split in ("train", "test"):
            assert [counts[split][name] for name in ("people", "visible", "infrared")] == [206, 2060, 2060]

    def test_people_have_ten_bitmaps_of_each_modality_in_a_folder_of_their_number(self, smoke_sets: Sets):
        files = image_files(smoke_sets["regdb"][0])
        pattern = re.compile(r"(Visible|Thermal)/([1-9]\d*)/drawn_([vt])_\d{5}_(\d+)\.bmp")
        found = [pattern.fullmatch(path) for path in files]

        assert all(match and match[2] == match[4] and match[3] == match[1][0].lower() for match in found)
        folders = Counter((match[1], int(match[2])) for match in found)
        assert folders == {(name, person): 10 for name in ("Visible", "Thermal") for person in range(1, 25)}

    def test_bitmaps_hold_the_drawn_pixels_unchanged(self, smoke_sets: Sets):
        folder, _ = smoke_sets["regdb"]
        rows = truth(folder)

        for row in (rows[0], rows[-1]):
            pixels = np.asarray(Image.open(folder / row["path"]))
            assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["pixels"]

    def test_visible_images_are_of_camera_one_and_infrared_images_of_camera_two(self, smoke_sets: Sets):
        pairs = {(row["modality"], row["camera"]) for row in truth(smoke_sets["regdb"][0])}

        assert pairs == {("visible", 1), ("infrared", 2)}

    @pytest.mark.parametrize("trial", range(1, 11))
    def test_the_lists_of_a_trial_divide_the_people_into_two_halves(self, smoke_sets: Sets, trial):
        folder, _ = smoke_sets["regdb"]
        halves: dict[str, set[int]] = {}
        for split in ("train", "test"):
            people_of_modality = []
            for name in ("visible", "thermal"):
                entries = read_list(folder / "idx" / f"{split}_{name}_{trial}.txt")
                people = [int(PurePosixPath(path).parts[1]) for path, _ in entries]
                assert all(path.startswith(name.capitalize()) and (folder / path).is_file() for path, _ in entries)
                assert people == sorted(people)
                assert Counter(people) == dict.fromkeys(people, 10)
                # One label a person, from 0 without gaps, rising with the person.
                pairs = sorted({(label, person) for person, (_, label) in zip(people, entries, strict=True)})
                assert [label for label, _ in pairs] == list(range(12))
                assert [person for _, person in pairs] == sorted(set(people))
                people_of_modality.append(set(people))
            assert people_of_modality[0] == people_of_modality[1]
            halves[split] = people_of_modality[0]
        assert len(halves["train"]) == len(halves["test"]) == 12
        assert halves["train"] | halves["test"] == set(range(1, 25))

    def test_trials_divide_the_people_differently_and_the_description_is_of_the_first(self, smoke_sets: Sets):
        folder, _ = smoke_sets["regdb"]
        lists = [folder / "idx" / f"train_visible_{trial}.txt" for trial in range(1, 11)]
        halves = [frozenset(int(PurePosixPath(path).parts[1]) for path, _ in read_list(one)) for one in lists]

        assert len(set(halves)) == 10
        assert halves[0] == set(plan_regdb("smoke", 1, DEFAULT).people["train"])
        assert halves[0] != set(plan_regdb("smoke", 2, DEFAULT).people["train"])

    def test_the_adapter_reads_it_as_a_complete_drawn_data_set(self, smoke_sets: Sets):
        folder, _ = smoke_sets["regdb"]

        assert check_regdb(folder).passed
        data = read_regdb(folder, split=10)
        assert (data.kind, data.partial) == ("drawn", False)
        assert [len(table) for table in (*data.training.images, *data.test.images)] == [120, 120, 120, 120]


@pytest.fixture(scope="module")
def large() -> Plan:
    return plan_llcm("large", 1, DEFAULT)


class TestLlcm:
    def test_large_has_the_published_people_and_images(self, large):
        counts = large.counts(LLCM_STATIONS)

        assert {name: counts["train"][name] for name in ("people", "visible", "infrared")} == {
            "people": 713,
            "visible": 16946,
            "infrared": 13975,
        }
        assert {name: counts["test"][name] for name in ("people", "visible", "infrared")} == {
            "people": 351,
            "visible": 8680,
            "infrared": 7166,
        }
        assert len(large.shots) == 46767

    def test_images_are_spread_evenly_over_the_cameras_that_people_pass(self, large):
        for split, people in large.people.items():
            members = set(people)
            counts = Counter((shot.person, shot.station) for shot in large.shots if shot.person in members)
            for modality in Modality:
                numbers = [count for (_, station), count in counts.items() if LLCM_MODALITIES[station] is modality]
                assert max(numbers) - min(numbers) <= 1, (split, modality)

    @pytest.mark.parametrize("missing", [0.0, 0.1, 0.5])
    def test_everyone_keeps_two_visible_cameras_and_an_infrared_one(self, missing):
        plan = plan_llcm("demo", 1, DEFAULT.model_copy(update={"missing_camera": missing}))
        passed = {(shot.person, shot.station) for shot in plan.shots}

        for person in range(1, 151):
            by_modality = Counter(LLCM_MODALITIES[station] for its, station in passed if its == person)
            # Of two visible cameras at least one is another than the infrared camera.
            assert by_modality[Modality.VISIBLE] >= 2
            assert by_modality[Modality.INFRARED] >= 1
        if missing == 0.0:
            # 110 people at 18 stations, 40 at 17: there is no infrared test camera 3.
            assert len(passed) == 110 * 18 + 40 * 17

    def test_infrared_camera_three_has_training_images_and_no_test_images(self, large):
        infrared = {(shot.camera, shot.person <= 713) for shot in large.shots if shot.station > 30}

        assert infrared == {(camera, True) for camera in range(1, 10)} | {
            (camera, False) for camera in (1, 2, 4, 5, 6, 7, 8, 9)
        }

    def test_smoke_has_one_or_two_images_a_camera(self):
        counts = Counter((shot.person, shot.station) for shot in plan_llcm("smoke", 1, DEFAULT).shots)

        assert set(counts.values()) == {1, 2}

    def test_files_lie_where_their_names_say(self, smoke_sets: Sets):
        folder, _ = smoke_sets["llcm"]
        pattern = re.compile(
            r"(?:(?P<train>vis|nir)|test_(?P<test>vis|nir)/cam(?P<camera>[1-9]))/(?P<person>\d{4})/"
            r"(?P<name>\d{4})_c0(?P<number>[1-9])_s\d{6}_f\d{6}_(?P<word>vis|nir)\.jpg"
        )
        for row in truth(folder):
            match = pattern.fullmatch(row["path"])
            assert match is not None, row["path"]
            assert (match["train"] or match["test"]) == match["word"]
            assert match["word"] == {"visible": "vis", "infrared": "nir"}[row["modality"]]
            assert int(match["person"]) == int(match["name"]) == row["person"]
            assert int(match["number"]) == row["camera"]
            assert match["camera"] in (None, match["number"])
            assert (match["test"] is not None) == (row["person"] > 12)

    def test_lists_name_every_image_with_one_label_a_person(self, smoke_sets: Sets):
        folder, _ = smoke_sets["llcm"]
        listed: list[str] = []
        for split, people in (("train", range(1, 13)), ("test", range(13, 21))):
            for word in ("vis", "nir"):
                entries = read_list(folder / "idx" / f"{split}_{word}.txt")
                listed += [path for path, _ in entries]
                pairs = {(label, int(PurePosixPath(path).name[:4])) for path, label in entries}
                assert pairs == set(enumerate(people))

        assert sorted(listed) == sorted(image_files(folder))
        assert (folder / "idx" / "test_id.txt").read_text() == "13,14,15,16,17,18,19,20\n"

    def test_the_adapter_reads_it_as_a_complete_drawn_data_set(self, smoke_sets: Sets):
        folder, _ = smoke_sets["llcm"]

        assert check_llcm(folder).passed
        data = read_llcm(folder)
        assert (data.kind, data.partial) == ("drawn", False)
        assert [len(table) for table in (*data.training.images, *data.test.images)] == [140, 112, 80, 64]


@pytest.fixture(scope="module")
def rows(smoke_sets: Sets) -> list[dict[str, str]]:
    """Of the manifest."""
    with (smoke_sets["manifest"][0] / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


class TestManifest:
    def test_rows_are_the_images_of_the_sysu_layout_in_other_folders(self, smoke_sets: Sets, rows):
        sysu = truth(smoke_sets["sysu"][0])

        assert list(rows[0]) == ["path", "modality", "camera", "person", "split", "caption"]
        assert [row["path"] for row in rows] == [f"images/{row['path']}" for row in sysu]
        for name in ("modality", "camera", "person", "caption"):
            assert [row[name] for row in rows] == [str(row[name]) for row in sysu]

    def test_files_decode_to_the_pixels_of_the_sysu_layout(self, smoke_sets: Sets, rows):
        folder, original = smoke_sets["manifest"][0], smoke_sets["sysu"][0]

        assert len(rows) == 363
        for row in rows:
            with Image.open(folder / row["path"]) as one, Image.open(original / row["path"][7:]) as other:
                assert one.mode == other.mode
                assert one.tobytes() == other.tobytes()

    def test_splits_are_the_lists_of_the_sysu_layout(self, smoke_sets: Sets, rows):
        for split in ("train", "val", "test"):
            listed = (smoke_sets["sysu"][0] / "exp" / f"{split}_id.txt").read_text().strip().split(",")
            assert {row["person"] for row in rows if row["split"] == split} == set(listed)


def test_a_plan_is_laid_out_whatever_was_laid_out_before():
    first = plan_llcm("smoke", 1, DEFAULT)
    plan_llcm("smoke", 2, DEFAULT)

    assert plan_llcm("smoke", 1, DEFAULT) == first
    assert plan_llcm("smoke", 2, DEFAULT) != first
    assert dataclasses.replace(first, shots=tuple(sorted(first.shots))) == first
