"""Galleries in Milvus: images and strangers are found, deleted, and found nowhere by a second search."""

import logging
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.errors import ConfigError, DataError
from pipeline.inference.false_match import FalseMatch
from pipeline.inference.groups import SINGLE
from pipeline.inference.index import GallerySource, open_gallery
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.milvus_address import MilvusAddress, address_of
from pipeline.inference.milvus_calibration import calibrate_index, calibration_store, calibrations_of
from pipeline.inference.milvus_gallery import MilvusGallery, find_milvus, open_milvus
from pipeline.inference.milvus_store import MilvusStore
from pipeline.privacy.forgetting import Places, Report, Sources, forget, search
from pipeline.privacy.selection import Selection, images_of_camera, images_of_list, images_of_person
from tests.pipeline.inference.mean_encoder import MeanEncoder, needs_milvus, paint
from tests.pipeline.privacy.small_site import anna, forget_now, make_index, make_site

pytestmark = needs_milvus

VECTORS = "vectors of a gallery in Milvus"
STRANGERS = "vectors of strangers in a calibration"


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_site(tmp_path / "site")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(f"milvus://{tmp_path}/g.db?collection=day")


def address(place: Path) -> MilvusAddress:
    found = address_of(place)
    assert found is not None
    return found


def gallery_of(source: Path, place: Path) -> MilvusGallery:
    found, _ = open_or_refresh(GallerySource(source, Modality.VISIBLE), place, Path(), MeanEncoder(), batch_size=4)
    assert isinstance(found, MilvusGallery)
    return found


def calibrate(gallery: MilvusGallery, site: Path) -> None:
    """With 25 strangers in 25 images, and two of Anna's."""
    random = np.random.default_rng(3)
    paths = [f"strangers/{number}.png" for number in range(25)]
    for path in paths:
        paint(site / path, tuple(random.integers(0, 250, 3).tolist()))
    names = [*paths, "night/anna/1.png", "night/anna/2.png"]
    (site / "strangers.txt").write_text("\n".join(names) + "\n")
    images = list_images(site / "strangers.txt", Modality.INFRARED)
    calibrate_index(gallery, gallery.store.address, MeanEncoder(), images, batch_size=4)


def paths_in(place: Path) -> list[str]:
    return sorted(file.path for _, file in open_milvus(address(place), None).store.files())


def chances(place: Path) -> FalseMatch | None:
    return calibrations_of(open_milvus(address(place), None), address(place)).get(SINGLE)


def strangers_in(place: Path) -> list[str]:
    store = calibration_store(open_milvus(address(place), None))
    return [] if store is None else sorted(file.path for _, file in store.files())


def looked(selection: Selection, folder: Path, *also: Path) -> Report:
    places = Places(folder / "runs", folder / "indexes", also)
    return forget(selection, places, Sources(), really=False)


def test_a_person_is_listed_then_deleted_with_her_images_among_the_strangers(
    manifest: Path, place: Path, tmp_path: Path
) -> None:
    calibrate(gallery_of(manifest, place), manifest.parent)
    before = chances(place)
    report = looked(anna(manifest), tmp_path, place)
    (trace,) = report.traces
    assert looked(anna(manifest), tmp_path, place, place).traces == report.traces
    assert trace == {"place": str(address(place)), "what": VECTORS, "images": 4, "deed": "deleted"}
    assert not report.done and str(address(place)) in report.searched
    assert len(paths_in(place)) == 6 and len(strangers_in(place)) == 27
    report = forget_now(anna(manifest), tmp_path, place)
    assert report.complete and any(f"stay in {tmp_path}/g.db until" in note for note in report.notes)
    assert paths_in(place) == ["day/3/1.png", "day/3/2.png", "day/ben/1.png", "day/ben/2.png"]
    record = open_milvus(address(place), None).record
    assert (record.images, record.cameras, record.span is None) == (4, {"day": 4}, False)
    assert strangers_in(place) == sorted(f"strangers/{number}.png" for number in range(25))
    after = chances(place)
    assert before is not None and after is not None and (len(before.scores), len(after.scores)) == (27, 25)
    calibrate(open_milvus(address(place), None), manifest.parent)  # of what is left, and all strangers
    again = chances(place)
    assert again is not None and set(after.scores.tolist()) < set(again.scores.tolist())
    assert looked(images_of_list(manifest.parent / "day" / "ben"), tmp_path, place).traces[0]["images"] == 2


def test_strangers_alone(manifest: Path, place: Path, tmp_path: Path) -> None:
    calibrate(gallery_of(manifest, place), manifest.parent)
    selection = images_of_list(manifest.parent / "night" / "anna")
    assert [(trace["what"], trace["images"]) for trace in looked(selection, tmp_path, place).traces] == [(STRANGERS, 2)]
    assert forget_now(selection, tmp_path, place).complete
    found = chances(place)
    assert found is not None and len(found.scores) == 25 and len(paths_in(place)) == 6


def test_too_few_strangers_are_left(
    manifest: Path, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    calibrate(gallery_of(manifest, place), manifest.parent)
    (manifest.parent / "some.txt").write_text("".join(f"strangers/{number}.png\n" for number in range(9)))
    assert forget_now(images_of_list(manifest.parent / "some.txt"), tmp_path, place).complete
    assert "is removed: 18 strangers can be compared" in caplog.text and strangers_in(place) == []


def test_names_that_the_manifest_has_lost_are_those_of_the_gallery_which_is_changed_last(
    manifest: Path, place: Path, tmp_path: Path
) -> None:
    gallery_of(manifest, place)
    make_index(manifest.parent / "day", tmp_path / "indexes" / "day")
    manifest.write_text("".join(line for line in manifest.open() if "anna" not in line))
    with pytest.raises(DataError, match=r"names no image of person anna, and neither does an index of it in no$"):
        images_of_person("anna", manifest, None, Path("no"))
    with pytest.raises(DataError, match=r"in no, milvus://.*/g.db\?collection=night"):
        images_of_person(
            "anna", manifest, None, Path("no"), [address(Path(f"milvus://{tmp_path}/g.db?collection=night"))]
        )
    selection = images_of_person("anna", manifest, None, Path("no"), [address(place)])
    assert selection.names.files == tuple(manifest.parent / f"day/anna/{shot}.png" for shot in (1, 2))
    of_camera = images_of_camera("day", None, manifest, None, Path("no"), [address(place)])
    assert set(selection.names.files) < set(of_camera.names.files)
    traces = search(selection, Places(tmp_path / "runs", tmp_path / "indexes", (place,))).traces
    assert [trace.what for trace in traces] == ["vectors of an index", VECTORS]
    assert forget_now(selection, tmp_path, place).complete and len(paths_in(place)) == 4


def test_a_gallery_of_one_person_is_removed_with_its_calibration(manifest: Path, place: Path, tmp_path: Path) -> None:
    folder = manifest.parent / "day" / "anna"
    calibrate(gallery_of(folder, place), manifest.parent)
    assert looked(images_of_list(folder), tmp_path, place).traces[0]["deed"] == "the collection is removed"
    report = forget_now(images_of_list(folder), tmp_path, place)
    assert report.complete and str(address(place)) in report.searched
    assert not any("stay in" in note for note in report.notes)  # milvus-lite removes the files of a collection at once
    assert find_milvus(address(place), None) is None
    store = gallery_of(manifest, place).store  # a new one, which is not calibrated
    assert not store.client.has_collection("day_calibration")


def test_a_damaged_calibration_is_removed(manifest: Path, place: Path, tmp_path: Path) -> None:
    gallery = gallery_of(manifest, place)
    calibrate(gallery, manifest.parent)
    store = calibration_store(gallery)
    assert store is not None
    store.write_record({"format": "calibration-1"}, 12)
    ben = images_of_person("ben", manifest, None, Path("no"))
    report = forget_now(ben, tmp_path, place)
    assert report.complete and report.traces[0]["deed"] == "deleted, and the damaged calibration is removed"
    assert len(paths_in(place)) == 4 and strangers_in(place) == []
    calibrate(gallery, manifest.parent)
    store.write_record({"format": "calibration-1"}, 12)
    report = forget_now(ben, tmp_path, place)
    assert [(trace["what"], trace["images"]) for trace in report.traces] == [(STRANGERS, None)]
    assert report.complete and len(paths_in(place)) == 4 and strangers_in(place) == []


@pytest.mark.parametrize("before", [True, False])
def test_a_killed_deletion_goes_on(
    manifest: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    calibrate(gallery_of(manifest, place), manifest.parent)
    original = MilvusStore.remove

    def die(store: MilvusStore, rows: tuple[int, ...]) -> None:
        if store.address.collection == "day_calibration":
            original(store, rows)
            return
        if not before:
            original(store, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MilvusStore, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            forget_now(anna(manifest), tmp_path, place)
    assert chances(place) is None
    report = forget_now(anna(manifest), tmp_path, place)
    assert report.complete and len(report.traces) == before and len(paths_in(place)) == 4
    manifest.write_text("".join(line for line in manifest.open() if "anna" not in line))
    found = gallery_of(manifest, place) and chances(place)
    assert found is not None and len(found.scores) == 25


def test_compaction_is_requested_once_the_rows_are_deleted(
    manifest: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery_of(manifest, place)
    requests: list[tuple[str, int]] = []

    def request(_: object, name: str) -> int:
        requests.append((name, len(paths_in(place))))
        return 1

    monkeypatch.setattr("pymilvus.MilvusClient.compact", request)
    assert forget_now(anna(manifest), tmp_path, place).complete and requests == [("day", 4)]


def test_a_server_is_named_with_what_it_keeps(manifest: Path, tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "served"), "127.0.0.1", 0)
    try:
        place = Path(f"milvus://127.0.0.1:{port}?collection=day")
        gallery_of(manifest, place)
        report = forget_now(anna(manifest), tmp_path, place)
        assert report.complete and len(paths_in(place)) == 4
        assert any(f"{address(place)}: deleted vectors stay in the files of the server" in one for one in report.notes)
    finally:
        server.stop(grace=0)
        database.close()


def test_a_place_without_a_gallery_is_noted(manifest: Path, place: Path, tmp_path: Path) -> None:
    make_index(manifest, tmp_path / "indexes" / "site")
    other = Path(f"milvus://{tmp_path}/g.db?collection=other")
    gallery_of(manifest, other)
    missing = Path(f"milvus://{tmp_path}/none.db")
    report = forget_now(anna(manifest), tmp_path, place, missing)
    assert report.complete and not (tmp_path / "none.db").exists() and len(paths_in(other)) == 6
    absent = [str(address(one)) for one in (place, missing)]
    assert {f"{one} does not exist: it is not searched" for one in absent} <= set(report.notes)
    assert not any(one in report.searched for one in absent)
    with pytest.raises(DataError, match=r"nothing to search: .*/runs, .*/none, milvus:.*collection=day do not exist"):
        forget(anna(manifest), Places(tmp_path / "runs", tmp_path / "none", (place,)), Sources(), really=False)


def test_a_database_that_cannot_be_opened_is_no_success(manifest: Path, tmp_path: Path) -> None:
    make_index(manifest, tmp_path / "indexes" / "site")
    (tmp_path / "notes.db").write_text("of mine")
    report = forget_now(anna(manifest), tmp_path, Path(f"milvus://{tmp_path}/notes.db"), delete_files=True)
    assert not report.complete and "notes.db exists and is no database of milvus-lite" in report.unread[0]
    assert len(open_gallery(tmp_path / "indexes" / "site", "mean").files) == 4
    assert (manifest.parent / "day/anna/1.png").exists()


def test_a_database_below_a_searched_folder_is_named_unless_it_is_searched(manifest: Path, tmp_path: Path) -> None:
    place = Path(f"milvus://{tmp_path}/out/g.db?collection=day")
    gallery_of(manifest, place)
    note = f"{tmp_path}/out/g.db is not searched: name its galleries with --also milvus:{tmp_path}/out/g.db"
    assert note in looked(anna(manifest), tmp_path, tmp_path / "out").notes
    assert not any(
        "is not searched: name" in one for one in looked(anna(manifest), tmp_path, tmp_path / "out", place).notes
    )


def test_a_wrong_address_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a server with its port nor a file"):
        looked(anna(manifest), tmp_path, Path("milvus://host"))


def test_a_gallery_that_was_removed_meanwhile_is_done(manifest: Path, place: Path, tmp_path: Path) -> None:
    gallery = gallery_of(manifest, place)
    (trace,) = search(anna(manifest), Places(tmp_path / "runs", tmp_path / "indexes", (place,))).traces
    trace.forget()
    trace.forget()
    assert len(paths_in(place)) == 4
    gallery.store.drop()
    trace.forget()
    assert find_milvus(address(place), None) is None
