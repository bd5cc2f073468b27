"""Each place that keeps pixels, vectors or names of images is found, and afterwards they are found nowhere."""

import csv
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.data.store import paths_of_store
from pipeline.evaluation.feature_files import read_features, read_record
from pipeline.inference.calibration import calibrate_gallery, read_calibrations, strangers_of
from pipeline.inference.embedded_files import embed_to_file
from pipeline.inference.index import open_gallery
from pipeline.inference.search_page import write_search_page
from pipeline.inference.searching import search_gallery
from pipeline.privacy.forgetting import Places, Sources, forget, search
from pipeline.privacy.selection import images_of_list
from pipeline.runtime.atomic_files import write_json
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint
from tests.pipeline.privacy.small_site import (
    anna,
    forget_now,
    make_features,
    make_index,
    make_results,
    make_site,
    make_store,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`feedback.csv` of the working folder is searched, too."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


def found(manifest: Path, folder: Path, *also: Path) -> list[tuple[str, int | None]]:
    places = Places(folder / "runs", folder / "indexes", also)
    return [(trace.what, trace.images) for trace in search(anna(manifest), places).traces]


class TestDecodedImages:
    def test_a_store_with_the_person_is_removed_and_can_be_made_again(self, manifest: Path, tmp_path: Path) -> None:
        cache = tmp_path / "runs" / "images"
        with_anna = make_store(manifest, cache)
        others = manifest.with_name("others.csv")
        others.write_text("".join(line for line in manifest.open() if "anna" not in line))
        without_anna = make_store(others, cache)
        assert found(manifest, tmp_path) == [("decoded images", 4)]
        assert forget_now(anna(manifest), tmp_path).complete
        assert not with_anna.folder.exists() and without_anna.folder.is_dir()
        assert not any(path.is_dir() for path in cache.iterdir() if path != without_anna.folder)
        assert len(paths_of_store(make_store(manifest, cache).folder)) == 12

    @pytest.mark.parametrize("ending", ["partial", "outdated"])
    def test_what_a_kill_left_of_a_store_is_removed_because_it_may_hold_anyone(
        self, manifest: Path, tmp_path: Path, ending: str
    ) -> None:
        store = make_store(manifest, tmp_path / "runs" / "images").folder
        (store / "index.json").unlink()
        store.rename(store.with_name(f"{store.name}.{ending}"))
        assert found(manifest, tmp_path) == [("decoded images", None)]
        assert forget_now(anna(manifest), tmp_path).complete
        assert found(manifest, tmp_path) == []

    def test_a_cache_elsewhere_is_searched_if_it_is_named(self, manifest: Path, tmp_path: Path) -> None:
        make_store(manifest, tmp_path / "cache")
        assert found(manifest, tmp_path) == []
        assert found(manifest, tmp_path, tmp_path / "cache") == [("decoded images", 4)]


class TestIndexes:
    @pytest.mark.parametrize("kind", ["exact", "ivf"])
    def test_vectors_of_the_person_are_dropped_and_others_are_as_before(
        self, manifest: Path, tmp_path: Path, kind: str
    ) -> None:
        index = tmp_path / "indexes" / "site"
        before = make_index(manifest, index, kind)
        vectors = {file.path: before.vectors[row].copy() for row, file in enumerate(before.files)}
        assert forget_now(anna(manifest), tmp_path).complete
        after = open_gallery(index, "mean")
        assert [file.path for file in after.files] == [name for name in sorted(vectors) if "anna" not in name]
        np.testing.assert_array_equal(after.vectors, [vectors[file.path] for file in after.files])
        assert (after.lists is not None) == (kind == "ivf")
        assert len(list(index.glob("vectors-*"))) == len(list(index.glob("files-*"))) == 1
        assert "anna" not in (index / "files-000002.jsonl").read_text()

    def test_an_index_of_that_person_alone_is_removed(self, manifest: Path, tmp_path: Path) -> None:
        make_index(manifest.parent / "day" / "anna", tmp_path / "indexes" / "anna")
        assert forget_now(anna(manifest), tmp_path).complete
        assert [file.name for file in (tmp_path / "indexes" / "anna").iterdir()] == ["lock"]

    def test_the_index_names_a_person_whom_the_manifest_does_not_name_any_more(
        self, manifest: Path, tmp_path: Path
    ) -> None:
        make_index(manifest, tmp_path / "indexes" / "site")
        features = make_features(manifest, tmp_path / "vectors.npz")
        manifest.write_text("".join(line for line in manifest.open() if "anna" not in line))
        selection = anna(manifest, tmp_path / "indexes")
        assert len(selection.names) == 2  # the visible ones, which the index holds
        assert forget_now(selection, tmp_path, features).complete
        with np.load(features) as arrays:
            assert [path for path in arrays["paths"] if "anna" in path] == ["night/anna/1.png", "night/anna/2.png"]

    def test_strangers_in_a_calibration(self, manifest: Path, tmp_path: Path) -> None:
        """Two shots of each of 23 people: enough to calibrate without one of them."""
        for number in range(23):
            paint(tmp_path / "strangers" / f"{number}.png", (10 * number, 90, 9 * number))
        index = tmp_path / "indexes" / "site"
        make_index(manifest, index)
        strangers = list_images(tmp_path / "strangers", Modality.INFRARED)
        calibrate_gallery(index, MeanEncoder(), strangers, batch_size=4)
        one = images_of_list(tmp_path / "strangers" / "7.png")
        report = forget_now(one, tmp_path)
        assert report.complete
        assert [trace["what"] for trace in report.traces] == ["vectors of strangers in a calibration"]
        record = json.loads((index / "index.json").read_text())
        _, left = strangers_of(index / record["calibration"])
        assert len(left) == 22 and "7.png" not in left and len(open_gallery(index, "mean").files) == 6
        assert len(next(iter(read_calibrations(index, "mean").values())).scores) == 22

    def test_another_site_with_the_same_names_is_left_alone(self, manifest: Path, tmp_path: Path) -> None:
        other = make_site(tmp_path / "other")
        make_index(other, tmp_path / "indexes" / "other")
        assert found(manifest, tmp_path) == []

    def test_files_and_chunks_that_a_kill_left(self, manifest: Path, tmp_path: Path) -> None:
        index = tmp_path / "indexes" / "site"
        make_index(manifest, index)
        shutil.copy(index / "vectors-000001.npy", index / "vectors-000007.npy")
        begun = tmp_path / "indexes" / "begun" / "parts"
        begun.mkdir(parents=True)
        (begun.parent / "lock").touch()
        (begun / "000000.npz").write_bytes(b"")
        assert sorted(found(manifest, tmp_path), key=str) == [
            ("files of another generation of an index", None), ("unfinished chunks", None), ("vectors of an index", 2),
        ]  # fmt: skip
        assert forget_now(anna(manifest), tmp_path).complete
        assert not begun.exists() and len(list(index.glob("vectors-*"))) == 1

    def test_a_damaged_index_is_named_and_the_rest_is_done(self, manifest: Path, tmp_path: Path) -> None:
        index = tmp_path / "indexes" / "site"
        make_index(manifest, index)
        (index / "files-000001.jsonl").write_text("{")
        store = make_store(manifest, tmp_path / "runs" / "images").folder
        report = forget_now(anna(manifest), tmp_path, manifest=manifest, delete_files=True)
        assert not report.complete and not store.exists()
        assert len(report.unread) == 1 and str(index) in report.unread[0] and "remove the folder" in report.unread[0]
        assert (manifest.parent / "day" / "anna" / "1.png").exists()  # sources go last, when nothing is left


class TestFeatureFiles:
    def test_rows_are_dropped_from_every_array(self, manifest: Path, tmp_path: Path) -> None:
        file = make_features(manifest, tmp_path / "vectors.npz")
        with np.load(file) as arrays:
            before = {name: arrays[name] for name in arrays.files}
        assert forget_now(anna(manifest), tmp_path, file).complete
        kept = np.array(["anna" not in path for path in before["paths"]])
        with np.load(file) as arrays:
            assert set(arrays.files) == set(before)
            for name, array in before.items():
                np.testing.assert_array_equal(arrays[name], array[kept] if array.ndim else array)

    def test_a_file_of_that_person_alone_is_removed(self, manifest: Path, tmp_path: Path) -> None:
        only = manifest.with_name("anna.csv")
        only.write_text("".join(line for line in manifest.open() if "anna" in line or "path" in line))
        file = make_features(only, tmp_path / "vectors.npz")
        assert forget_now(anna(manifest), tmp_path, file).complete
        assert not file.exists()

    def test_the_folder_of_its_paths_decides_where_it_is_recorded(self, manifest: Path, tmp_path: Path) -> None:
        """Paths `anna/1.png` of another site are hers only in files that do not record where they start from."""
        other = make_site(tmp_path / "other")
        file = make_features(other, tmp_path / "vectors.npz")
        assert found(manifest, tmp_path, file) == []
        with np.load(file) as arrays:
            np.savez(file, **{name: arrays[name] for name in arrays.files if name != "root"})
        assert found(manifest, tmp_path, file) == [("vectors of images", 4)]

    def test_vectors_without_paths_and_unfinished_ones(self, manifest: Path, tmp_path: Path) -> None:
        folder = tmp_path / "files"
        (folder / "a.npz.parts").mkdir(parents=True)
        (folder / "a.npz.parts" / "000000.npz").write_bytes(b"")
        np.savez(folder / "b.npz", features=np.ones((2, 3)))
        np.savez(folder / "c.npz", other=np.ones(2))
        report = forget_now(anna(manifest), tmp_path, folder)
        assert report.complete and not (folder / "a.npz.parts").exists()
        assert [note for note in report.notes if "b.npz holds vectors without the paths" in note]


def read_hits(file: Path) -> list[tuple[str, str]]:
    """Query and hit of each row that a search wrote."""
    match file.suffix:
        case ".csv":
            return [(row["query"], row["path"]) for row in csv.DictReader(file.open())]
        case ".parquet":
            from pyarrow import parquet

            return [(row["query"], row["path"]) for row in parquet.read_table(file).to_pylist()]
        case ".sqlite":
            return list(sqlite3.connect(file).execute("SELECT query, path FROM hits"))
    queries = json.loads(file.read_text())["queries"]
    return [(query["path"], hit["path"]) for query in queries for hit in query["hits"]]


FEEDBACK = "time,query,query_modality,hit,rank,score,mark,run,index\n"


class TestTables:
    def test_marks_of_the_person_are_dropped_by_name_and_by_digest(self, manifest: Path, tmp_path: Path) -> None:
        import hashlib

        digest = hashlib.sha256((manifest.parent / "night/anna/1.png").read_bytes()).hexdigest()
        rows = [
            f"t,upload.png sha256:{digest},infrared,day/ben/1.png,1,0.9,wrong,r,i\n",
            f"t,x.png sha256:{'0' * 64},infrared,day/anna/2.png,1,0.9,right,r,i\n",
            f't,"x.png sha256:{"0" * 64}; y, 2.png sha256:{"1" * 64}",infrared,day/ben/2.png,1,0.9,right,r,i\n',
        ]
        file = Path("feedback.csv")  # the default name, in the working folder
        file.write_text(FEEDBACK + "".join(rows))
        assert found(manifest, tmp_path) == [("rows of a table", 2)]
        assert forget_now(anna(manifest), tmp_path).complete
        assert file.read_text() == FEEDBACK + rows[2]

    def test_a_table_edited_by_hand_keeps_its_other_rows_byte_for_byte(self, manifest: Path, tmp_path: Path) -> None:
        kept = 't;"x\ny";day/ben/1.png;right\r\n\r\n'
        faulty = "t;too;many;cells;day/anna/1.png;right;\n"
        file = tmp_path / "marks.csv"
        file.write_bytes("\ufefftime;query;hit;mark\n".encode() + f"{kept}{faulty}t;q;day/anna/1.png;right\n".encode())
        assert forget_now(anna(manifest), tmp_path, file).complete
        assert file.read_bytes() == "\ufefftime;query;hit;mark\n".encode() + kept.encode()

    def test_captions_and_those_put_aside(self, manifest: Path, tmp_path: Path) -> None:
        rows = [
            {"path": f"day/{person}/1.png", "modality": "visible", "caption": f"a\u2028{person}"}
            for person in ("anna", "ben")
        ]
        folder = tmp_path / "runs" / "captions"
        folder.mkdir(parents=True)
        for name in ("site.jsonl", "site.jsonl.old"):
            (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        assert forget_now(anna(manifest), tmp_path).complete
        for name in ("site.jsonl", "site.jsonl.old"):
            assert (folder / name).read_text() == json.dumps(rows[1], ensure_ascii=False) + "\n"

    def test_everything_that_a_search_writes(self, manifest: Path, tmp_path: Path) -> None:
        gallery = make_index(manifest, tmp_path / "index")
        files = make_results(manifest, gallery, tmp_path / "out")
        before = json.loads((tmp_path / "out" / "found.json").read_text())
        report = forget_now(anna(manifest), tmp_path, tmp_path / "out")
        assert report.complete and sorted(Path(trace["place"]) for trace in report.traces) == files
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "found.json", "hits.csv", "hits.parquet", "hits.sqlite",
        ]  # fmt: skip
        for file in (tmp_path / "out").iterdir():
            assert b"anna" not in file.read_bytes() and len(read_hits(file)) == 4 * 4, file
        after = json.loads((tmp_path / "out" / "found.json").read_text())
        assert after["queries"] == [
            query | {"hits": [hit for hit in query["hits"] if "anna" not in hit["path"]]}
            for query in before["queries"]
            if "anna" not in query["path"]
        ]

    def test_tables_of_vectors(self, manifest: Path, tmp_path: Path) -> None:
        make_features(manifest, tmp_path / "out" / "vectors.npz")
        assert forget_now(anna(manifest), tmp_path, tmp_path / "out").complete
        for file in (tmp_path / "out").iterdir():
            assert b"anna" not in file.read_bytes(), file
        database = sqlite3.connect(tmp_path / "out" / "vectors.sqlite")
        paths, vectors = zip(*database.execute("SELECT path, vector FROM vectors"), strict=True)
        with np.load(tmp_path / "out" / "vectors.npz") as arrays:
            assert list(paths) == arrays["paths"].tolist()
            np.testing.assert_array_equal([np.frombuffer(one, "<f4") for one in vectors], arrays["features"])

    def test_features_in_a_parquet_table_keep_their_origin(self, manifest: Path, tmp_path: Path) -> None:
        files = [tmp_path / "out" / f"{name}.parquet" for name in ("own", "other")]
        for file, source in zip(files, (manifest, make_site(tmp_path / "other")), strict=True):
            embed_to_file(MeanEncoder(), list_images(source, None), file, batch_size=4)
        report = forget_now(anna(manifest), tmp_path, tmp_path / "out")
        assert report.complete and [trace["what"] for trace in report.traces] == ["rows of a table"]
        assert b"anna" not in files[0].read_bytes() and len(read_features(files[0])) == 8
        assert read_record(files[0])["root"] == str(manifest.parent)
        assert "day/anna/1.png" in (read_features(files[1]).paths or ())  # another site's

    def test_manifests_and_files_of_other_programs_are_named_and_kept(self, manifest: Path, tmp_path: Path) -> None:
        other = manifest.parent / "other.csv"
        other.write_text("file,label\nday/anna/1.png,7\n")
        (manifest.parent / "list.json").write_text("[1, 2]")
        (manifest.parent / "mine.html").write_text("<!DOCTYPE html><p>day/anna/1.png")
        before = manifest.read_bytes()
        report = forget_now(anna(manifest), tmp_path, manifest.parent)
        assert report.complete and manifest.read_bytes() == before and "anna" in other.read_text()
        assert [note for note in report.notes if f"{other} names 1 of them; it is no file of this program" in note]
        assert [note for note in report.notes if f"{manifest} is a manifest that names 4 of them" in note]
        assert forget_now(anna(manifest), tmp_path, other).complete  # named, so it is changed
        assert other.read_text() == "file,label\n"


USUAL = {"page.html": "found", "hits.csv": "hits", "hits.parquet": "hits.pq", "hits.sqlite": "hits.sqlite3"}


class TestFilesOfAnyName:
    """Commands write to any name, so names decide nothing."""

    def test_everything_that_a_search_writes(self, manifest: Path, tmp_path: Path) -> None:
        gallery = make_index(manifest, tmp_path / "index")
        files = {
            file.rename(file.with_name(USUAL.get(file.name, "answer")))
            for file in make_results(manifest, gallery, tmp_path / "out")
        }
        report = forget_now(anna(manifest), tmp_path, tmp_path / "out")
        assert report.complete and {Path(trace["place"]) for trace in report.traces} == files
        left = files - {tmp_path / "out" / "found"}
        assert set((tmp_path / "out").iterdir()) == left and len(left) == 4
        assert not any(b"anna" in file.read_bytes() for file in left)

    def test_vectors_and_captions(self, manifest: Path, tmp_path: Path) -> None:
        vectors = make_features(manifest, tmp_path / "vectors.npz").rename(tmp_path / "out")
        captions = tmp_path / "captions"
        rows = [{"path": f"day/{name}/1.png", "modality": "visible", "caption": "a"} for name in ("anna", "ben")]
        captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert forget_now(anna(manifest), tmp_path, vectors, captions).complete
        assert captions.read_text() == json.dumps(rows[1]) + "\n"
        assert len(np.load(vectors)["paths"]) == 8

    def test_a_page_that_shows_her_as_a_query_under_the_name_of_a_group(self, manifest: Path, tmp_path: Path) -> None:
        gallery = make_index(manifest, tmp_path / "index")
        queries = list_images(manifest, Modality.INFRARED)
        row = next(row for row, path in enumerate(queries.paths) if "anna" in path)
        result = search_gallery(MeanEncoder(), queries.only(np.array([row])), gallery, 1, batch_size=4)
        (query,) = result.queries
        hits = tuple(replace(hit, path="day/ben/1.png") for hit in query.hits)
        named = replace(result, queries=(replace(query, group="gate", hits=hits),))
        write_search_page(named, queries, gallery, tmp_path / "page.html")
        assert found(manifest, tmp_path, tmp_path / "page.html") == [("a page with pictures", 1)]

    def test_labels_outside_the_folder_of_their_run(self, manifest: Path, tmp_path: Path) -> None:
        file = tmp_path / "labels.npz"
        arrays = {"visible_labels": np.arange(2), "visible_paths": np.array(["day/anna/1.png", "day/ben/1.png"])}
        np.savez(file, **arrays, infrared_paths=np.array(["night/ben/1.png"]))
        assert forget_now(anna(manifest), tmp_path, tmp_path / "labels.npz").complete
        assert np.load(file)["visible_paths"].tolist() == ["forgotten/visible-000000", "day/ben/1.png"]

    def test_a_record_of_skipped_images_outside_the_folder_of_its_run(self, manifest: Path, tmp_path: Path) -> None:
        file = tmp_path / "copies" / "environment.json"
        skipped = dict.fromkeys(("day/anna/1.png", "day/ben/1.png"), "an empty file")
        file.parent.mkdir()
        write_json(file, {"versions": {}, "skipped": skipped})
        assert forget_now(anna(manifest), tmp_path, file.parent).complete
        assert json.loads(file.read_text())["skipped"] == {"day/ben/1.png": "an empty file"}

    def test_files_beside_those_of_an_index_or_a_store(self, manifest: Path, tmp_path: Path) -> None:
        make_index(make_site(tmp_path / "other"), tmp_path / "indexes" / "other")
        others = manifest.with_name("others.csv")
        others.write_text("".join(line for line in manifest.open() if "anna" not in line))
        store = make_store(others, tmp_path / "runs" / "images").folder
        files = [make_features(manifest, place / "vectors.npz") for place in (tmp_path / "indexes" / "other", store)]
        report = forget_now(anna(manifest), tmp_path)
        assert report.complete and {Path(trace["place"]) for trace in report.traces} >= set(files)
        assert all(len(np.load(file)["paths"]) == 8 for file in files) and store.is_dir()

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("list.txt", b"day/anna/1.png\n"),
            ("page.html", b"<!DOCTYPE html><p>day/anna/1.png"),
            ("hits.csv.gz", b"\x1f\x8b\x08"),
            ("photo.jpg", b"\xff\xd8\xff"),
            ("other.sqlite", b"SQLite format 3\0"),
            ("other.npz", None),
            ("vectors.npz", None),
        ],
    )
    def test_a_named_file_that_cannot_be_searched_is_no_success(
        self, manifest: Path, tmp_path: Path, name: str, content: bytes | None
    ) -> None:
        file = tmp_path / "out" / name
        file.parent.mkdir()
        if content is None:
            np.savez(file, **{"features" if name == "vectors.npz" else "other": np.ones((2, 3))})
        else:
            file.write_bytes(content)
        report = forget_now(anna(manifest), tmp_path, file)
        assert not report.complete and len(report.unread) == 1 and str(file) in report.unread[0]
        report = forget_now(anna(manifest), tmp_path, file.parent)  # below a named folder it is a note
        assert report.complete and (name == "other.npz" or any(str(file) in note for note in report.notes))

    @pytest.mark.parametrize("name", ["labels", "queries.npz", "empty"])
    def test_files_without_names_hold_nobody(self, manifest: Path, tmp_path: Path, name: str) -> None:
        file = tmp_path / name
        with file.open("wb") as opened:
            if name == "labels":
                np.save(opened, np.arange(3))
            elif name != "empty":
                np.savez(opened, **{"all/trial-0/inverse_negative_penalty": np.ones(3)})
        assert forget_now(anna(manifest), tmp_path, file).complete

    @pytest.mark.parametrize("name", ["vectors.npz", "vectors.parquet", "vectors.sqlite"])
    def test_what_a_kill_left_while_a_file_was_written_is_named(
        self, manifest: Path, tmp_path: Path, name: str
    ) -> None:
        whole = make_features(manifest, tmp_path / "made" / "vectors.npz").with_name(name).read_bytes()
        (tmp_path / "out").mkdir()
        left = tmp_path / "out" / f".{name.partition('.')[0]}.tmp"
        left.write_bytes(whole[: len(whole) // 2] if name != "vectors.sqlite" else whole[:60])
        report = forget_now(anna(manifest), tmp_path, tmp_path / "out")
        assert not report.complete and report.unread[0].startswith(f"{left} was left by a killed command")


class TestSources:
    def test_files_and_rows_are_deleted_on_request(self, manifest: Path, tmp_path: Path) -> None:
        make_index(manifest, tmp_path / "indexes" / "site")
        before = manifest.read_text().splitlines()
        report = forget_now(anna(manifest), tmp_path, manifest=manifest, delete_files=True, delete_rows=True)
        assert report.complete
        assert not list(manifest.parent.glob("*/anna/*")) and len(list(manifest.parent.glob("*/*/*"))) == 8
        assert manifest.read_text().splitlines() == [line for line in before if "anna" not in line]

    def test_without_it_the_report_names_what_is_read_again(self, manifest: Path, tmp_path: Path) -> None:
        make_index(manifest, tmp_path / "indexes" / "site")
        notes = forget_now(anna(manifest), tmp_path, manifest=manifest).notes
        assert f"{tmp_path}/runs does not exist: it is not searched" in notes[0]
        assert "4 of the image files exist" in notes[1] and f"{manifest} names 4 of them" in notes[2]

    def test_nothing_is_changed_without_consent(self, manifest: Path, tmp_path: Path) -> None:
        make_index(manifest, tmp_path / "indexes" / "site")
        make_store(manifest, tmp_path / "runs" / "images")

        def state() -> dict[Path, tuple[bytes, int]]:
            files = (path for path in tmp_path.rglob("*") if path.is_file())
            return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

        before, places = state(), Places(tmp_path / "runs", tmp_path / "indexes")
        sources = Sources(manifest, delete_files=True, delete_rows=True)
        report = forget(anna(manifest), places, sources, really=False)
        assert [trace["what"] for trace in report.traces] == [
            "decoded images", "vectors of an index", "image files", "rows of the manifest",
        ]  # fmt: skip
        assert not report.done and state() == before

    def test_forgotten_images_are_embedded_again_only_if_their_files_stay(self, manifest: Path, tmp_path: Path) -> None:
        index = tmp_path / "indexes" / "site"
        make_index(manifest, index)
        forget_now(anna(manifest), tmp_path, manifest=manifest, delete_files=True, delete_rows=True)
        make_index(manifest, index)
        assert len(open_gallery(index, "mean").files) == 4


def test_every_place_has_the_modality_of_its_images_left(manifest: Path, tmp_path: Path) -> None:
    """The encoder of tests is not called again: vectors are copied."""
    make_index(manifest, tmp_path / "indexes" / "site")
    encoder = MeanEncoder()
    forget_now(anna(manifest), tmp_path)
    assert encoder.encoded == 0 and open_gallery(tmp_path / "indexes" / "site", "mean").modality is Modality.VISIBLE
