"""What a score means: rates of false matches of strangers, kept with the index."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.errors import ConfigError, DataError
from pipeline.inference.calibration import calibrate_gallery, read_calibrations
from pipeline.inference.false_match import FalseMatch
from pipeline.inference.groups import SINGLE, Grouping
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


class TestRates:
    def test_a_stated_rate_is_that_of_other_strangers(self) -> None:
        calibration, others = FalseMatch.fit(best_of_strangers(20_000, 1)), best_of_strangers(100_000, 2)
        for rate in (0.5, 0.1, 0.01, 0.001):
            threshold = calibration.score_at(rate)
            assert rate / 1.5 < np.mean(others >= threshold) < 1.5 * rate
            assert calibration.rates(np.array([threshold]))[0] == pytest.approx(rate, rel=0.01)

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
