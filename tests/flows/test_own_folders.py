"""From two messy folders of photographs to a trained run, its answers, and a person who is forgotten."""

import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from pipeline.config.csdn import CsdnConfig
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_config, values_for_data
from pipeline.errors import CheckpointError, DataError
from pipeline.methods import method_of
from pipeline.runs.open import reopen_run, run_path
from tests.flows import command_line
from tests.flows.command_line import Call
from tests.flows.plain_runs import run_plainly
from tests.flows.server.test_search_server import PATIENCE, serving
from tests.flows.test_csdn import small_csdn

__all__ = ["small_csdn"]

CAMERAS = {1: "day/door [old]", 2: "day/Hof Süd/2026/er", 3: "night/door [old]", 6: "night/hall"}


@pytest.fixture
def site(smoke_data: Path, tmp_path: Path) -> Path:
    """Folders `day` and `night` of the synthetic people, with deep, turned, transparent, cut and empty images."""
    root = tmp_path / "site"
    for number, folder in CAMERAS.items():
        (root / folder).mkdir(parents=True)
        for image in sorted((smoke_data / f"cam{number}").glob("*/*.jpg")):
            shutil.copy(image, root / folder / f"p{image.parent.name}_{image.stem} Kopie.jpg")
    deep, turned, clear, cut, *_ = (
        sorted((root / CAMERAS[camera]).iterdir())[row] for row, camera in enumerate((6, 1, 1, 1, 1))
    )
    Image.fromarray(np.asarray(Image.open(deep).convert("L")).astype(np.uint16) * 50 + 29_000).save(
        deep.with_suffix(".tiff")
    )
    deep.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(turned).transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    Image.open(clear).convert("RGBA").save(clear.with_suffix(".png"))
    clear.unlink()
    cut.write_bytes(cut.read_bytes()[:300])
    (root / "day" / "leer.jpg").touch()
    (root / "night" / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    return root


def small(table: Path, runs: Path, tree: dict[str, object], *changes: str) -> AnyConfig:
    execution = {"device": "cpu", "runs_folder": str(runs), "tracking": False, "figures": False}
    values = {**tree, "stages": {"prepare_rounds": 1, "clip_rounds": 0}, "execution": execution}
    return load_config("smoke", changes, values | values_for_data("smoke", table))


@pytest.mark.slow
def test_folders_are_trained_on_and_measured_on_a_table_of_test_people(
    vireid: Call, site: Path, tmp_path: Path, smoke_tree: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site)
    tables = tmp_path / "tables"
    both = ["--visible", "day", "--infrared", "night"]
    code, out, err = vireid("data", "folders", *both)
    assert code == 0, err
    assert "note: 1 empty files are skipped: day/leer.jpg" in out
    assert "note: 1 file skipped by extension: night/film.mp4" in out
    assert out.endswith("next: vireid train plus-sysu --data site.csv\n")

    table, runs = site / "site.csv", site / "runs"  # the runs may be beside the folders of images
    tree = {name: value for name, value in smoke_tree.items() if name != "evaluation"}  # there are no trials
    with pytest.raises(DataError, match=r"1 of \d+ images .* cannot be read: 1 truncated: day/door \[old\]/p"):
        run_plainly(small(table, runs, tree))
    config = small(table, runs, tree, "data.unreadable=skip")
    assert run_plainly(config) is None
    run = run_path(config)
    assert run.name.startswith("smoke-site-s1-")
    (skipped,) = json.loads((run / "environment.json").read_text())["skipped"]
    assert skipped.startswith("day/door [old]/p")
    labels = np.load(next((run / "labels").iterdir()))
    assert skipped not in labels["visible_paths"].tolist()

    out_file = str(tables / "test.csv")
    code, _, err = vireid(
        "data", "folders", *both, "--person-pattern", r"p(\d+)_", "--split", "test", "--out", out_file
    )
    assert code == 0, err
    with reopen_run(run, method_of, data_root=tables / "test.csv", device="cpu") as (opened, evaluator):
        report = evaluator.measure_to_files(opened)
    assert len(report.searches) == 2 and (report.data.name, report.data.overlap) == ("test", True)
    with pytest.raises(DataError, match="has no rows of split train"):
        run_plainly(small(tables / "test.csv", runs, tree))

    # A run goes on without an image only if it was started without it.
    shutil.copy(max((site / CAMERAS[1]).glob("*.jpg")), site / skipped)
    with pytest.raises(CheckpointError, match=r"was started without 1 images .* now they are 0, first difference: day"):
        run_plainly(config)


@pytest.mark.slow
def test_a_supervised_run_of_a_published_data_set_is_measured_on_other_people(
    small_csdn: CsdnConfig, vireid: Call, site: Path
) -> None:
    run_plainly(small_csdn)
    code, _, err = vireid(
        "data", "folders", "--visible", str(site / "day"), "--infrared", str(site / "night"), "--split", "test",
        "--person-pattern", r"p(\d+)_", "--out", str(site / "test.csv"),
    )  # fmt: skip
    assert code == 0, err
    where = {"data_root": site / "test.csv", "device": "cpu"}
    with (
        pytest.raises(DataError, match="1 truncated"),
        reopen_run(run_path(small_csdn), method_of, **where),  # type: ignore[arg-type]
    ):
        pass
    with reopen_run(run_path(small_csdn), method_of, **where, skip_unreadable=True) as (run, evaluator):  # type: ignore[arg-type]
        report = evaluator.measure_to_files(run)
    assert {one.direction for one in report.searches} == {"infrared_to_visible", "visible_to_infrared"}
    assert report.data.kind == "custom"


@pytest.mark.slow
def test_from_two_folders_to_an_answer_and_to_a_person_who_is_forgotten(
    vireid: Call, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site)

    def done(*arguments: str) -> str:
        code, out, err = vireid(*arguments)
        assert code == 0, err
        return out

    patterns = ("--person-pattern", r"p(\d+)_", "--track-pattern", r"/(p\d+)_")
    done("data", "folders", "--visible", "day", "--infrared", "night", *patterns)
    options = [*command_line.small(Path("runs"), Path("site.csv")), "--set", "data.unreadable=skip"]
    done("train", "smoke", *options)
    (run,) = map(str, Path("runs").glob("smoke-site-s1-*"))
    assert "clusters" in done("look", run, "--html", "look.html")

    towards = ("--gallery", "site.csv", "--direction", "infrared_to_visible")
    assert "mean: " in done("calibrate", run, *towards, "--strangers", "site.csv", "--group", "track")
    search = ("search", run, *towards, "--query", "site.csv", "--group", "track", "--false-match", "0.5")
    found = json.loads(done(*search, "-k", "5", "--json", "--csv", "hits.csv"))
    query = max(found["queries"], key=lambda one: (len(one["hits"]), one["images"]))
    assert query["images"] > 1 and query["hits"][0]["images"] > 1 and query["hits"][0]["one_in"] >= 2

    camera, track = query["group"].split("/")
    names = [line.split(",")[0] for line in Path("site.csv").read_text().splitlines() if f",{camera}," in line]
    crops = [Path(name) for name in names if f"/{track}_" in name]
    assert len(crops) == query["images"]
    with serving(site, run, *towards, "--group", "track") as served:
        images = [("image", (crop.name, crop.read_bytes(), "image/jpeg")) for crop in crops]
        answer = httpx.post(
            f"{served.address}/api/search?modality=infrared&k=5&false_match=0.5", files=images, timeout=PATIENCE
        ).json()
    scores = [hit["score"] for hit in query["hits"]]  # paths of nearly equal scores may come in another order
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx(scores, abs=1e-5)

    person = track.removeprefix("p").lstrip("0")
    forget = ("forget", "--person", person, "--manifest", "site.csv", "--also", "hits.csv", "--also", "look.html")
    assert "found nowhere" in done(*forget, "--yes", "--delete-files", "--delete-rows")
    assert not list(site.glob(f"*/*/**/{track}_*")) and f"/{track}_" not in Path("hits.csv").read_text()
    found = json.loads(done(*search, "--json"))
    assert not any(f"/{track}_" in hit["path"] for one in found["queries"] for hit in one["hits"])
