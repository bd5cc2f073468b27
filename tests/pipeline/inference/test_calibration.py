"""What a score means: rates of false matches of strangers, kept with the index."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import ListedImage, list_images
from pipeline.errors import ConfigError, DataError
from pipeline.inference.calibration import (
    Strangers,
    best_scores,
    calibrate_gallery,
    calibrations,
    read_calibrations,
)
from pipeline.inference.false_match import FalseMatch
from pipeline.inference.groups import SINGLE, Entries, Grouping, group_entries
from pipeline.inference.index import GallerySource, open_gallery
from pipeline.inference.index_refresh import refresh_gallery
from pipeline.inference.searching import search_gallery
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

FOLDERS = Grouping("folder", "folder")


def best_of_strangers(number: int, seed: int, gallery: int = 400, dim: int = 32) -> np.ndarray:
    """Highest cosine of random directions to those of a gallery."""
    there = np.random.default_rng(0).standard_normal((gallery, dim))
    asking = np.random.default_rng(seed).standard_normal((number, dim))
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (asking, there)]
    best: np.ndarray = (units[0] @ units[1].T).max(axis=1)
    return best


def sampled_people(number: int, seed: int, dim: int = 32) -> np.ndarray:
    """Two images a person, [number, 2, dim]: directions around the person's own."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((number, 1, dim)) + 0.5 * random.standard_normal((number, 2, dim))
    vectors: np.ndarray = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float32)
    return vectors


def in_folders(people: np.ndarray) -> Strangers:
    files = tuple(ListedImage(f"{person}/{image}.png") for person in range(len(people)) for image in range(2))
    return Strangers("", files, people.reshape(len(files), -1))


class TestRates:
    @pytest.mark.parametrize("grouping", [SINGLE, FOLDERS], ids=["single", "groups on both sides"])
    def test_stated_rates_hold_for_other_people(self, grouping: Grouping) -> None:
        people, others = sampled_people(100, 0), sampled_people(30_000, 2)
        gallery = in_folders(people)

        def best_of(asking: Entries, one: Grouping) -> np.ndarray:
            return best_scores(asking, group_entries(gallery.files, gallery.vectors, one.gallery, one.by))

        calibration = calibrations(in_folders(sampled_people(10_000, 1)), [grouping], best_of)[grouping]
        if grouping == FOLDERS:
            people, others = (side.mean(axis=1) for side in (people, others))
            people, others = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (people, others))
        best = (others.reshape(-1, 32) @ people.reshape(-1, 32).T).max(axis=1)
        for rate in (0.1, 0.01, 0.001):
            assert rate / 1.5 < np.mean(best >= calibration.score_at(rate)) < 1.5 * rate

    def test_a_stated_rate_is_that_of_other_strangers(self) -> None:
        calibration, others = FalseMatch.fit(best_of_strangers(20_000, 1)), best_of_strangers(100_000, 2)
        for rate in (0.5, 0.1, 0.01, 0.001):
            threshold = calibration.score_at(rate)
            assert rate / 1.5 < np.mean(others >= threshold) < 1.5 * rate
            assert calibration.rates(np.array([threshold]))[0] == pytest.approx(rate, rel=0.01)

    def test_a_few_strangers_who_look_like_people_of_the_gallery(self) -> None:
        def sampled(number: int, seed: int) -> np.ndarray:
            random = np.random.default_rng(seed)
            return random.normal(np.where(random.random(number) < 0.02, 0.7, 0.5), 0.05)

        calibration, others = FalseMatch.fit(sampled(20_000, 1)), sampled(200_000, 2)
        for rate in (0.1, 0.01, 0.001):
            assert rate / 1.5 < np.mean(others >= calibration.score_at(rate)) < 1.5 * rate

    def test_rates_fall_with_the_score_and_end_at_one_in_n(self) -> None:
        calibration = FalseMatch.fit(best_of_strangers(500, 1))
        rates = calibration.rates(np.linspace(-1, 1, 1_000))
        assert rates[0] == 1 and rates[-1] == 1 / 500 and (np.diff(rates) <= 0).all()

    def test_equal_scores(self) -> None:
        calibration = FalseMatch.fit(np.full(50, 0.5))
        assert calibration.rates(np.array([0.5, 0.6])).tolist() == [1, 0.02]

    def test_too_few_strangers(self) -> None:
        with pytest.raises(ValueError, match="19 strangers are too few"):
            FalseMatch.fit(np.arange(19.0))
        with pytest.raises(ValueError, match=r"500 strangers are too few .* at least 1,000 are needed"):
            FalseMatch.fit(best_of_strangers(500, 1)).score_at(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A gallery of three colours in two folders, and strangers of other colours, three a folder."""
    for number, colour in enumerate([(250, 0, 0), (240, 20, 0), (0, 0, 250)]):
        paint(tmp_path / "day" / "ab"[number // 2] / f"{number}.png", colour)
    random = np.random.default_rng(5)
    for number in range(90):
        paint(
            tmp_path / "strangers" / f"{number // 3:02d}" / f"{number}.png", tuple(random.integers(0, 250, 3).tolist())
        )
    paint(tmp_path / "night" / "1.png", (250, 2, 1))
    paint(tmp_path / "night" / "2.png", (90, 90, 90))
    return tmp_path


def refreshed(site: Path, source: str = "day") -> Path:
    refresh_gallery(site / "index", MeanEncoder(), GallerySource(site / source, Modality.VISIBLE), batch_size=8)
    return site / "index"


def calibrated(site: Path, source: str = "day", strangers: str = "strangers") -> Path:
    index = refreshed(site, source)
    images = list_images(site / strangers, Modality.INFRARED)
    calibrate_gallery(index, MeanEncoder(), images, [FOLDERS], batch_size=8)
    return index


class TestCalibration:
    def test_hits_carry_chances_and_strangers_are_nobody(self, site: Path) -> None:
        index = calibrated(site)
        calibrations = read_calibrations(index, "mean")
        assert {name: len(one.scores) for name, one in calibrations.items()} == {SINGLE: 90, FOLDERS: 30}
        queries = list_images(site / "night", Modality.INFRARED)
        options = {"batch_size": 4, "calibrations": calibrations, "false_match": 0.2}
        result = search_gallery(MeanEncoder(), queries, open_gallery(index, "mean"), 2, **options)  # type: ignore[arg-type]
        same, grey = result.queries
        assert same.hits[0].one_in is not None and same.hits[0].one_in > 20 and result.threshold is not None
        assert all(hit.score >= result.threshold for hit in same.hits) and grey.hits == ()

    def test_a_refreshed_index_is_calibrated_again(self, site: Path) -> None:
        index = calibrated(site)
        before = read_calibrations(index, "mean")[SINGLE]
        paint(site / "day" / "c" / "grey.png", (90, 90, 90))
        refreshed(site)
        after = read_calibrations(index, "mean")[SINGLE]
        assert (after.scores >= before.scores).all() and (after.scores > before.scores).any()
        assert len(list(index.glob("calibration-*"))) == 1

    def test_a_strangers_own_images_are_left_out_by_name(self, site: Path) -> None:
        rows = [f"day/{'ab'[number // 2]}/{number}.png,visible,1,{number},gallery" for number in range(3)]
        rows += [f"strangers/{number // 3:02d}/{number}.png,infrared,2,{number % 3},query" for number in range(90)]
        (site / "m.csv").write_text("\n".join(["path,modality,camera,person,split", *rows]))
        index = calibrated(site, "m.csv", "m.csv")
        gallery, images = open_gallery(index, "mean"), list_images(site / "m.csv", Modality.INFRARED)
        scores = read_calibrations(index, "mean")[SINGLE].scores
        with np.load(next(index.glob("calibration-*"))) as kept:
            similarity = kept["vectors"] @ gallery.vectors.T
        people = [row % 3 for row in range(len(images))]
        similarity[np.arange(90), people] = -1
        np.testing.assert_allclose(scores, np.sort(similarity.max(axis=1)), atol=1e-6)

    def test_a_grouping_with_few_groups_is_skipped_and_the_others_are_kept(
        self, site: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        index, images = refreshed(site), list_images(site / "strangers", Modality.INFRARED)
        few = Grouping("{}/{ten}{}.png", "folder")
        found = calibrate_gallery(index, MeanEncoder(), images, [few, FOLDERS], batch_size=8)
        assert [*found] == [SINGLE, FOLDERS] == [*read_calibrations(index, "mean")]
        assert f"18 strangers can be compared with the gallery ({few})" in caplog.text
        assert "this grouping is not calibrated" in caplog.text


class TestNames:
    """Strangers who may be in the gallery."""

    @staticmethod
    def manifest(site: Path, strangers_named: int, gallery_named: int) -> str:
        rows = [
            f"day/{'ab'[number // 2]}/{number}.png,visible,1,{number if number < gallery_named else ''}"
            for number in range(3)
        ]
        rows += [
            f"strangers/{number // 3:02d}/{number}.png,infrared,2,{number // 3 if number < strangers_named else ''}"
            for number in range(90)
        ]
        lines = ["path,modality,camera,person,split", *(f"{row},train" for row in rows)]
        (site / "m.csv").write_text("\n".join(lines))
        return "m.csv"

    @pytest.mark.parametrize(("strangers", "gallery"), [(90, 0), (0, 3), (60, 2)])
    def test_images_without_a_name_are_counted(
        self, site: Path, caplog: pytest.LogCaptureFixture, strangers: int, gallery: int
    ) -> None:
        manifest = self.manifest(site, strangers, gallery)
        calibrated(site, manifest, manifest)
        counts = f"{90 - strangers} of 90 images of strangers and {3 - gallery} of 3 of the gallery"
        assert f"{counts} have no person's name, and none of these is excluded" in caplog.text

    def test_strangers_with_names_of_the_gallery_are_counted(
        self, site: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        manifest = self.manifest(site, 90, 3)
        calibrated(site, manifest, manifest)
        assert "9 images of strangers show 3 people of the gallery, whose images are excluded by name" in caplog.text
        assert "no person's name" not in caplog.text

    def test_strangers_of_another_site(
        self, site: Path, caplog: pytest.LogCaptureFixture, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = tmp_path_factory.mktemp("other") / "night"
        shutil.move(site / "strangers", other)
        calibrated(site, strangers=str(other))
        assert "no stranger is in the gallery" in caplog.text and "both are below" not in caplog.text

    def test_two_folders_of_one_site(self, site: Path, caplog: pytest.LogCaptureFixture) -> None:
        calibrated(site)
        assert "90 of 90 images of strangers and 3 of 3 of the gallery have no person's name" in caplog.text
        assert f"both are below {site.resolve()}, as images of the same people would be" in caplog.text


class TestRefused:
    def test_a_calibration_of_another_index(self, site: Path) -> None:
        index = calibrated(site)
        paint(site / "day" / "d.png", (1, 200, 3))
        refresh_gallery(site / "other", MeanEncoder(), GallerySource(site / "day", Modality.VISIBLE), batch_size=8)
        record = json.loads((site / "other" / "index.json").read_text())
        shutil.copy(index / "calibration-000001.npz", site / "other")
        (site / "other" / "index.json").write_text(json.dumps(record | {"calibration": "calibration-000001.npz"}))
        with pytest.raises(DataError, match="is the calibration of another index"):
            read_calibrations(site / "other", "mean")

    def test_a_damaged_calibration_is_named_and_dropped_by_a_refresh(
        self, site: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        index = calibrated(site)
        (index / "calibration-000001.npz").write_bytes(b"PK\x03\x04 cut")
        with pytest.raises(DataError, match=r"calibration-000001\.npz"):
            read_calibrations(index, "mean")
        paint(site / "day" / "d.png", (1, 200, 3))
        refreshed(site)
        assert read_calibrations(index, "mean") == {} and "is dropped" in caplog.text

    def test_gallery_images_among_strangers(self, site: Path) -> None:
        shutil.copytree(site / "strangers", site / "day" / "same")
        index = refreshed(site)
        with pytest.raises(DataError, match="90 images are strangers and in the gallery"):
            calibrate_gallery(index, MeanEncoder(), list_images(site / "day" / "same", Modality.INFRARED), batch_size=8)

    def test_few_strangers(self, site: Path) -> None:
        index = refreshed(site)
        with pytest.raises(DataError, match="2 strangers can be compared with the gallery"):
            calibrate_gallery(index, MeanEncoder(), list_images(site / "night", Modality.INFRARED), batch_size=8)

    def test_a_cut_without_calibration(self, site: Path) -> None:
        gallery = open_gallery(refreshed(site), "mean")
        queries = list_images(site / "night", Modality.INFRARED)
        with pytest.raises(ConfigError, match="no calibration for single images"):
            search_gallery(MeanEncoder(), queries, gallery, 2, batch_size=4, false_match=0.1)
