"""Runs: panels, worst queries, label files and pages, in the run's folder and in MLflow."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from models.modality import Modality
from pipeline.config.cclnet import CclnetConfig
from pipeline.privacy.forgetting import Places, Report, Sources, forget, search
from pipeline.privacy.selection import Selection, images_of_list, images_of_person
from pipeline.reports.comparison import compare_runs, write_page
from pipeline.reports.look import look_at
from pipeline.reports.look_page import write_look
from pipeline.runs.open import run_path
from pipeline.storage.label_files import read_labels
from pipeline.storage.layout import queries_path, write_record
from pipeline.storage.run_folder import RunFolder
from pipeline.storage.run_reader import read_run
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.replay import record_rounds
from tests.pipeline.privacy.small_site import make_features, make_site


def trained_images(run: Path) -> tuple[str, ...]:
    labels = read_labels(run, 1)
    assert labels is not None and labels.paths is not None
    return labels.paths.visible


def listed(data: Path, paths: tuple[str, ...], folder: Path) -> Selection:
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    return images_of_list(folder / "list.txt", data)


def forget_in(runs: Path, selection: Selection, *also: Path, really: bool = True) -> Report:
    return forget(selection, Places(runs, runs / "none", also), Sources(), really=really)


def test_the_folder_of_a_run(finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path) -> None:
    run, runs = run_path(finished_run), finished_run.execution.runs_folder
    shutil.rmtree(runs / "images")  # see test_places.py
    paths = trained_images(run)
    queries = json.loads(queries_path(run, 4).read_text())["worst"]
    selection = listed(smoke_data, (paths[0], queries[0]["path"]), tmp_path)
    pages = tmp_path / "pages"
    write_look(look_at(run), pages / "look.html")
    write_page(compare_runs([read_run(run)]), pages / "compare.html")
    before = read_labels(run, 4)
    report = forget_in(runs, selection, pages)
    assert report.complete, report
    whats = [trace["what"] for trace in report.traces]
    assert whats == [
        "panels of images: 8, run folder", "a page with pictures", "a page with pictures",
        "files of labels: 4, run folder", "files of worst queries: 4, run folder",
    ]  # fmt: skip
    assert report.trained == (f"{run}, run folder: the weights were trained on images that are forgotten",)
    assert not list(run.glob("figures/*.jpg")) and len(list(run.glob("figures/*.png"))) > 8
    assert not list(pages.iterdir())
    after = read_labels(run, 4)
    assert before is not None and after is not None and before.paths is not None and after.paths is not None
    assert after.paths.visible == ("forgotten/visible-000000", *before.paths.visible[1:])
    for modality in Modality:
        np.testing.assert_array_equal(after.labels[modality], before.labels[modality])
    left = json.loads(queries_path(run, 4).read_text())["worst"]
    assert left == [one for one in queries if queries[0]["path"] not in (one["path"], one["match"], *one["found"])]
    assert paths[0] not in json.dumps(look_at(run).to_dict())  # and it can still be looked at
    # The second time only the weights are left, and said so.
    again = forget_in(runs, selection)
    assert again.complete and again.traces == () and again.trained == report.trained


def test_outputs_in_the_folder_of_a_run(finished_run: CclnetConfig, tmp_path: Path) -> None:
    """`vireid embed RUN ... -o RUN/features.npz` is natural."""
    run, runs = run_path(finished_run), finished_run.execution.runs_folder
    shutil.rmtree(runs / "images")
    manifest = make_site(tmp_path / "site")
    files = [make_features(manifest, run / name) for name in ("features.npz", "exports/mine/features.npz")]
    selection = images_of_person("anna", manifest, None, tmp_path / "none")
    report = forget_in(run, selection)
    assert report.complete, report
    tables = {file.with_suffix(ending) for file in files for ending in (".npz", ".csv", ".parquet", ".sqlite")}
    assert {Path(trace["place"]) for trace in report.traces} == tables
    for file in files:
        assert len(np.load(file)["paths"]) == 8
    assert forget_in(runs, selection).traces == ()


def test_skipped_images_become_numbers(finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path) -> None:
    run, runs = run_path(finished_run), finished_run.execution.runs_folder
    shutil.rmtree(runs / "images")
    record = json.loads((run / "environment.json").read_text())
    skipped = {"forgotten/000000": "x", "cam1/lost/1.jpg": "an empty file", "cam2/kept/2.jpg": "truncated"}
    (run / "environment.json").write_text(json.dumps(record | {"skipped": skipped}))
    report = forget_in(runs, listed(smoke_data, ("cam1/lost/1.jpg",), tmp_path))
    assert report.complete and report.trained == ()  # a skipped image was not trained on
    counts = {trace["what"]: trace["images"] for trace in report.traces}
    assert counts == {"panels of images: 8, run folder": None, "files of skipped images: 1, run folder": 1}
    left = {"forgotten/000000": "x", "forgotten/000001": "an empty file", "cam2/kept/2.jpg": "truncated"}
    assert json.loads((run / "environment.json").read_text()) == record | {"skipped": left}
    (run / "environment.json").write_text("{")
    report = forget_in(runs, listed(smoke_data, trained_images(run)[:1], tmp_path))
    assert not report.complete and "environment.json" in report.unread[0]


def test_a_run_that_is_searched_without_the_record_beside_it(finished_run: CclnetConfig, smoke_data: Path) -> None:
    run, runs = run_path(finished_run), finished_run.execution.runs_folder
    (runs / "mlflow.db").touch()
    selection = listed(smoke_data, trained_images(run)[:1], runs)
    note = f"{runs}/mlflow.db is not searched: name its folder with --runs"
    assert note in forget_in(run, selection, really=False).notes
    (runs / "mlflow.db").unlink()
    assert note not in forget_in(run, selection, really=False).notes


def test_a_run_of_another_data_set_keeps_its_panels(finished_run: CclnetConfig, tmp_path: Path) -> None:
    runs, run = finished_run.execution.runs_folder, run_path(finished_run)
    (tmp_path / "cam1").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cam1" / "x.png")
    found = search(images_of_list(tmp_path / "cam1" / "x.png"), Places(runs, runs / "none"))
    assert found.traces == [] and found.unclear == []
    record = json.loads((run / "config.json").read_text())
    record["config"]["data"]["root"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(record))
    found = search(images_of_list(tmp_path / "cam1" / "x.png"), Places(runs, runs / "none"))
    assert found.traces == [] and "whom they show" in found.unclear[0]


def test_a_run_in_use_is_named_and_nothing_is_changed(
    finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path
) -> None:
    from pipeline.errors import CheckpointError

    run, runs = run_path(finished_run), finished_run.execution.runs_folder
    selection = listed(smoke_data, trained_images(run)[:1], tmp_path)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    with RunFolder.reopen(run), pytest.raises(CheckpointError, match=f"run folder {run} is in use by process"):
        forget_in(runs, selection)
    assert files == {path: path.read_bytes() for path in files}
    assert len(list((runs / "images").glob("*/visible.npy"))) == 1


class TestMlflow:
    @pytest.fixture
    def recorded(
        self, finished_run: CclnetConfig, made_once: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """The finished run's folder of runs with its rounds in MLflow: a copy of what was recorded once."""
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        runs = finished_run.execution.runs_folder

        def record(folder: Path) -> None:
            shutil.copytree(runs, folder, ignore=shutil.ignore_patterns("images"))
            with RunFolder.reopen(folder / run_path(finished_run).name) as opened:
                tracker = MlflowTracker(folder, opened)
                tracker.start(opened.config | {"digest": opened.digest})
                record_rounds(opened, tracker)
                tracker.finish("FINISHED")

        made = made_once("recorded-run", record)
        shutil.rmtree(runs)
        return shutil.copytree(made, runs)

    def artifacts(self, runs: Path, *forms: str) -> list[Path]:
        return sorted(path for form in forms for path in (runs / "mlflow-artifacts").rglob(form))

    def test_its_copies_go_too_also_of_a_run_whose_folder_is_gone(
        self, recorded: Path, finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path
    ) -> None:
        run = run_path(finished_run)
        selection = listed(smoke_data, trained_images(run)[:2], tmp_path)
        shutil.rmtree(run)
        panels = self.artifacts(recorded, "pairs*", "retrieval*")
        assert len(panels) == 8 + 2 * 8  # of the rounds; of the run, which has two sizes of each
        moved = recorded.rename(tmp_path / "moved")
        report = forget_in(moved, selection)
        assert report.complete, report
        assert [trace["what"] for trace in report.traces] == [
            "panels of images: 24, record in MLflow", "files of labels: 4, record in MLflow",
        ]  # fmt: skip
        assert self.artifacts(moved, "pairs*", "retrieval*") == []
        assert len(self.artifacts(moved, "eps-curve*")) == 3 * 4
        for file in self.artifacts(moved, "round-*.npz"):
            with np.load(file) as arrays:
                assert arrays["visible_paths"][:2].tolist() == [f"forgotten/visible-00000{row}" for row in (0, 1)]
        client = MlflowClient(tracking_uri=f"sqlite:///{moved}/mlflow.db")
        assert len(client.search_runs(["1"])) == 5  # the record itself stays

    def test_skipped_images_and_outputs_among_its_artifacts(
        self, recorded: Path, smoke_data: Path, tmp_path: Path
    ) -> None:
        manifest = make_site(tmp_path / "site")
        (folder,) = {file.parent for file in self.artifacts(recorded, "config.json")}
        (folder / "environment.json").write_text(json.dumps({"skipped": {"cam1/lost/1.jpg": "an empty file"}}))
        vectors = make_features(manifest, folder / "mine" / "vectors.npz")
        hers = (f"{manifest.parent}/{path}" for path in np.load(vectors)["paths"] if "anna" in path)
        report = forget_in(recorded, listed(smoke_data, ("cam1/lost/1.jpg", *hers), tmp_path))
        assert report.complete and "files of skipped images: 1, record in MLflow" in str(report.traces)
        assert "lost" not in (folder / "environment.json").read_text() and len(np.load(vectors)["paths"]) == 8

    def test_artifacts_of_a_lost_database(
        self, recorded: Path, finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path
    ) -> None:
        selection = listed(smoke_data, trained_images(run_path(finished_run))[:2], tmp_path)
        shutil.rmtree(run_path(finished_run))
        (recorded / "mlflow.db").unlink()
        assert forget_in(recorded, selection).complete
        assert self.artifacts(recorded, "pairs*", "retrieval*") == []

    def test_a_store_elsewhere_is_named(self, recorded: Path, finished_run: CclnetConfig, smoke_data: Path) -> None:
        run = run_path(finished_run)
        note = json.loads((run / "tracking.json").read_text())
        (run / "tracking.json").write_text(json.dumps(note | {"store": "http://mlflow.example:5000"}))
        selection = listed(smoke_data, trained_images(run)[:1], recorded.parent)
        report = forget_in(recorded, selection, really=False)
        assert f"{run} is also recorded in MLflow at http://mlflow.example:5000, which is not searched" in report.notes

    def test_a_damaged_database_is_an_open_question(
        self, recorded: Path, finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path
    ) -> None:
        selection = listed(smoke_data, trained_images(run_path(finished_run))[:1], tmp_path)
        (recorded / "mlflow.db").write_bytes(b"no database" * 100)
        report = forget_in(recorded, selection)
        assert not report.complete and "mlflow.db cannot be read" in report.unread[0]


@pytest.mark.parametrize("column", [True, False])
def test_paths_of_a_run_start_where_its_manifest_names(tmp_path: Path, column: bool) -> None:
    """A method without clusters has no label files: the folder of its images decides."""
    make_site(tmp_path / "site")
    manifest = tmp_path / "tables" / "site.csv"
    manifest.parent.mkdir()
    lines = (tmp_path / "site" / "site.csv").read_text().splitlines()
    columns = (f"{line},{'images_root' if line.startswith('path') else '../site'}" for line in lines)
    manifest.write_text("\n".join(columns if column else lines) + "\n")
    run = tmp_path / "runs" / "csdn-s1"
    (run / "figures").mkdir(parents=True)
    write_record(run, "aaaa", {"data": {"name": "manifest", "root": str(manifest)}})
    Image.new("RGB", (4, 4)).save(run / "figures" / "retrieval-001.jpg")
    selection = images_of_person("anna", manifest, None if column else tmp_path / "site", tmp_path / "none")
    report = forget_in(tmp_path / "runs", selection)
    assert report.complete and (run / "figures" / "retrieval-001.jpg").exists() != column
    assert report.trained == ((f"{run}, run folder: the weights may have been trained on them",) if column else ())
