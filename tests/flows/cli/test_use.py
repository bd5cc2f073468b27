"""A trained model put to use by its commands: vectors, searches, exports, and a new user's way from two folders."""

import csv
import json
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.runs.open import run_path
from tests.flows.command_line import Call
from tests.flows.plain_runs import run_plainly
from tests.fresh_process import run_fresh
from tests.pipeline.inference.mean_encoder import needs_milvus


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people in the layout of a manifest."""
    from pipeline.data.synthetic.writer import generate_dataset

    folder = tmp_path_factory.mktemp("site") / "drawn"
    generate_dataset(folder, size="smoke", layout="manifest", difficulty="easy", height=64, width=32, workers=1)
    return folder


@pytest.fixture(scope="module")
def run(site: Path, smoke_tree: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on them."""
    config = load_config(
        "smoke",
        (),
        {
            **smoke_tree,
            "evaluation": {"every": 1},  # no gallery is drawn, so there are no trials
            "data": {"name": "manifest", "root": str(site)},
            "execution": {
                "device": "cpu",
                "runs_folder": str(tmp_path_factory.mktemp("runs")),
                "tracking": False,
                "figures": False,
            },
        },
    )
    assert isinstance(config, CclnetConfig)
    run_plainly(config)
    return run_path(config)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands write indexes and exports where they are called."""
    monkeypatch.chdir(tmp_path)
    yield
    logging.getLogger("pipeline").handlers.clear()


def infrared(site: Path) -> list[str]:
    rows = [line.split(",") for line in (site / "manifest.csv").read_text().splitlines()[1:]]
    return [row[0] for row in rows if row[1] == "infrared"]


class TestEmbed:
    def test_vectors_are_those_of_the_evaluation(self, vireid: Call, run: Path, site: Path) -> None:
        assert vireid("evaluate", str(run), "--features", "evaluated.npz", "--device", "cpu")[0] == 0
        code, out, err = vireid("embed", str(run), str(site / "manifest.csv"), "-o", "embedded.npz", "--json")
        assert code == 0, err
        with np.load("evaluated.npz") as evaluated, np.load("embedded.npz") as embedded:
            rows = {path: row for row, path in enumerate(embedded["paths"])}
            order = [rows[path] for path in evaluated["paths"]]
            np.testing.assert_allclose(embedded["features"][order], evaluated["features"], atol=1e-6)
            np.testing.assert_array_equal(embedded["person_ids"][order], evaluated["person_ids"])
            np.testing.assert_array_equal(embedded["cameras"][order], evaluated["cameras"])
            assert json.loads(out)["images"] == len(rows)

    def test_the_file_serves_rank_and_label_as_it_is(self, vireid: Call, run: Path, site: Path) -> None:
        manifest = str(site / "manifest.csv")
        for name, modality in (("q", "infrared"), ("g", "visible")):
            arguments = ("embed", str(run), manifest, "--modality", modality, "--split", "test", "-o", f"{name}.npz")
            assert vireid(*arguments)[0] == 0
        code, out, err = vireid(
            "rank", "--query", "q.npz", "--gallery", "g.npz", "--protocol", "pairs", "--exclude", "none", "--json"
        )
        assert code == 0, err
        ranked = json.loads(out)["searches"][0]["mean"]["r1"]
        evaluated = json.loads((run / "evaluation.json").read_text())["searches"]
        (search,) = [one for one in evaluated if one["direction"] == "infrared_to_visible"]
        assert ranked == pytest.approx(search["mean"]["r1"])
        assert vireid("label", "g.npz", "--k1", "6", "--k2", "2", "--min-samples", "2")[0] == 0

    @pytest.mark.slow
    def test_a_kill_in_the_middle_loses_little_and_changes_nothing(
        self, vireid: Call, run: Path, site: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "many"
        for copy in range(12):
            shutil.copytree(site, folder / str(copy), ignore=shutil.ignore_patterns("*.csv", "*.json*"))
        # The plan is the first file that is replaced, a part the second, another part the third.
        program = (
            "from flows.cli.app import main\n"
            "from tests.flows.kill_points import die_at_call\n"
            "die_at_call('pipeline.runtime.atomic_files', 'Path.replace', 3)\n"
            "main()\n"
        )
        options = ("--modality", "visible", "-o", str(tmp_path / "killed.npz"), "--device", "cpu", "--batch-size", "8")
        run_fresh(program, "embed", str(run), str(folder), *options, exit_code=-signal.SIGKILL)
        parts = tmp_path / "killed.npz.parts"
        assert list(parts.glob("*.npz")) and not (tmp_path / "killed.npz").exists()
        for name in ("killed", "calm"):
            code, _, err = vireid(
                "embed", str(run), str(folder), "--modality", "visible", "-o", f"{name}.npz", "--batch-size", "8"
            )
            assert code == 0 and (name == "calm" or "resuming after" in err)
        with np.load("killed.npz") as killed, np.load("calm.npz") as calm:
            assert all(np.array_equal(killed[name], calm[name]) for name in ("features", "paths", "modalities"))
        assert not parts.exists()

    def test_a_checkpoint_that_was_kept_stands_for_its_own_round(
        self, vireid: Call, run: Path, site: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        shutil.copy(run / "config.json", tmp_path / "run")
        kept = tmp_path / "run" / "checkpoints" / "round-004.pt"
        shutil.copy(run / "checkpoint.pt", kept)
        for name, model in (("folder", run), ("kept", kept)):
            assert vireid("embed", str(model), str(site), "--modality", "visible", "-o", f"{name}.npz")[0] == 0
        with np.load("folder.npz") as folder, np.load("kept.npz") as other:
            np.testing.assert_array_equal(folder["features"], other["features"])

    def test_orientation_tags_are_applied_unless_an_option_forbids_it(
        self, vireid: Call, run: Path, site: Path, tmp_path: Path
    ) -> None:
        photos = tmp_path / "photos"
        photos.mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(site / infrared(site)[0]) as image:
            image.save(photos / "a.png")
            image.transpose(Image.Transpose.ROTATE_90).save(photos / "b.png", exif=exif)
        call = ("embed", str(run), str(photos), "--modality", "infrared", "-o")
        code, _, err = vireid(*call, "applied.npz")
        assert code == 0 and "1 of 2 images have an orientation tag: applied" in err
        code, _, err = vireid(*call, "ignored.npz", "--orientation", "ignore")
        assert code == 0 and "1 of 2 images have an orientation tag that is not applied" in err
        with np.load("applied.npz") as applied, np.load("ignored.npz") as ignored:
            np.testing.assert_allclose(applied["features"][1], applied["features"][0], atol=1e-6)
            assert np.abs(ignored["features"][1] - ignored["features"][0]).max() > 1e-3
            assert str(ignored["encoder"]) == f"{applied['encoder']}-orientation-ignore"
        search = ("search", str(run), "--query", str(photos), "--gallery", str(photos), "--index", "index")
        assert vireid(*search, "--direction", "infrared_to_visible")[0] == 0
        code, _, err = vireid(*search, "--direction", "infrared_to_visible", "--orientation", "ignore")
        assert code == 1 and "made by another encoder" in err and "--orientation" in err

    def test_one_dead_or_hot_pixel_does_not_change_the_vector(
        self, vireid: Call, run: Path, site: Path, tmp_path: Path
    ) -> None:
        photos = tmp_path / "photos"
        photos.mkdir()
        with Image.open(site / infrared(site)[0]) as image:
            counts = np.asarray(image.convert("L")).astype(np.uint16) * 4 + 29_000
        for name, changed in {"clean": {}, "dead": {(5, 5): 0}, "hot": {(50, 9): 65_535}}.items():
            shot = counts.copy()
            for place, value in changed.items():
                shot[place] = value
            Image.fromarray(shot).save(photos / f"{name}.tif")
        for number, path in enumerate(infrared(site)[1::9]):
            shutil.copy(site / path, photos / f"other-{number}{Path(path).suffix}")
        vectors = {}
        for name, options in (("own", ()), ("fixed", ("--deep-range", "0,65535"))):
            call = ("embed", str(run), str(photos), "--modality", "infrared", "-o", f"{name}.npz")
            assert vireid(*call, *options)[0] == 0
            with np.load(f"{name}.npz") as found:
                assert [Path(path).stem for path in found["paths"]][:3] == ["clean", "dead", "hot"]
                vectors[name] = found["features"]
        own, wide = vectors["own"], vectors["fixed"][0]
        assert (own[1:3] @ own[0]).min() >= 0.98
        # Vectors of a small network are nearly parallel; their differences from the others' mean are not.
        clean, *others = np.vstack([own[:3], wide]) - own[3:].mean(axis=0)
        dead, hot, wide = (clean @ one / np.linalg.norm(clean) / np.linalg.norm(one) for one in others)
        assert min(dead, hot) > 0.9
        assert wide < 0.5  # the range that a dead and a hot pixel would take


class TestSearch:
    def test_rank_1_is_that_of_the_evaluation(self, vireid: Call, run: Path, site: Path) -> None:
        manifest = str(site / "manifest.csv")
        evaluated = json.loads((run / "evaluation.json").read_text())["searches"]
        for direction in ("infrared_to_visible", "visible_to_infrared"):
            code, out, err = vireid(
                "search", str(run), "--query", manifest, "--gallery", manifest, "--direction", direction,
                "--query-split", "test", "--gallery-split", "test", "--json",
            )  # fmt: skip
            assert code == 0, err
            found = json.loads(out)["score"]
            (search,) = [one for one in evaluated if one["direction"] == direction]
            assert found["rank1"] == pytest.approx(search["mean"]["r1"])
            assert found["queries"] == search["valid_queries"]

    @needs_milvus
    def test_in_milvus_as_in_a_folder(self, vireid: Call, run: Path, site: Path) -> None:
        manifest, database = str(site / "manifest.csv"), f"milvus://{Path.cwd()}/gallery.db?collection=day"
        call = ("search", str(run), "--query", manifest, "--direction", "infrared_to_visible", "--json", "--gallery")
        in_folder, in_milvus, again = (
            json.loads(vireid(*call, *places)[1])
            for places in ((manifest,), (manifest, "--index", database), (database, "--html", "page.html"))
        )
        assert (in_milvus["index"], again["index"], in_milvus["score"]) == (database, database, in_folder["score"])
        for found in (in_milvus, again):
            for one, other in zip(found["queries"], in_folder["queries"], strict=True):
                scores = {hit["path"]: hit["score"] for hit in other["hits"]}  # many are ties up to rounding
                assert [hit["score"] for hit in one["hits"]] == pytest.approx([*scores.values()], abs=1e-6)
                for hit in one["hits"]:
                    assert hit["score"] == pytest.approx(scores.get(hit["path"], min(scores.values())), abs=1e-6)

    @needs_milvus
    def test_chances_in_milvus_are_those_of_a_folder(self, vireid: Call, run: Path, site: Path) -> None:
        manifest, database = str(site / "manifest.csv"), f"milvus://{Path.cwd()}/gallery.db"
        towards = (str(run), "--direction", "infrared_to_visible")
        strangers = ("--strangers", manifest, "--query-group", "folder", "--index")
        outputs = []
        for place in ("index", database):
            code, out, err = vireid("calibrate", *towards, "--gallery", manifest, *strangers, place)
            assert code == 0, err
            outputs.append(out.splitlines())
        assert [lines[0] for lines in outputs] == ["index: calibrated", f"{database}?collection=gallery: calibrated"]
        assert outputs[0][1:] == outputs[1][1:] and "queries by folder, gallery by image, mean" in outputs[0][2]
        search = ("search", *towards, "--query", manifest, "--query-group", "folder", "--false-match", "0.3", "--json")
        in_folder, in_milvus = (json.loads(vireid(*search, "--gallery", gallery)[1]) for gallery in ("index", database))
        assert in_milvus["threshold"] == pytest.approx(in_folder["threshold"], abs=1e-6)
        edge = in_folder["threshold"] + 1e-5  # a stranger's score: whether a hit with the same one counts is rounding
        ours, theirs = (
            [1 / hit["one_in"] for query in found["queries"] for hit in query["hits"] if hit["score"] > edge]
            for found in (in_milvus, in_folder)
        )
        assert ours and ours == pytest.approx(theirs, abs=0.03)  # a stranger of 37, where a score is one of theirs
        groups = ("--strangers", manifest, "--group", "folder")
        code, _, err = vireid("calibrate", *towards, "--gallery", database, *groups)
        assert code == 1 and "not by groups" in err and "--query-group" in err

    def test_a_table_for_people(self, vireid: Call, run: Path, site: Path) -> None:
        query = site / infrared(site)[0]
        code, out, err = vireid(
            "search", str(run), "--query", str(query), "--gallery", str(site / "manifest.csv"),
            "--direction", "infrared_to_visible", "-k", "3", "--html", "page.html",
        )  # fmt: skip
        assert code == 0 and "index: indexes/manifest-" in err and "page: page.html" in err
        assert [word in out for word in ("rank", "score", "camera", "person")] == [True] * 4
        assert Path("page.html").read_text().count("<figure") == 4

    def test_groups_chances_and_tables(self, vireid: Call, run: Path, site: Path) -> None:
        manifest = str(site / "manifest.csv")
        options = [str(run), "--gallery", manifest, "--gallery-split", "test", "--direction", "infrared_to_visible"]
        search = ["search", *options, "--query", manifest, "--query-split", "test"]
        code, _, err = vireid(*search, "--false-match", "0.2")
        assert code == 1 and "the index has no calibration for single images" in err and "`vireid calibrate`" in err
        code, out, err = vireid("calibrate", *options, "--strangers", manifest, "--group", "folder")
        assert code == 0, err
        assert "single images: 111 strangers; 1 in 10 of them score" in out
        few = "37 strangers; too few for the score that 1 in 10 of them reaches: 100 are needed"
        assert f"queries by folder, gallery by folder, mean: {few}" in out
        err = " ".join(err.split())
        assert "39 images of strangers show 8 people of the gallery" in err and "no person's name" not in err
        files = ["--csv", "hits.csv", "--parquet", "hits.parquet", "--sqlite", "hits.sqlite"]
        code, out, err = vireid(*search, "--group", "folder", "--false-match", "0.5", "--json", *files)
        assert code == 0 and [f"table: hits.{form}" in err for form in ("csv", "parquet", "sqlite")] == [True] * 3
        found = json.loads(out)
        assert len(found["queries"]) == 13 and {query["images"] for query in found["queries"]} == {3}
        hits = [hit for query in found["queries"] for hit in query["hits"]]
        assert hits and all(hit["one_in"] >= 2 and hit["score"] >= found["threshold"] for hit in hits)
        with Path("hits.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["rank"]]
        assert [(row["path"], float(row["score"])) for row in rows] == [(hit["path"], hit["score"]) for hit in hits]
        code, out, err = vireid(*search, "--group", "folder", "-k", "2", "--group-by", "medoid")
        assert code == 0 and "(3 images)" in out and "are not calibrated" in err
        code, out, err = vireid(*search, "-k", "1")
        assert code == 0 and "strangers" in out and "1 in " in out


class TestNewUser:
    def test_two_folders_without_labels_and_three_commands(self, vireid: Call, site: Path, tmp_path: Path) -> None:
        night, day = tmp_path / "crops" / "night", tmp_path / "crops" / "day"
        rows = [line.split(",") for line in (site / "manifest.csv").read_text().splitlines()[1:]]
        for number, row in enumerate(rows):
            place = night if row[1] == "infrared" else day
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(site / row[0], place / f"{number:05d}.jpg")
        crops = str(tmp_path / "crops")
        code, _, err = vireid(
            "data", "manifest", crops, "--pattern", "{camera}/{name}", "--infrared-cameras", "night",
            "--split", "train", "--out", f"{crops}/manifest.csv",
        )  # fmt: skip
        assert code == 0, err
        changes = ["model.architecture=tiny", "model.weights=random", "stages.prepare_rounds=1", "stages.clip_rounds=0"]
        options = [part for change in changes for part in ("--set", change)]
        code, _, err = vireid(
            "train", "smoke", "--data", crops, "--set", "data.name=manifest", "--runs", "runs", "--device", "cpu",
            "--set", "execution.tracking=false", *options,
        )  # fmt: skip
        assert code == 0, err
        (folder,) = Path("runs").glob("smoke-*")
        code, out, err = vireid(
            "search", str(folder), "--query", str(night), "--gallery", str(day), "--direction", "infrared_to_visible",
            "--json",
        )  # fmt: skip
        assert code == 0, err
        found = json.loads(out)
        assert len(found["queries"]) == len(infrared(site)) and found["score"] is None
        assert all(len(query["hits"]) == 10 for query in found["queries"])


class TestExport:
    @pytest.mark.parametrize("form", ["safetensors", "torchscript", "onnx"])
    def test_every_format_is_compared_with_the_encoder(self, vireid: Call, run: Path, form: str) -> None:
        if form == "onnx":
            pytest.importorskip("onnxscript", reason="extra `export` is not installed")
        code, out, err = vireid("export", str(run), "--format", form, "--json")
        assert code == 0, err
        found = json.loads(out)
        assert found["largest_difference"] < 1e-5
        described = json.loads((Path(found["folder"]) / "model.json").read_text())
        assert described["input"]["shape"] == ["batch", 3, 64, 32] and described["format"] == form


class TestRefused:
    def test_a_run_that_has_no_finished_round(self, vireid: Call, run: Path, site: Path, tmp_path: Path) -> None:
        young = tmp_path / "young"
        young.mkdir()
        shutil.copy(run / "config.json", young)
        code, _, err = vireid("embed", str(young), str(site), "--modality", "visible", "-o", "x.npz")
        assert code == 1 and "has no finished round yet" in err and "hint:" in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("embed", "nowhere", "{site}", "--modality", "visible", "-o", "x.npz"), "holds no run"),
            (("embed", "{run}", "{site}", "-o", "x.npz"), "may be visible or infrared"),
            (("embed", "{run}", "{site}", "--modality", "thermal", "-o", "x.npz"), "'thermal' does not exist"),
            (("embed", "{run}", "{site}", "--modality", "visible", "-o", "x.txt"), "written as a .npz archive"),
            (("export", "{run}", "--format", "caffe"), "'caffe' does not exist"),
            (
                ("search", "{run}", "--query", "{site}", "--gallery", "nothing", "--direction", "infrared_to_visible"),
                "there is no file or folder nothing",
            ),
            (("search", "{run}", "--query", "{site}", "--gallery", "{site}", "--direction", "both"), "does not exist"),
        ],
    )
    def test_each_mistake_has_a_hint(
        self, vireid: Call, run: Path, site: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        code, _, err = vireid(*(argument.format(run=run, site=site) for argument in arguments))
        assert code == 1 and words in err and "hint:" in err

    def test_a_checkpoint_that_is_damaged(self, vireid: Call, run: Path, site: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(run, broken)
        content = (broken / "checkpoint.pt").read_bytes()
        (broken / "checkpoint.pt").write_bytes(content[: len(content) // 2])
        code, _, err = vireid("embed", str(broken), str(site), "--modality", "visible", "-o", "x.npz")
        assert code == 1 and "is damaged" in err

    def test_images_of_which_none_can_be_read(self, vireid: Call, run: Path, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.jpg")
        (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
        code, _, err = vireid("embed", str(run), str(tmp_path / "images"), "--modality", "visible", "-o", "x.npz")
        assert code == 1 and "none of 1 images can be read" in err
