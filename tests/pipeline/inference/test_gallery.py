"""A gallery's index: made once, refreshed by what changed, refused where it belongs to another encoder."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_files import FROM_ANYWHERE
from pipeline.data.image_list import ImageList, list_images
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.inference.index import Gallery, GallerySource, open_gallery
from pipeline.inference.index_refresh import Kind, Refreshed, open_or_refresh, refresh_gallery
from pipeline.inference.search_page import write_search_page
from pipeline.inference.searching import GallerySearchResult, search_gallery
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250), "grey": (90, 90, 90)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        paint(tmp_path / "images" / f"{name}.png", colour)
    return tmp_path / "images"


def refresh(folder: Path, index: Path, encoder: MeanEncoder | None = None, kind: Kind = "auto") -> Refreshed:
    source = GallerySource(folder, Modality.VISIBLE)
    return refresh_gallery(index, encoder or MeanEncoder(), source, batch_size=4, kind=kind)[1]


def names(index: Path) -> list[str]:
    return [file.path for file in open_gallery(index, "mean").files]


class TestRefresh:
    def test_the_second_time_nothing_is_embedded_or_written(self, folder: Path, tmp_path: Path) -> None:
        index = tmp_path / "index"
        assert refresh(folder, index) == Refreshed(kept=0, embedded=4, gone=0, unreadable=0)
        before = {file.name: file.stat().st_mtime_ns for file in index.iterdir() if file.name != "lock"}
        encoder = MeanEncoder()
        assert refresh(folder, index, encoder) == Refreshed(kept=4, embedded=0, gone=0, unreadable=0)
        assert encoder.encoded == 0
        assert before == {file.name: file.stat().st_mtime_ns for file in index.iterdir() if file.name != "lock"}

    def test_new_changed_and_missing_files(self, folder: Path, tmp_path: Path) -> None:
        index = tmp_path / "index"
        refresh(folder, index)
        (folder / "grey.png").unlink()
        paint(folder / "a" / "yellow.png", (250, 250, 20))
        paint(folder / "blue.png", (0, 0, 99))
        os.utime(folder / "blue.png", ns=(1, 1))
        encoder = MeanEncoder()
        assert refresh(folder, index, encoder) == Refreshed(kept=2, embedded=2, gone=2, unreadable=0)
        assert encoder.encoded == 2
        fresh = tmp_path / "fresh"
        refresh(folder, fresh)
        assert names(index) == names(fresh) == ["a/yellow.png", "blue.png", "green.png", "red.png"]
        old, new = open_gallery(index, "mean"), open_gallery(fresh, "mean")
        np.testing.assert_array_equal(old.vectors, new.vectors)
        assert len(list(index.glob("vectors-*"))) == 1

    def test_damaged_images_are_left_out_and_tried_again(self, folder: Path, tmp_path: Path) -> None:
        index = tmp_path / "index"
        (folder / "grey.png").write_bytes(b"no image")
        assert refresh(folder, index).unreadable == 1
        assert names(index) == ["blue.png", "green.png", "red.png"]
        paint(folder / "grey.png", COLOURS["grey"])
        assert refresh(folder, index) == Refreshed(kept=3, embedded=1, gone=0, unreadable=0)

    def test_a_kill_in_the_middle_loses_nothing(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.inference.embedding.CHUNK", 1)
        index = tmp_path / "index"
        with pytest.raises(KeyboardInterrupt):
            refresh(folder, index, MeanEncoder(lasts=2))
        encoder = MeanEncoder()
        refresh(folder, index, encoder)
        assert encoder.encoded == 2 and len(names(index)) == 4
        assert not (index / "parts").exists()

    def test_a_folder_that_moved_is_embedded_anew(self, folder: Path, tmp_path: Path) -> None:
        index = tmp_path / "index"
        refresh(folder, index)
        moved = folder.rename(tmp_path / "moved")
        encoder = MeanEncoder()
        refresh(moved, index, encoder)
        assert encoder.encoded == 4

    def test_the_reading_is_recorded_and_an_index_without_one_is_made_anew(
        self, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        index = tmp_path / "index"
        refresh(folder, index)
        record = json.loads((index / "index.json").read_text())
        assert record["reading"] == {"orientation": "apply", "deep_range": "image", "background": "white"}
        del record["reading"]
        (index / "index.json").write_text(json.dumps(record))
        encoder = MeanEncoder()
        with caplog.at_level("INFO"):
            assert refresh(folder, index, encoder) == Refreshed(kept=0, embedded=4, gone=0, unreadable=0)
        assert "read images in another way" in caplog.text
        assert open_gallery(index, "mean").reading == FROM_ANYWHERE

    def test_a_manifests_tracks_and_times_are_kept(
        self, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        lines = ["red.png,visible,1,train,t7,2026-11-28 14:03", "blue.png,visible,2,train,007,yesterday"]
        manifest = folder / "m.csv"
        manifest.write_text("\n".join(["path,modality,camera,split,track,time", *lines]))
        with caplog.at_level("INFO"):
            refresh(manifest, tmp_path / "index")
        kept = [(file.path, file.track, file.time) for file in open_gallery(tmp_path / "index", "mean").files]
        assert kept == [("blue.png", "7", ""), ("red.png", "t7", "2026-11-28 14:03")]
        assert "ignored times that are not like 2026-11-28T14:03:00: 1, first: line 3" in caplog.text

    def test_lists_come_and_go_with_the_method(self, folder: Path, tmp_path: Path) -> None:
        index = tmp_path / "index"
        refresh(folder, index, kind="ivf")
        assert open_gallery(index, "mean").lists is not None and list(index.glob("lists-*"))
        refresh(folder, index, kind="exact")
        assert open_gallery(index, "mean").lists is None and not list(index.glob("lists-*"))


class TestRefused:
    def test_an_index_of_another_encoder(self, folder: Path, tmp_path: Path) -> None:
        refresh(folder, tmp_path / "index")
        with pytest.raises(DataError, match=r"made by another encoder \(mean\)") as caught:
            refresh(folder, tmp_path / "index", MeanEncoder(digest="other"))
        assert "--index" in caught.value.hint

    def test_an_index_of_the_other_modality(self, folder: Path, tmp_path: Path) -> None:
        refresh(folder, tmp_path / "index")
        with pytest.raises(DataError, match="holds visible images, not infrared ones"):
            refresh_gallery(tmp_path / "index", MeanEncoder(), GallerySource(folder, Modality.INFRARED), batch_size=4)

    def test_somebody_elses_folder(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "index").mkdir()
        (tmp_path / "index" / "thesis.tex").write_text("")
        with pytest.raises(DataError, match=r"is not an index, but holds other files \(first: thesis\.tex\)"):
            refresh(folder, tmp_path / "index")

    def test_two_processes_at_once(self, folder: Path, tmp_path: Path) -> None:
        from pipeline.runtime.folder_lock import lock_folder

        lock = lock_folder(tmp_path / "index", "lock")
        with pytest.raises(CheckpointError, match="in use"):
            refresh(folder, tmp_path / "index")
        os.close(lock)

    @pytest.mark.parametrize("damage", ["vectors", "files", "record", "format"])
    def test_a_damaged_index(self, folder: Path, tmp_path: Path, damage: str) -> None:
        index = tmp_path / "index"
        refresh(folder, index)
        if damage == "format":
            record = json.loads((index / "index.json").read_text())
            (index / "index.json").write_text(json.dumps(record | {"format": 99}))
        else:
            (victim,) = index.glob("index.json" if damage == "record" else f"{damage}-*")
            victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
        with pytest.raises(DataError) as caught:
            open_gallery(index, "mean")
        assert "--index" in caught.value.hint and "remove the folder" not in caught.value.hint

    @pytest.mark.parametrize(
        "changes",
        [
            {"vectors": "../other.npy"}, {"files": "notes.txt"}, {"dim": 4}, {"images": None}, {"modality": "x"},
            {"generation": "next"}, {"splits": 5}, {"lists": {"file": "lists-000001.faiss"}}, {"source_root": []},
            {"root": "a\0b", "source": "a\0b"},
        ],
    )  # fmt: skip
    def test_a_record_of_other_types(self, folder: Path, tmp_path: Path, changes: dict[str, object]) -> None:
        refresh(folder, tmp_path / "index")
        record = json.loads((tmp_path / "index" / "index.json").read_text())
        (tmp_path / "index" / "index.json").write_text(json.dumps(record | changes))
        if "root" in changes:  # it is a name that no file has
            assert refresh(folder, tmp_path / "index").embedded == 4
            return
        with pytest.raises(DataError, match=r"index is damaged|index\.json is damaged"):
            open_gallery(tmp_path / "index", "mean")

    @pytest.mark.parametrize("rows", ["{}\n", '{"path": "a", "size": [], "changed": 1}\n' * 4, ""])
    def test_a_list_of_files_that_does_not_fit(self, folder: Path, tmp_path: Path, rows: str) -> None:
        refresh(folder, tmp_path / "index")
        (tmp_path / "index" / "files-000001.jsonl").write_text(rows)
        with pytest.raises(DataError, match="is damaged"):
            open_gallery(tmp_path / "index", "mean")

    def test_lists_of_other_bytes_are_not_given_to_faiss(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refresh(folder, tmp_path / "index", kind="ivf")
        lists = tmp_path / "index" / "lists-000001.faiss"
        content = bytearray(lists.read_bytes())
        content[100] ^= 1
        lists.write_bytes(content)
        monkeypatch.setattr("faiss.deserialize_index", None)
        with pytest.raises(DataError, match="holds other bytes than were written"):
            open_gallery(tmp_path / "index", "mean")

    def test_queries_of_another_width(self, folder: Path, tmp_path: Path) -> None:
        refresh(folder, tmp_path / "index")
        gallery = open_gallery(tmp_path / "index", "mean")
        with pytest.raises(DataError, match="dimensions"):
            gallery.search(np.ones((1, gallery.vectors.shape[1] + 1), np.float32), 3)


class TestOtherFilesInTheFolder:
    def test_a_page_notes_and_folders_stay_when_an_index_is_refreshed(self, folder: Path, tmp_path: Path) -> None:
        index = tmp_path / "index"
        refresh(folder, index)
        for name in ("found.html", "vectors-of-mine.npy", "files-2026.txt", "plan.json", "notes/lists-000001.faiss"):
            (index / name).parent.mkdir(exist_ok=True)
            (index / name).write_text("mine")
        (index / "parts").mkdir(exist_ok=True)
        (index / "parts" / "screws.txt").write_text("mine")
        before = {path for path in index.rglob("*") if path.is_file()}
        paint(folder / "new.png", (1, 2, 3))
        assert refresh(folder, index).embedded == 1
        gone = {path.relative_to(index).as_posix() for path in before if not path.exists()}
        assert gone == {"vectors-000001.npy", "files-000001.jsonl"}
        assert (index / "vectors-000002.npy").exists()

    @pytest.mark.parametrize("content", ['{"photos": 4}', "[1]", "no JSON", '{"format": 1, "key": "x", "sha256": {}}'])
    def test_photographs_beside_an_index_of_another_program_are_images(
        self, folder: Path, tmp_path: Path, content: str
    ) -> None:
        (folder / "index.json").write_text(content)
        source = GallerySource(folder, Modality.VISIBLE)
        gallery, _ = open_or_refresh(source, None, tmp_path / "indexes", MeanEncoder(), batch_size=4)
        assert len(gallery.files) == 4
        with pytest.raises(DataError, match="is not an index, but holds other files") as caught:
            open_or_refresh(source, folder, tmp_path / "indexes", MeanEncoder(), batch_size=4)
        assert "remove" not in caught.value.hint
        with pytest.raises(DataError, match="holds no index"):
            open_gallery(folder, "mean")


class TestOpening:
    def test_a_folder_finds_its_index_again_and_an_index_its_folder(self, folder: Path, tmp_path: Path) -> None:
        source = GallerySource(folder, Modality.VISIBLE)
        _, place = open_or_refresh(source, None, tmp_path / "indexes", MeanEncoder(), batch_size=4)
        paint(folder / "new.png", (1, 2, 3))
        named, again = open_or_refresh(
            GallerySource(place, Modality.VISIBLE), None, tmp_path / "indexes", MeanEncoder(), batch_size=4
        )
        assert again == place and place.parent == tmp_path / "indexes" and len(named.files) == 5

    def test_an_index_serves_without_its_images(
        self, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        refresh(folder, tmp_path / "index")
        folder.rename(tmp_path / "away")
        source = GallerySource(tmp_path / "index", Modality.VISIBLE)
        with caplog.at_level("WARNING"):
            gallery, _ = open_or_refresh(source, None, tmp_path, MeanEncoder(), batch_size=4)
        assert len(gallery.files) == 4 and "is searched without a refresh" in caplog.text

    def test_an_index_of_the_wrong_modality_is_refused(self, folder: Path, tmp_path: Path) -> None:
        refresh(folder, tmp_path / "index")
        with pytest.raises(DataError, match="holds visible images, but infrared ones are needed"):
            open_or_refresh(
                GallerySource(tmp_path / "index", Modality.INFRARED), None, tmp_path, MeanEncoder(), batch_size=4
            )


MANIFEST = """path,modality,camera,person,split
g/1.png,visible,1,anna,gallery
g/2.png,visible,1,bert,gallery
g/3.png,visible,2,carl,gallery
q/1.png,infrared,9,anna,query
q/2.png,infrared,9,bert,query
q/3.png,infrared,9,dora,query
"""


class TestSearch:
    def found(self, tmp_path: Path) -> tuple[GallerySearchResult, ImageList, Gallery]:
        gallery = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
        for number, colour in enumerate(gallery, start=1):
            paint(tmp_path / f"g/{number}.png", colour)
        # The second query looks like the third image: it finds another person first, and its own second.
        for number, colour in enumerate([(200, 0, 20), (0, 90, 200), (90, 0, 100)], start=1):
            paint(tmp_path / f"q/{number}.png", colour)
        (tmp_path / "m.csv").write_text(MANIFEST)
        source = GallerySource(tmp_path / "m.csv", Modality.VISIBLE, ("gallery",))
        opened, _ = refresh_gallery(tmp_path / "index", MeanEncoder(), source, batch_size=4)
        queries = list_images(tmp_path / "m.csv", Modality.INFRARED, ["query"])
        return search_gallery(MeanEncoder(), queries, opened, 2, batch_size=4), queries, opened

    def test_right_and_wrong_are_told_where_people_are_known(self, tmp_path: Path) -> None:
        result, _, _ = self.found(tmp_path)
        assert [[hit.path for hit in query.hits] for query in result.queries] == [
            ["g/1.png", "g/3.png"],
            ["g/3.png", "g/2.png"],
            ["g/3.png", "g/1.png"],
        ]
        assert result.queries[0].hits[0].path == "g/1.png" and result.queries[0].hits[0].right is True
        assert [hit.right for hit in result.queries[1].hits] == [False, True]
        assert result.queries[1].hits[0].camera == "2" and result.queries[1].hits[0].person == "carl"
        # Nobody in the gallery is the third query's person: it is wrong, and does not count.
        assert [hit.right for hit in result.queries[2].hits] == [False, False]
        assert result.score is not None
        assert (result.score.queries, result.score.rank1, result.score.found_in_hits) == (2, 0.5, 1.0)

    def test_the_page_shows_everything_and_asks_nobody(self, tmp_path: Path) -> None:
        result, queries, gallery = self.found(tmp_path)
        (tmp_path / "g/2.png").unlink()
        write_search_page(result, queries, gallery, tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert page.count("data:image/jpeg;base64,") == 8 and page.count("not readable") == 1
        assert page.count('class="right"') == 2 and page.count('class="wrong"') == 4
        assert "http" not in page.replace("http-equiv", "") and "<script" not in page
        assert "50.00 % found the person first" in page

    def test_many_queries_are_on_several_pages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pipeline.inference.search_page.PER_PAGE", 2)
        result, queries, gallery = self.found(tmp_path)
        pages = write_search_page(result, queries, gallery, tmp_path / "page.html")
        assert pages == [tmp_path / "page.html", tmp_path / "page-002.html"]
        first, second = (page.read_text() for page in pages)
        assert first.count('"query"') == 2 and second.count('"query"') == 1
        assert '<a href="page-002.html">next page</a>' in first and '<a href="page.html">previous page</a>' in second
        pages[1].write_text("notes")
        pages[0].unlink()
        with pytest.raises(ConfigError, match=r"page-002\.html exists and does not contain a page"):
            write_search_page(result, queries, gallery, tmp_path / "page.html")
        assert pages[1].read_text() == "notes" and not pages[0].exists()

    def test_pages_of_an_earlier_search_with_more_queries_are_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.inference.search_page.PER_PAGE", 1)
        result, queries, gallery = self.found(tmp_path)
        folder = tmp_path / "out [1]"
        folder.mkdir()
        for name in ("page 1.html", "page 1-002.html", "other.html"):  # the second is a search of its own
            write_search_page(result, queries, gallery, folder / name)
        (folder / "page 1-004.html").write_text("notes")
        (folder / "page 1-2026.html").symlink_to("other-003.html")
        (folder / "other-002.html").unlink()
        fewer = replace(result, queries=result.queries[:1])
        assert write_search_page(fewer, queries, gallery, folder / "page 1.html") == [folder / "page 1.html"]
        assert {one.name for one in folder.iterdir()} == {
            "page 1.html", "page 1-002.html", "page 1-002-002.html", "page 1-002-003.html", "page 1-004.html",
            "page 1-2026.html", "other.html", "other-003.html",
        }  # fmt: skip
        write_search_page(fewer, queries, gallery, folder / "other.html")  # as after a kill in the middle of a removal
        assert not (folder / "other-003.html").exists()

    def test_synthetic_people_are_said_to_be_synthetic(self, tmp_path: Path) -> None:
        assert self.found(tmp_path)[0].caution is None
        (tmp_path / "drawn.json").write_text("{}")
        result, queries, gallery = self.found(tmp_path)
        assert result.caution == "synthetic people, not photographs: queries, gallery"
        write_search_page(result, queries, gallery, tmp_path / "page.html")
        assert f"<p>{result.caution}.</p>" in (tmp_path / "page.html").read_text()

    def test_names_cannot_break_the_page(self, tmp_path: Path) -> None:
        paint(tmp_path / "g" / "<b>&\"'.png", (9, 9, 9))
        paint(tmp_path / "g" / "x.png", (8, 8, 8)).rename(tmp_path / "g" / os.fsdecode(b"\xff.png"))
        source = GallerySource(tmp_path / "g", Modality.VISIBLE)
        gallery, _ = refresh_gallery(tmp_path / "index", MeanEncoder(), source, batch_size=4)
        queries = list_images(tmp_path / "g", Modality.INFRARED)
        result = search_gallery(MeanEncoder(), queries, gallery, 2, batch_size=4)
        write_search_page(result, queries, gallery, tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert "<b>" not in page and "&lt;b&gt;" in page and "\\udcff" in page
