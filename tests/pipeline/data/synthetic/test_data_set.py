import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from models.modality import Modality
from pipeline.data.datasets.sysu import read_sysu_mm01
from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.images import Studio, StudioSettings
from pipeline.data.synthetic.knobs import DEFAULT
from pipeline.data.synthetic.layouts import plan_sysu
from pipeline.data.synthetic.people import COLOURS
from pipeline.data.synthetic.plan import Plan
from pipeline.data.synthetic.writer import SyntheticSummary, generate_dataset
from pipeline.errors import ConfigError, DataError

MODALITIES = {station.number: station.modality for station in SYSU_STATIONS}

# Images (people) of SYSU-MM01, computed from its permutation file; the sums are published.
LARGE = {
    "train": {1: (4721, 194), 2: (5753, 195), 3: (5929, 293), 4: (4821, 283), 5: (4989, 294), 6: (4000, 200)},
    "val": {1: (0, 0), 2: (0, 0), 3: (1980, 99), 4: (990, 99), 5: (984, 96), 6: (0, 0)},
    "test": {1: (1374, 56), 2: (1565, 56), 3: (1883, 93), 4: (1918, 94), 5: (1918, 95), 6: (1920, 96)},
}


@pytest.fixture(scope="module")
def large() -> Plan:
    return plan_sysu("large", 1, DEFAULT)


@pytest.fixture(scope="module")
def drawn(smoke_sets: dict[str, tuple[Path, SyntheticSummary]]) -> tuple[Path, SyntheticSummary]:
    return smoke_sets["sysu"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_large_has_the_counts_of_sysu_mm01_in_every_camera_and_split(large):
    counts = large.counts(SYSU_STATIONS)

    for split, cameras in LARGE.items():
        for camera, (images, people) in cameras.items():
            assert counts[split]["cameras"][str(camera)] == {"images": images, "people": people}
    assert {split: counts[split]["people"] for split in counts} == {"train": 296, "val": 99, "test": 96}
    # 22,258 and 11,909 are what every paper trains on; 6,775 and 3,803 are the published test images.
    assert counts["train"]["visible"] + counts["val"]["visible"] == 22258
    assert counts["train"]["infrared"] + counts["val"]["infrared"] == 11909
    assert (counts["test"]["visible"], counts["test"]["infrared"]) == (6775, 3803)
    assert len(large.shots) == 44745


def test_images_of_large_are_spread_evenly_inside_a_camera_and_split(large):
    split_of = {person: split for split, people in large.people.items() for person in people}
    counts = Counter((split_of[shot.person], shot.camera, shot.person) for shot in large.shots)

    for split, camera in {key[:2] for key in counts}:
        numbers = [count for key, count in counts.items() if key[:2] == (split, camera)]
        assert max(numbers) - min(numbers) <= 1


def test_validation_people_pass_cameras_three_to_five_only(large):
    for plan in (large, plan_sysu("demo", 1, DEFAULT)):
        members = set(plan.people["val"])
        assert {shot.camera for shot in plan.shots if shot.person in members} == {3, 4, 5}


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5])
def test_everyone_keeps_two_visible_cameras_and_an_infrared_one(missing):
    plan = plan_sysu("demo", 2, DEFAULT.model_copy(update={"missing_camera": missing}))
    passed = {(shot.person, shot.camera) for shot in plan.shots}

    for person in range(1, plan.num_people + 1):
        cameras = [MODALITIES[camera] for its, camera in passed if its == person]
        assert cameras.count(Modality.VISIBLE) >= 2
        assert cameras.count(Modality.INFRARED) >= 1


def test_no_camera_is_missing_when_the_knob_is_zero_and_about_as_many_as_it_says_otherwise():
    counted = dict.fromkeys((0.0, 0.1), 0)
    for missing in counted:
        plan = plan_sysu("demo", 1, DEFAULT.model_copy(update={"missing_camera": missing}))
        counted[missing] = len(
            {(shot.person, shot.camera) for shot in plan.shots if shot.person in plan.people["train"]}
        )

    # 110 people and 6 cameras; a tenth of 660 is 66, less what the minimum of cameras keeps; standard deviation 7.7.
    assert counted[0.0] == 660
    assert 30 <= 660 - counted[0.1] <= 90


def test_demo_test_people_have_ten_images_a_camera_for_ten_shot_galleries():
    plan = plan_sysu("demo", 1, DEFAULT)
    members = set(plan.people["test"])
    counts = Counter((shot.person, shot.camera) for shot in plan.shots if shot.person in members)

    assert set(counts.values()) == {10}


def test_shots_are_in_adapter_order_and_numbered_from_one_without_gaps(large):
    assert list(large.shots) == sorted(large.shots)
    for plan in (large, plan_sysu("smoke", 1, DEFAULT)):
        folders: dict[tuple[int, int], list[int]] = {}
        for shot in plan.shots:
            folders.setdefault((shot.person, shot.camera), []).append(shot.index)
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in folders.values())


def test_a_subset_drawn_alone_has_the_pixels_of_the_whole(drawn):
    folder, _ = drawn
    rows = lines(folder / "truth" / "images.jsonl")
    studio = Studio(StudioSettings(1, 24, DEFAULT, SYSU_STATIONS, 48, 24))
    row = rows[200]

    portrait = studio.draw(row["person"], row["camera"], int(Path(row["path"]).stem))

    assert hashlib.sha256(portrait.pixels.tobytes()).hexdigest() == row["pixels"]
    assert portrait.caption == row["caption"]
    stored = np.asarray(Image.open(folder / row["path"]))
    # JPEG changes pixels a little; another image would differ by far more.
    assert np.abs(stored.astype(float) - portrait.pixels).mean() < 8


def test_another_seed_gives_another_digest(drawn, tmp_path):
    _, summary = drawn

    other = generate_dataset(tmp_path / "other", size="smoke", seed=2, height=48, width=24, workers=1)

    assert other.pixel_digest != summary.pixel_digest


def test_every_file_lies_where_the_layout_says_and_counts_agree(drawn):
    folder, summary = drawn
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("cam*/*/*"))

    assert all(re.fullmatch(r"cam[1-6]/\d{4}/\d{4}\.jpg", path) for path in files)
    assert len(files) == summary.num_visible + summary.num_infrared
    assert summary.num_people == 24
    counts = json.loads((folder / "drawn.json").read_text())["counts"]
    assert sum(counts[split]["visible"] for split in counts) == summary.num_visible
    assert sum(counts[split]["infrared"] for split in counts) == summary.num_infrared


def test_infrared_files_hold_one_channel(drawn):
    folder, _ = drawn

    assert Image.open(next(folder.glob("cam3/*/0001.jpg"))).mode == "L"
    assert Image.open(next(folder.glob("cam1/*/0001.jpg"))).mode == "RGB"


def test_text_lists_and_matlab_lists_agree_and_split_the_people(drawn):
    folder, _ = drawn
    seen: list[int] = []
    for name in ("train", "val", "test"):
        text = [int(number) for number in (folder / "exp" / f"{name}_id.txt").read_text().split(",")]
        matrix = loadmat(folder / "exp" / f"{name}_id.mat")["id"]
        assert matrix.shape == (1, len(text))
        assert matrix.dtype == np.uint16
        assert matrix[0].tolist() == text
        seen += text
    assert sorted(seen) == list(range(1, 25))


def test_the_permutation_file_is_nested_as_the_original_and_fits_the_folders(drawn):
    folder, _ = drawn
    cells = loadmat(folder / "exp" / "rand_perm_cam.mat")["rand_perm_cam"]

    assert cells.shape == (6, 1)
    lengths = set()
    for camera in range(1, 7):
        people = cells[camera - 1, 0].ravel()
        lengths.add(len(people))
        for person, cell in enumerate(people, start=1):
            num_images = len(list((folder / f"cam{camera}" / f"{person:04d}").glob("*.jpg")))
            if num_images == 0:
                assert cell.size == 0
            else:
                assert cell.shape == (10, num_images)
                assert (np.sort(cell, axis=1) == np.arange(1, num_images + 1)).all()
    # As in the original, the cells of the cameras that validation people never pass are fewer.
    assert len(lengths) > 1


def test_the_adapter_reads_it_as_a_complete_drawn_data_set(drawn):
    folder, summary = drawn

    data = read_sysu_mm01(folder, split="train_val")

    assert data.kind == "drawn"
    assert not data.partial
    visible = len(data.training.images.visible.paths) + len(data.test.images.visible.paths)
    assert visible == summary.num_visible


def test_captions_name_no_person_and_infrared_ones_say_that_they_are(drawn):
    folder, summary = drawn
    rows = lines(folder / "captions.jsonl")

    assert len(rows) == summary.num_visible + summary.num_infrared
    assert all(set(row) == {"path", "modality", "caption"} for row in rows)
    for row in rows:
        if row["modality"] == "infrared":
            assert "infrared" in row["caption"]


def test_the_description_says_that_this_is_drawn_and_how(drawn):
    folder, summary = drawn
    facts = json.loads((folder / "drawn.json").read_text())

    assert facts["kind"] == "drawn"
    assert facts["note"] == "drawn, not photographed"
    assert facts["pixel_digest"] == summary.pixel_digest
    assert facts["knobs"] == DEFAULT.model_dump()
    assert (facts["size"], facts["layout"], facts["seed"], facts["height"], facts["width"]) == (
        "smoke",
        "sysu",
        1,
        48,
        24,
    )


def test_truth_describes_every_person_and_image(drawn):
    folder, summary = drawn

    assert [row["number"] for row in lines(folder / "truth" / "people.jsonl")] == list(range(1, 25))
    assert len(lines(folder / "truth" / "images.jsonl")) == summary.num_visible + summary.num_infrared


def test_nothing_is_left_behind_when_drawing_fails(tmp_path, monkeypatch):
    def fail(self, *key):
        raise OSError("disk full")

    monkeypatch.setattr(Studio, "draw", fail)

    with pytest.raises(OSError, match="disk full"):
        generate_dataset(tmp_path / "set", size="smoke", workers=1)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_not_written_into(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")

    with pytest.raises(DataError, match="not empty"):
        generate_dataset(tmp_path, size="smoke")

    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("name", "value"), [("size", "huge"), ("layout", "market"), ("difficulty", "cruel")])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(tmp_path, name, value):
    with pytest.raises(ConfigError) as caught:
        generate_dataset(tmp_path / "set", **{"size": "smoke", name: value})

    assert value in caught.value.message
    assert "one of" in caught.value.hint


def test_colour_names_are_words_of_visible_captions(drawn):
    folder, _ = drawn
    words = {
        word
        for row in lines(folder / "captions.jsonl")
        if row["modality"] == "visible"
        for word in re.findall(r"[a-z]+", row["caption"])
    }

    assert len(words & set(COLOURS)) >= 6


def test_infrared_captions_name_colours_as_often_as_the_knob_says(tmp_path):
    shares = {}
    for share in (0.0, 1.0):
        knobs = DEFAULT.model_copy(update={"infrared_colours": share, "caption_noise": 0.0})
        folder = tmp_path / str(share)
        generate_dataset(folder, size="smoke", height=48, width=24, workers=1, knobs=knobs)
        captions = [row["caption"] for row in lines(folder / "captions.jsonl") if row["modality"] == "infrared"]
        shares[share] = sum(bool(set(re.findall(r"[a-z]+", one)) & set(COLOURS)) for one in captions) / len(captions)

    assert shares == {0.0: 0.0, 1.0: 1.0}


def test_visible_captions_and_pixels_do_not_depend_on_colours_of_infrared_ones(drawn, tmp_path):
    folder, summary = drawn
    knobs = DEFAULT.model_copy(update={"infrared_colours": 1.0})

    other = generate_dataset(tmp_path / "set", size="smoke", height=48, width=24, workers=1, knobs=knobs)

    assert other.pixel_digest == summary.pixel_digest
    visible = [
        [row for row in lines(place / "captions.jsonl") if row["modality"] == "visible"]
        for place in (folder, other.folder)
    ]
    assert visible[0] == visible[1]
