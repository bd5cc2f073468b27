"""Calibration of a gallery in Milvus: the scores of an index folder, kept beside the collection and made again."""

import logging
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.errors import ConfigError, DataError
from pipeline.inference import milvus_calibration
from pipeline.inference.calibration import Calibrations
from pipeline.inference.filters import Filters
from pipeline.inference.groups import SINGLE, Grouping
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.milvus_address import MilvusAddress, address_of
from pipeline.inference.milvus_calibration import calibrate_index, calibration_store, calibrations_of
from pipeline.inference.milvus_gallery import MilvusGallery, open_milvus
from pipeline.inference.milvus_store import MilvusStore
from pipeline.inference.searching import search_gallery
from pipeline.inference.served_gallery import Query, ServedGallery
from pipeline.inference.served_milvus import ServedMilvus, open_served
from tests.pipeline.inference.mean_encoder import MeanEncoder, needs_milvus, paint

pytestmark = needs_milvus

FOLDERS = Grouping("folder")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A gallery of five people in ten images, and 120 images of strangers, three a folder, some with a name of it."""
    random = np.random.default_rng(5)
    rows = ["path,modality,camera,person,split"]
    for number in range(10):
        colour = tuple(random.integers(0, 250, 3).tolist())
        paint(tmp_path / "day" / f"{number}.png", colour)
        rows.append(f'day/{number}.png,visible,1,"p""{number % 5}",train')
    for number in range(120):
        path = f"strangers/{number // 3:02d}/{number}.png"
        paint(tmp_path / path, tuple(random.integers(0, 250, 3).tolist()))
        name = f'"p""{number // 3}"' if number < 30 else ""
        rows.append(f"{path},infrared,2,{name},train")
    (tmp_path / "site.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "site.csv"


def place_of(site: Path, name: str = "day") -> MilvusAddress:
    address = address_of(Path(f"milvus://{site.parent}/g.db?collection={name}"))
    assert address is not None
    return address


def opened(site: Path, encoder: MeanEncoder | None = None, name: str = "day") -> MilvusGallery:
    gallery, _ = open_or_refresh(
        GallerySource(site, Modality.VISIBLE), Path(str(place_of(site, name))), site.parent,
        encoder or MeanEncoder(), batch_size=16,
    )  # fmt: skip
    assert isinstance(gallery, MilvusGallery)
    return gallery


def calibrated(site: Path, *groupings: Grouping, name: str = "day", strangers: Path | None = None) -> Calibrations:
    images = list_images(strangers or site, Modality.INFRARED)
    gallery = opened(site, name=name)
    return calibrate_index(gallery, gallery.store.address, MeanEncoder(), images, groupings, batch_size=16)


def kept(site: Path) -> Calibrations:
    """What is stored, without a refresh."""
    return calibrations_of(open_milvus(place_of(site), "mean"), place_of(site))


def in_folder(site: Path, *groupings: Grouping) -> Calibrations:
    source, images = GallerySource(site, Modality.VISIBLE), list_images(site, Modality.INFRARED)
    gallery, place = open_or_refresh(source, site.parent / "index", site.parent, MeanEncoder(), batch_size=16)
    calibrate_index(gallery, place, MeanEncoder(), images, groupings, batch_size=16)
    return calibrations_of(gallery, place)


def assert_same(found: Calibrations, expected: Calibrations) -> None:
    assert found.keys() == expected.keys()
    for grouping, one in found.items():
        np.testing.assert_allclose(one.scores, expected[grouping].scores, atol=1e-6)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def test_scores_are_those_of_an_index_folder_also_in_several_texts(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_calibration, "_SCORES", 7)
    found, expected = calibrated(site, FOLDERS), in_folder(site, FOLDERS)
    assert {name: len(one.scores) for name, one in expected.items()} == {SINGLE: 120, FOLDERS: 40}
    assert_same(found, expected)
    assert_same(kept(site), expected)
    assert kept(site)[SINGLE].scores.tolist() == found[SINGLE].scores.tolist()
    assert_same(calibrated(site), {SINGLE: expected[SINGLE]})  # again, in place of the former one
    assert_same(kept(site), {SINGLE: expected[SINGLE]})


def test_the_description_is_no_image_and_an_own_name_is_excluded(site: Path) -> None:
    store = opened(site).store
    away = -np.full((1, 12), 12**-0.5, np.float32)  # every image has a negative score, the description 0
    stored = store.get(range(1, 11))
    products = stored.vectors @ away[0]
    assert store.best(away, "")[0] == pytest.approx(products.max(), abs=1e-6) and products.max() < 0
    others = [product for product, file in zip(products, stored.files, strict=True) if file.person != 'p"1']
    assert store.best(away, 'p"1')[0] == pytest.approx(max(others), abs=1e-6)
    store.remove(range(1, 11))
    assert store.best(away, "")[0] == -np.inf


def test_searches_and_the_application_show_chances(site: Path) -> None:
    expected = in_folder(site)
    assert calibrations_of(opened(site), place_of(site)) == {}
    calibrated(site)
    for number, colour in enumerate([(200, 30, 90), (10, 20, 200), (120, 119, 60)]):
        paint(site.parent / "night" / f"{number}.png", colour)
    queries = list_images(site.parent / "night", Modality.INFRARED)
    results = [
        search_gallery(
            MeanEncoder(), queries, gallery, 3, batch_size=4, calibrations=calibrations, false_match=0.5
        ).queries
        for gallery, calibrations in (
            (opened(site), kept(site)),
            (open_or_refresh(
                GallerySource(site, Modality.VISIBLE), site.parent / "index", site.parent, MeanEncoder(), batch_size=4
            )[0], expected),
        )
    ]  # fmt: skip
    chances = [[hit.one_in for query in queries for hit in query.hits] for queries in results]
    assert chances[0] and chances[0] == pytest.approx(chances[1], rel=1e-2)
    source = GallerySource(site, Modality.VISIBLE)
    served, theirs = (
        open_served(source, index, MeanEncoder(), batch_size=4)
        for index in (Path(str(place_of(site))), site.parent / "index")
    )
    assert isinstance(served, ServedMilvus) and isinstance(theirs, ServedGallery)
    query = Query(opened(site).store.get([1]).vectors, 1)
    for false_match in (None, 0.2):
        ours, other = (one.find(query, 9, Filters(), false_match) for one in (served, theirs))
        assert [hit.path for hit in ours] == [hit.path for hit in other]
        assert [hit.one_in for hit in ours] == pytest.approx([hit.one_in for hit in other], rel=1e-2)
    assert 0 < len(ours) < 9 and ours[0].one_in is not None
    several = Query(query.vector, 2)
    assert [hit.one_in for hit in served.find(several, 2, Filters())] == [None, None]
    with pytest.raises(ConfigError, match="no calibration for queries by several images"):
        served.find(several, 2, Filters(), 0.2)


def test_a_refresh_compares_again_only_if_the_images_have_changed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = calibrated(site, FOLDERS)
    with monkeypatch.context() as patch:
        patch.setattr(MilvusStore, "best", lambda *_: pytest.fail("compared"))
        opened(site)
    assert_same(kept(site), before)
    paint(site.parent / "day" / "10.png", (90, 90, 90))
    site.write_text(site.read_text() + "day/10.png,visible,1,,train\n")
    (site.parent / "day" / "3.png").unlink()
    opened(site)
    after = kept(site)
    assert_same(after, in_folder(site, FOLDERS))
    assert (after[SINGLE].scores != before[SINGLE].scores).any()


def test_a_killed_refresh_leaves_no_old_chances(
    site: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    def kill(_: MilvusGallery) -> None:
        raise KeyboardInterrupt

    calibrated(site)
    (site.parent / "day" / "3.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.inference.milvus_refresh.renew_calibration", kill)
        with pytest.raises(KeyboardInterrupt):
            opened(site)
    assert kept(site) == {} and "does not fit the images of" in warnings.text
    with monkeypatch.context() as patch:
        patch.setattr(MilvusStore, "write_texts", die_at_scores)
        with pytest.raises(KeyboardInterrupt):
            opened(site)
    assert kept(site) == {}
    opened(site)
    assert_same(kept(site), in_folder(site))


def die_at_scores(store: MilvusStore, texts: dict[int, str], dim: int, write=MilvusStore.write_texts) -> None:  # type: ignore[no-untyped-def]
    if min(texts) < 0:
        raise KeyboardInterrupt
    write(store, texts, dim)


def test_a_killed_calibration_is_removed_by_the_next_refresh(
    site: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    opened(site)
    with monkeypatch.context() as patch:
        patch.setattr(MilvusStore, "put", die_at_strangers)
        with pytest.raises(KeyboardInterrupt):
            calibrated(site)
    assert kept(site) == {} and "does not fit" in warnings.text
    gallery = opened(site)
    assert "is unfinished: it has 0 of 120 strangers; calibrate again" in warnings.text
    assert calibration_store(gallery) is None


def die_at_strangers(store: MilvusStore, *_: object) -> None:
    raise KeyboardInterrupt


def test_a_calibration_of_another_encoder_is_not_used_and_removed(
    site: Path, warnings: pytest.LogCaptureFixture
) -> None:
    calibrated(site)
    opened(site).store.drop()
    gallery = opened(site, MeanEncoder("other"))
    assert "is removed: it is that of another encoder" in warnings.text
    assert calibration_store(gallery) is None


def test_a_grouping_that_no_longer_fits_removes_the_calibration(site: Path, warnings: pytest.LogCaptureFixture) -> None:
    calibrated(site)
    (site.parent / "day" / "3.png").unlink()
    store = calibration_store(open_milvus(place_of(site), "mean"))
    assert store is not None
    record = dict(store.record() or {})
    store.write_record(record | {"groupings": [{"query": "track", "gallery": "", "by": "mean"}]}, 12)
    opened(site)
    assert "is removed: none of 120 images has a track" in warnings.text


@pytest.mark.parametrize("text", ["[0.5", "[0.5, 0.6]", '{"a": 1}'])
def test_damaged_scores_are_named(site: Path, text: str) -> None:
    calibrated(site)
    store = calibration_store(open_milvus(place_of(site), "mean"))
    assert store is not None
    store.write_texts({-1: text}, 12)
    with pytest.raises(DataError, match="day_calibration is damaged"):
        kept(site)


def test_a_damaged_description_is_named_and_removed_by_a_refresh(
    site: Path, warnings: pytest.LogCaptureFixture
) -> None:
    calibrated(site)
    store = calibration_store(open_milvus(place_of(site), "mean"))
    assert store is not None
    store.write_record({"format": "calibration-1"}, 12)
    with pytest.raises(DataError, match="day_calibration is damaged"):
        kept(site)
    opened(site)
    assert "day_calibration is removed" in warnings.text and kept(site) == {}


def test_a_gallery_without_a_digest_is_calibrated_as_it_is_and_again_at_its_refresh(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(site).store
    record = dict(store.record() or {})
    del record["digest"]
    store.write_record(record, 12)
    gallery, images = open_milvus(place_of(site), "mean"), list_images(site, Modality.INFRARED)
    before = calibrate_index(gallery, gallery.store.address, MeanEncoder(), images, batch_size=16)
    assert_same(kept(site), before)
    compared, original = list[int](), MilvusStore.best

    def count(store: MilvusStore, queries: np.ndarray, without: str) -> np.ndarray:
        compared.append(len(queries))
        return original(store, queries, without)

    monkeypatch.setattr(MilvusStore, "best", count)
    opened(site)
    assert_same(kept(site), before)
    assert sum(compared) == 120


class TestRefused:
    def test_groups_of_gallery_images(self, site: Path) -> None:
        with pytest.raises(ConfigError, match="not by groups"):
            calibrated(site, Grouping("folder", "folder"))

    def test_images_of_the_gallery_without_a_name(self, site: Path) -> None:
        site.write_text(site.read_text().replace('"p""1"', ""))
        with pytest.raises(DataError, match=r"2 images are strangers and in the gallery, first: 1.png"):
            calibrated(site, strangers=site.parent / "day")

    def test_too_few_strangers_leave_the_former_calibration(self, site: Path) -> None:
        before = calibrated(site)
        with pytest.raises(DataError, match="3 strangers can be compared"):
            calibrated(site, strangers=site.parent / "strangers" / "20")
        assert_same(kept(site), before)

    def test_a_gallery_where_the_calibration_would_be(self, site: Path) -> None:
        gallery = opened(site)
        opened(site, name="day_calibration")
        assert calibrations_of(gallery, place_of(site)) == {}
        with pytest.raises(DataError, match="day_calibration is no calibration"):
            calibrated(site)
        assert opened(site, name="day_calibration").images == 10

    def test_a_calibration_named_as_a_gallery(self, site: Path) -> None:
        calibrated(site)
        with pytest.raises(DataError, match="has format 'calibration-1', expected 1"):
            opened(site, name="day_calibration")

    def test_a_name_that_is_too_long(self, site: Path) -> None:
        gallery = opened(site, name="d" * 244)
        assert calibrations_of(gallery, gallery.store.address) == {}
        with pytest.raises(ConfigError, match="with _calibration its name is too long"):
            calibrated(site, name="d" * 244)
