"""Runs are read as they stand: without their lock, without writing, whatever state they are in."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runtime.folder_lock import lock_folder, lock_holder
from pipeline.storage.run_folder import RunFolder
from pipeline.storage.run_reader import RecordedRun, RoundScore, read_run, read_runs
from tests.fresh_process import run_fresh
from tests.pipeline.reports.recorded_runs import HEADLINE, begin_run, make_run, row

TWO = [row(1, 0.25, 0.5), row(2, 0.25, 0.75)]


def test_a_run_with_all_its_rounds_is_finished(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "one", TWO))
    assert (run.state, run.planned, list(run.rounds)) == ("finished", 2, [1, 2])


def test_a_run_that_nobody_has_open_before_its_last_round_is_interrupted(tmp_path: Path) -> None:
    assert read_run(make_run(tmp_path / "one", TWO[:1])).state == "interrupted"
    assert read_run(make_run(tmp_path / "none", [])).state == "interrupted"


def test_a_run_that_a_process_has_open_is_running_and_is_not_disturbed(tmp_path: Path) -> None:
    with begin_run(tmp_path / "one", TWO[:1]) as folder:
        before = {path: path.read_bytes() for path in folder.path.iterdir()}
        run = read_run(folder.path)
        assert (run.state, run.holder) == ("running", os.getpid())
        assert {path: path.read_bytes() for path in folder.path.iterdir()} == before
    assert read_run(folder.path).state == "interrupted"


def test_a_lock_left_by_a_process_that_is_gone_is_held_by_nobody(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from pipeline.runtime.folder_lock import lock_folder\n"
    script += "lock_folder(Path(sys.argv[1]), 'lock')"
    run_fresh(script, str(tmp_path))
    assert (tmp_path / "lock").read_text().strip().isdecimal()
    assert lock_holder(tmp_path, "lock") is None


def test_a_living_process_that_holds_another_folder_does_not_hold_this_one(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    lock = lock_folder(tmp_path / "there", "lock")
    (tmp_path / "here" / "lock").write_text(f"{os.getpid()}\n")
    assert lock_holder(tmp_path / "there", "lock") == os.getpid()
    assert lock_holder(tmp_path / "here", "lock") is None
    os.close(lock)


def test_the_headline_is_the_first_search_of_the_test_and_the_first_best_round_is_the_best(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "one", TWO))
    assert run.headline == HEADLINE
    assert run.scores == (RoundScore(1, 0.25, 0.5), RoundScore(2, 0.25, 0.75))
    assert run.best == RoundScore(1, 0.25, 0.5)


def test_a_run_without_a_test_is_known_by_its_validation(tmp_path: Path) -> None:
    rows = [{"round": 1, "val/sysu/val/1-shot/agw/r1": 0.5, "val/sysu/val/1-shot/agw/map": 0.25}]
    run = read_run(make_run(tmp_path / "one", rows))
    assert (run.headline, run.scores) == ("val/sysu/val/1-shot/agw", (RoundScore(1, 0.5, 0.25),))


def test_rounds_that_were_not_measured_have_no_score(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "one", [row(1), row(2, 0.5, 0.5)]))
    assert run.scores == (RoundScore(2, 0.5, 0.5),)
    assert read_run(make_run(tmp_path / "none", [row(1)])).best is None


def test_a_round_whose_timings_are_not_yet_written_is_there_without_them(tmp_path: Path) -> None:
    path = make_run(tmp_path / "one", TWO)
    (path / "timings.jsonl").write_text('{"seconds/total": 2.5}\n')
    run = read_run(path)
    assert run.rounds[1]["seconds/total"] == 2.5
    assert "seconds/total" not in run.rounds[2]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "damaged"),
        ("config.json", "[1]", "damaged"),
        ("config.json", '{"name": "a tool of somebody"}', "not written by this program"),
        ("config.json", '{"digest": "a", "config": {}}', "one is a run of format 1; this version reads and writes"),
        ("config.json", '{"format": 99, "digest": "a", "config": {}}', "one is a run of format 99"),
        ("config.json", '{"format": 2, "digest": "a", "config": 1}', "holds no settings"),
        ("config.json", '{"format": 2, "digest": "a", "config": {"name": "x", "gone": 1}}', "gone does not exist"),
        ("metrics.jsonl", "\x00\x01", "damaged"),
        ("metrics.jsonl", "1\n", "damaged"),
        ("metrics.jsonl", "{}\n", "line 1 has no round"),
        ("metrics.jsonl", '{"round": 2}\n{"round": 1}\n', "line 2 has a round out of order"),
        ("metrics.jsonl", '{"round": 1, "test/a/r1": "0.5"}\n', "line 1 has no number in test/a/r1"),
        ("timings.jsonl", '{"seconds/total": []}\n', "line 1 has no number in seconds/total"),
        ("config.json", "<!doctype html>", "config.json is damaged: it is a web page"),
        ("config.json", "[" * 100_000, "nested too deeply"),
        ("config.json", '{"a": ' * 50 + "1" + "}" * 50, "nested too deeply"),
        ("config.json", '{"format": ' + "9" * 5_000 + "}", "a number of 5,000 digits"),
    ],
)
def test_what_is_damaged_or_foreign_is_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    path = make_run(tmp_path / "one", TWO)
    (path / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_run(path)


def opened_to_train(path: Path) -> None:
    RunFolder.open(path, {}, "a")


def opened_to_evaluate(path: Path) -> None:
    from pipeline.methods import method_of
    from pipeline.runs.open import reopen_run

    with reopen_run(path, method_of, data_root=None, device="cpu"):
        pass


def opened_to_embed(path: Path) -> None:
    from pipeline.inference.run_encoder import read_run_encoder

    read_run_encoder(path, "cpu")


def opened_to_sync(path: Path) -> None:
    from pipeline.tracking.sync import sync_run

    sync_run(path)


@pytest.mark.parametrize("opened", [opened_to_train, opened_to_evaluate, opened_to_embed, opened_to_sync, read_run])
def test_a_run_of_another_format_is_refused_by_name(tmp_path: Path, opened: Callable[[Path], object]) -> None:
    path = make_run(tmp_path / "old", TWO)
    record = json.loads((path / "config.json").read_text())
    del record["format"]  # as version 0.1 wrote it
    (path / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="old is a run of format 1; this version reads") as caught:
        opened(path)
    assert caught.value.hint


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    path = make_run(tmp_path / "one", TWO)
    (path / "metrics.jsonl").write_bytes(b'{"round": "\xff"}\n')
    with pytest.raises(CheckpointError, match="damaged"):
        read_run(path)


def test_what_is_no_folder_of_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="holds no run"):
            read_run(path)


def test_all_runs_of_a_folder_are_read_and_one_without_its_record_is_an_error_in_its_place(tmp_path: Path) -> None:
    make_run(tmp_path / "a", TWO)
    (make_run(tmp_path / "b", TWO) / "config.json").unlink()
    make_run(tmp_path / "c", TWO[:1])
    for name in ("images", "mlflow-artifacts", "server", "notes"):  # nothing says that these should be runs
        (tmp_path / name).mkdir()
    (tmp_path / "server" / "prefect.log").write_text("")
    (tmp_path / "mlflow.db").write_text("")
    first, second, third = read_runs(tmp_path)
    assert isinstance(first, RecordedRun) and first.name == "a"
    assert isinstance(second, CheckpointError) and "b holds no run" in second.message
    assert isinstance(third, RecordedRun) and third.name == "c"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        list(read_runs(tmp_path / "absent"))


def test_runs_are_read_without_torch() -> None:
    run_fresh("import sys, pipeline.storage.run_reader; sys.exit('torch' in sys.modules)")


def test_a_run_with_camera_proxies_is_marked(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "one", TWO, "memory.cameras=proxies"))
    assert run.method == "cclnet, cameras used"
    assert run.to_dict()["marks"] == ["cameras used"]
    assert read_run(make_run(tmp_path / "other", TWO)).method == "cclnet"


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    record = read_run(make_run(tmp_path / "one", TWO)).to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["last"] == {"round": 2, "r1": 0.25, "map": 0.75}
    assert record["best_by_test"] == {"round": 1, "r1": 0.25, "map": 0.5}
