"""Selections, bad input, and a kill between any two places."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.inference.index import GallerySource, open_gallery
from pipeline.inference.index_serving import mark_served, served_generations
from pipeline.inference.served_gallery import ServedGallery
from pipeline.inference.served_milvus import open_served
from pipeline.privacy import forgetting
from pipeline.privacy.forgetting import Places, search
from pipeline.privacy.names import ImageNames
from pipeline.privacy.selection import images_of_camera, images_of_list, images_of_person
from pipeline.privacy.trace import Findings
from pipeline.runtime.folder_lock import lock_folder
from tests.fresh_process import run_fresh
from tests.pipeline.inference.mean_encoder import MeanEncoder
from tests.pipeline.privacy.small_site import anna, forget_now, make_features, make_index, make_site, make_store


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_site(tmp_path / "site")


class TestNames:
    def test_a_path_from_a_known_folder_has_to_lead_to_the_image(self, tmp_path: Path) -> None:
        names = ImageNames([(tmp_path, "a/1.png")])
        assert names.match("a/1.png", tmp_path) and names.match("1.png", tmp_path / "a") is True
        (tmp_path / "b").mkdir()
        assert not names.match("a/1.png", tmp_path / "b")
        assert names.match("a/1.png", tmp_path / "moved")  # a folder that is gone decides nothing

    def test_otherwise_the_end_of_its_path_counts_by_whole_parts(self, tmp_path: Path) -> None:
        names = ImageNames([(tmp_path / "site", "cam/a/1.png")])
        assert all(names.match(path) for path in ("1.png", "a/1.png", "./cam/a/1.png", f"{tmp_path}/site/cam/a/1.png"))
        assert not any(names.match(path) for path in ("", "png", "b/a/1.png", "xa/1.png", f"{tmp_path}/cam/a/1.png"))

    def test_links_are_followed_on_both_sides(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "disk" / "1.png").touch()
        (tmp_path / "site").symlink_to("disk")
        (tmp_path / "two.png").symlink_to("disk/1.png")
        assert ImageNames([(tmp_path / "site", "1.png")]).match("1.png", tmp_path / "disk")
        assert ImageNames([(tmp_path / "disk", "1.png")]).match("1.png", tmp_path / "site")
        assert ImageNames([(tmp_path, "two.png")]).match("1.png", tmp_path / "site")


class TestSelection:
    def test_a_list_whose_images_are_deleted_already(self, manifest: Path, tmp_path: Path) -> None:
        make_index(manifest, tmp_path / "indexes" / "site")
        (manifest.parent / "list.txt").write_text("# gone\nday/ben/1.png\n")
        (manifest.parent / "day/ben/1.png").unlink()
        selection = images_of_list(manifest.parent / "list.txt")
        assert selection.names.files == (manifest.parent / "day/ben/1.png",)
        report = forget_now(selection, tmp_path)
        assert report.complete and [trace["images"] for trace in report.traces] == [1]

    def test_a_manifest_a_folder_and_an_image(self, manifest: Path) -> None:
        for source, count in ((manifest, 12), (manifest.parent / "day", 6), (manifest.parent / "day/3/1.png", 1)):
            assert len(images_of_list(source).names) == count

    def test_numbers_are_the_same_however_they_are_written(self, manifest: Path) -> None:
        assert len(images_of_person("003", manifest, None, Path("indexes")).names) == 4

    def test_a_camera_before_a_date_by_the_manifest_or_else_by_the_file(self, manifest: Path) -> None:
        """Ben's times are the first and the second of November; the other files are of 2026-11-03, and one is gone."""
        for file in manifest.parent.glob("day/*/*.png"):
            os.utime(file, (1_793_664_000, 1_793_664_000))
        (manifest.parent / "day/3/2.png").unlink()

        def of(before: str | None) -> tuple[set[str], tuple[str, ...]]:
            found = images_of_camera("day", before, manifest, None, Path("indexes"))
            return {str(path.relative_to(manifest.parent / "day")) for path in found.names.files}, found.notes

        assert len(of(None)[0]) == 6
        assert of("2026-11-02") == (
            {"ben/1.png"},
            (
                "2 times are those of the manifest", "3 times are modification times of files",
                "1 images with neither are not selected",
            ),
        )  # fmt: skip
        assert of("2026-11-01T12:01+02:00")[0] == {"ben/1.png"}  # 10:01 in UTC
        assert of("2026-11-02T11:00")[0] == {"ben/1.png", "ben/2.png"}
        assert len(of("2026-11-20")[0]) == 5

    def test_the_index_keeps_times_of_images_that_the_manifest_has_lost(self, manifest: Path, tmp_path: Path) -> None:
        make_index(manifest, tmp_path / "indexes" / "site")
        manifest.write_text("".join(line for line in manifest.open() if "day/ben" not in line))
        found = images_of_camera("day", "2026-11-02", manifest, None, tmp_path / "indexes")
        assert manifest.parent / "day/ben/1.png" in found.names.files
        assert manifest.parent / "day/ben/2.png" not in found.names.files


class TestRefused:
    @pytest.mark.parametrize(
        ("call", "kind", "words"),
        [
            (lambda m: images_of_person("nora", m, None, Path("indexes")), DataError, "names no image of person nora"),
            (lambda m: images_of_person(" ", m, None, Path("indexes")), ConfigError, "--person is empty"),
            (lambda m: images_of_camera("x", None, m, None, Path("indexes")), DataError, "no image of camera x"),
            (lambda m: images_of_camera("day", "May", m, None, Path()), ConfigError, "--before 'May' is not a date"),
            (lambda m: images_of_person("3", m.parent, None, Path()), ConfigError, "is no manifest"),
            (lambda m: images_of_list(m.with_name("absent.txt")), DataError, "absent.txt"),
            (lambda m: images_of_list(m, m.parent / "no"), DataError, "no"),
        ],
    )
    def test_a_selection_of_nothing(
        self, manifest: Path, call: Callable[[Path], object], kind: type[Exception], words: str
    ) -> None:
        with pytest.raises(kind, match=words):
            call(manifest)

    def test_an_empty_list(self, manifest: Path) -> None:
        file = manifest.with_name("list.txt")
        file.write_text("# none\n")
        with pytest.raises(DataError, match="names no image"):
            images_of_list(file)

    def test_a_list_of_images_that_exist_nowhere(self, manifest: Path, tmp_path: Path) -> None:
        make_index(manifest, tmp_path / "indexes" / "site")
        file = manifest.with_name("list.txt")
        file.write_text("typing/error.png\n")
        with pytest.raises(DataError, match="no such file exists, and nothing of them is found in"):
            forget_now(images_of_list(file), tmp_path)

    def test_a_folder_without_runs_and_indexes(self, manifest: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nothing to search"):
            forget_now(anna(manifest), tmp_path / "elsewhere")

    def test_rows_of_no_manifest(self, manifest: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--delete-rows needs a manifest"):
            forget_now(anna(manifest), tmp_path, delete_rows=True)

    def test_an_index_and_a_store_in_use(self, manifest: Path, tmp_path: Path) -> None:
        index = tmp_path / "indexes" / "site"
        make_index(manifest, index)
        store = make_store(manifest, tmp_path / "runs" / "images").folder
        for folder, name, words in (
            (index, "lock", f"index {index} is in use by process {os.getpid()}"),
            (store.parent, f"{store.name}.lock", f"decoded images in {store.parent} is in use"),
        ):
            lock = lock_folder(folder, name)
            with pytest.raises(CheckpointError, match=words):
                forget_now(anna(manifest), tmp_path)
            os.close(lock)
        assert store.is_dir() and len(list(index.glob("vectors-000001.npy"))) == 1
        assert forget_now(anna(manifest), tmp_path).complete

    def test_a_place_that_cannot_be_written_is_left_and_named(
        self, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        make_index(manifest, tmp_path / "indexes" / "site")
        features = make_features(manifest, tmp_path / "vectors.npz")
        monkeypatch.setattr("pipeline.privacy.indexes.keep_images", fail)
        report = forget_now(anna(manifest), tmp_path, features)
        assert not report.complete
        assert report.left == (f"{tmp_path}/indexes/site cannot be changed: Permission denied",)
        assert [
            trace.what for trace in search(anna(manifest), Places(Path("no"), Path("no"), (features,))).traces
        ] == []


class TestServed:
    """`vireid serve` holds vectors in memory, so a change on the disk does not reach them."""

    @pytest.fixture
    def index(self, manifest: Path, tmp_path: Path) -> Path:
        make_index(manifest, tmp_path / "indexes" / "site")
        return tmp_path / "indexes" / "site"

    @staticmethod
    def state(folder: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    def test_an_index_in_use_is_named_and_kept_and_the_rest_is_done(
        self, manifest: Path, tmp_path: Path, index: Path
    ) -> None:
        features = make_features(manifest, tmp_path / "vectors.npz")
        served = open_served(GallerySource(manifest, Modality.VISIBLE), index, MeanEncoder(), batch_size=4)
        assert isinstance(served, ServedGallery) and served.mark is not None
        before = self.state(index)
        report = forget_now(anna(manifest), tmp_path, features, manifest=manifest, delete_files=True)
        assert not report.complete and self.state(index) == before
        assert "in use by a running server" in report.unread[0] and "stop `vireid serve`, then" in report.unread[0]
        assert len(np.load(features)["paths"]) == 8 and (manifest.parent / "day/anna/1.png").exists()
        os.close(served.mark)
        assert forget_now(anna(manifest), tmp_path, features, manifest=manifest, delete_files=True).complete
        assert len(open_gallery(index, "mean").files) == 4 and not (manifest.parent / "day/anna/1.png").exists()

    def test_a_server_of_an_earlier_generation_may_hold_her_although_the_disk_does_not(
        self, manifest: Path, tmp_path: Path, index: Path
    ) -> None:
        mark = mark_served(index)
        assert mark is not None
        for file in manifest.parent.glob("day/anna/*"):
            file.unlink()
        make_index(manifest, index)  # a search beside the server drops her
        report = forget_now(anna(manifest), tmp_path)
        assert not report.complete and "in use by a running server" in report.unread[0]
        os.close(mark)
        renewed = mark_served(index)  # its list of generations begins anew
        assert renewed is not None and served_generations(index) == {2}
        assert forget_now(anna(manifest), tmp_path).complete
        os.close(renewed)

    def test_a_server_of_a_removed_index_holds_it_still(self, manifest: Path, tmp_path: Path, index: Path) -> None:
        mark = mark_served(index)
        assert mark is not None
        for file in index.iterdir():
            if file.name != "served":
                file.unlink()
        assert "in use by a running server" in forget_now(anna(manifest), tmp_path).unread[0]
        os.close(mark)
        assert forget_now(anna(manifest), tmp_path).complete

    def test_servers_of_other_people_and_servers_that_share_an_index(
        self, manifest: Path, tmp_path: Path, index: Path
    ) -> None:
        make_index(make_site(tmp_path / "other"), tmp_path / "indexes" / "other")
        other = mark_served(tmp_path / "indexes" / "other")
        assert other is not None and forget_now(anna(manifest), tmp_path).complete
        marks = [mark_served(index), mark_served(index)]
        assert None not in marks and served_generations(index) == {2}
        for mark in filter(None, marks):
            assert served_generations(index) == {2}
            os.close(mark)
        assert served_generations(index) == frozenset()
        os.close(other)

    def test_a_killed_server_leaves_no_mark(self, manifest: Path, tmp_path: Path, index: Path) -> None:
        ready, written = os.pipe()
        server = os.fork()
        if server == 0:
            mark_served(index)
            os.write(written, b"!")
            signal.pause()
            os._exit(1)
        try:
            assert os.read(ready, 1) == b"!"
            assert served_generations(index) == {1}
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
            os.close(ready)
            os.close(written)
        assert (index / "served").read_text() == "1\n" and served_generations(index) == frozenset()
        assert forget_now(anna(manifest), tmp_path).complete

    def test_a_folder_that_cannot_be_written_is_served_without_a_mark(
        self, index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("pipeline.inference.index_serving.is_lockable", lambda *_: False)
        assert mark_served(index) is None and not (index / "served").exists()
        assert "`vireid forget` does not notice that it is served" in caplog.text

    def test_a_damaged_mark_is_no_proof(self, index: Path) -> None:
        mark = mark_served(index)
        assert mark is not None
        (index / "served").write_text("one\n")
        assert served_generations(index) == {0}
        os.close(mark)


def test_a_kill_after_any_place_is_made_good_by_the_same_command(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an index alone still names the images as hers: that one is changed last."""
    make_index(manifest, tmp_path / "indexes" / "a-site")
    make_index(manifest.parent / "day", tmp_path / "indexes" / "day")
    make_store(manifest, tmp_path / "runs" / "images")
    features = make_features(manifest, tmp_path / "vectors.npz")
    manifest.write_text("".join(line for line in manifest.open() if "day/anna" not in line))
    original, done = forgetting.remove, list[str]()

    def one_place(found: Findings) -> list[str]:
        original(Findings(found.traces[:1]))
        done.append(found.traces[0].place.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(forgetting, "remove", one_place)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            forget_now(anna(manifest, tmp_path / "indexes"), tmp_path, features)
    assert [done[0], *done[2:]] == ["vectors.npz", "day", "a-site"]  # the second one is the store
    monkeypatch.setattr(forgetting, "remove", original)
    assert forget_now(anna(manifest, tmp_path / "indexes"), tmp_path, features).complete
    day = images_of_list(manifest.parent / "day" / "anna")
    assert search(day, Places(tmp_path / "runs", tmp_path / "indexes", (features,))).traces == []


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_kill_before_any_file_is_replaced_is_made_good_as_well(manifest: Path, tmp_path: Path, number: int) -> None:
    """Files are replaced in this order: the feature file; vectors, list and record of the index."""
    make_index(manifest, tmp_path / "indexes" / "site")
    store = make_store(manifest, tmp_path / "runs" / "images").folder
    features = make_features(manifest, tmp_path / "vectors.npz")
    program = (
        "import os, sys\n"
        "from flows.cli.app import main\n"
        "from tests.flows.kill_points import die_at_call\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"die_at_call('pipeline.runtime.atomic_files', 'Path.replace', {number})\n"
        "main()\n"
    )
    command = ("forget", "--person", "anna", "--manifest", str(manifest), "--also", "vectors.npz", "--yes")
    run_fresh(program, *command, exit_code=-signal.SIGKILL)
    assert forget_now(anna(manifest), tmp_path, features).complete and not store.exists()
    index = open_gallery(tmp_path / "indexes" / "site", "mean")
    assert len(index.files) == 4 and not any("anna" in file.path for file in index.files)
    left = [path.name for path in (tmp_path / "indexes" / "site").iterdir()]
    assert len(left) == 4, left  # lock, record, one list and one file of vectors
