"""A run folder survives kills, full disks and second processes."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from clustering.dbscan import Clustering
from models.modality import PerModality
from pipeline.errors import CheckpointError
from pipeline.storage.label_files import RoundLabels
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.replay import TrackingNote, read_note, write_note

CONFIG = {"name": "smoke", "seed": 1, "labelling": {"eps": 0.6}, "milestones": (30, 50)}
ROWS = [{"round": 1, "train/loss/total": 2.5}, {"round": 2, "train/loss/total": 1.25}]


def open_run(path: Path, config=CONFIG, digest: str = "aaaa") -> RunFolder:
    return RunFolder.open(path, config, digest)


def some_labels(last: int) -> RoundLabels:
    one = Clustering(labels=np.array([0, -1, 1, last]), core=np.array([True, False, True, False]))
    return RoundLabels(PerModality(one, Clustering(labels=np.array([0, -1]), core=np.array([True, False]))))


@contextmanager
def disk_that_ends_after(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let any file grow further, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_configuration_is_on_disk_before_anything_else(tmp_path):
    with open_run(tmp_path / "runs" / "smoke"):
        assert sorted(entry.name for entry in (tmp_path / "runs" / "smoke").iterdir()) == ["config.json", "lock"]
        content = json.loads((tmp_path / "runs" / "smoke" / "config.json").read_text())
    assert content == {"format": 2, "digest": "aaaa", "config": {**CONFIG, "milestones": [30, 50]}}


def test_a_run_of_the_same_settings_is_gone_on_with(tmp_path):
    with open_run(tmp_path) as run:
        run.save_checkpoint({"completed": 3})
    with open_run(tmp_path, {**CONFIG, "device": "cuda"}) as run:  # another device, the same digest
        assert run.load_checkpoint() == {"completed": 3}
        assert run.config == {**CONFIG, "milestones": [30, 50]}  # the first start's record stands


def test_a_run_of_other_settings_is_refused_and_the_difference_named(tmp_path):
    open_run(tmp_path).close()
    with pytest.raises(CheckpointError, match=r"labelling\.eps 0\.6 there, 0\.5 here$") as caught:
        open_run(tmp_path, {**CONFIG, "labelling": {"eps": 0.5}}, digest="bbbb")
    assert "another name" in caught.value.hint
    open_run(tmp_path).close()  # the refusal left no lock behind


def test_a_folder_of_other_things_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "notes.tmp").write_text("mine")
    with pytest.raises(CheckpointError, match=r"first: notes\.tmp"):
        open_run(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.tmp"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be used as a run folder"):
        open_run(tmp_path / "file")


def test_reopening_takes_the_recorded_configuration(tmp_path):
    open_run(tmp_path).close()
    with RunFolder.reopen(tmp_path) as run:
        assert (run.config["seed"], run.digest) == (1, "aaaa")


def test_a_folder_that_cannot_be_written_is_reopened_for_reading_only(tmp_path, monkeypatch):
    open_run(tmp_path).close()
    (tmp_path / "lock").unlink()
    monkeypatch.setattr("pipeline.storage.run_folder.is_lockable", lambda *_: False)
    with RunFolder.reopen(tmp_path, reading=True) as run:
        assert run.digest == "aaaa"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_reopening_a_folder_without_a_run_is_refused_and_makes_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        RunFolder.reopen(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_config_file_of_another_program_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(CheckpointError, match="not written by this program"):
        open_run(tmp_path)


def test_a_second_opening_in_this_process_is_refused(tmp_path):
    with open_run(tmp_path), pytest.raises(CheckpointError, match=f"in use by process {os.getpid()}$"):
        open_run(tmp_path)
    open_run(tmp_path).close()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    # Takes what `RunFolder.open` takes, without the seconds that importing torch costs.
    script = (
        "import pathlib, sys; from pipeline.runtime.folder_lock import lock_folder\n"
        "lock_folder(pathlib.Path(sys.argv[1]), 'lock')\n"
        "sys.stdout.write('open'); sys.stdout.flush(); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.read(4) == "open"
        with pytest.raises(CheckpointError, match=f"in use by process {holder.pid}$"):
            open_run(tmp_path, {})
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        open_run(tmp_path, {}).close()  # the lock went with the process, its file did not
        assert (tmp_path / "lock").exists()
    finally:
        holder.kill()
        holder.communicate()


def test_closing_twice_does_nothing(tmp_path):
    run = open_run(tmp_path)
    run.close()
    run.close()


def test_a_checkpoint_comes_back_as_it_was_given(tmp_path):
    weights = torch.nn.BatchNorm1d(3)
    generator = torch.Generator().manual_seed(5)
    state = {
        "weights": weights.state_dict(),
        "optimiser": {"state": {0: {"step": 3.0}}, "param_groups": [{"betas": (0.9, 0.999), "params": [0, 1]}]},
        "generator": generator.get_state(),
        "numpy_generator": np.random.default_rng(1).bit_generator.state,  # holds integers of 128 bits
        "metrics": ROWS,
        "stage": "clip",
        "text": None,
        "milestones": (30, 50),
    }
    with open_run(tmp_path) as run:
        assert run.load_checkpoint() is None
        run.save_checkpoint(state)
        loaded = run.load_checkpoint()
    assert loaded is not None
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded["weights"][name], tensor) for name, tensor in weights.state_dict().items())
    assert torch.equal(loaded["generator"], state["generator"])
    for name in ("optimiser", "numpy_generator", "metrics", "stage", "text", "milestones"):
        assert loaded[name] == state[name]


@pytest.mark.parametrize("value", [np.float64(1.5), np.zeros(2), Path("x"), {1, 2}])
def test_a_checkpoint_of_what_could_not_be_read_back_is_our_mistake(tmp_path, value):
    with open_run(tmp_path) as run, pytest.raises(AssertionError, match="cannot be read back"):
        run.save_checkpoint({"nested": [{"value": value}]})


def test_a_disk_that_is_full_half_way_leaves_the_old_checkpoint(tmp_path):
    with open_run(tmp_path) as run:
        run.save_checkpoint({"completed": 1})
        with (
            disk_that_ends_after(200_000),
            pytest.raises(CheckpointError, match=r"checkpoint\.pt could not be written: File too large") as caught,
        ):
            run.save_checkpoint({"completed": 2, "weights": torch.zeros(100_000)})  # 400 kB
        assert "earlier files are intact" in caught.value.hint
        assert run.load_checkpoint() == {"completed": 1}
        assert not list(tmp_path.glob("*.tmp"))


def test_a_write_that_fails_for_want_of_space_says_so(tmp_path, monkeypatch):
    def full(state: object, file: object) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with open_run(tmp_path) as run:
        run.save_checkpoint({"completed": 1})
        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match="No space left on device") as caught:
            run.save_checkpoint({"completed": 2})
        assert caught.value.hint.startswith("free some space")
        assert run.load_checkpoint() == {"completed": 1}
        assert not list(tmp_path.glob("*.tmp"))


def test_a_disk_that_silently_keeps_less_than_it_was_given_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    whole = torch.save

    def short(state: object, file: object) -> None:
        whole(state, file)
        file.truncate(file.tell() - 100)

    with open_run(tmp_path) as run:
        run.save_checkpoint({"completed": 1})
        monkeypatch.setattr(torch, "save", short)
        with pytest.raises(CheckpointError, match="the disk returned other bytes"):
            run.save_checkpoint({"completed": 2})
        assert run.load_checkpoint() == {"completed": 1}


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path, monkeypatch):
    def broken(state: object, file: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(torch, "save", broken)
    with open_run(tmp_path) as run, pytest.raises(RuntimeError, match="device lost"):
        run.save_checkpoint({"completed": 2})
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_short_is_refused(tmp_path, keep):
    with open_run(tmp_path) as run:
        run.save_checkpoint({"weights": torch.ones(1000)})
        content = (tmp_path / "checkpoint.pt").read_bytes()
        (tmp_path / "checkpoint.pt").write_bytes(content[: int(keep * len(content))])
        with pytest.raises(
            CheckpointError, match=r"checkpoint\.pt is damaged \([\d,]+ bytes; (its end is missing|it is empty)\)"
        ):
            run.load_checkpoint()


def test_a_checkpoint_with_one_changed_byte_is_refused(tmp_path):
    with open_run(tmp_path) as run:
        run.save_checkpoint({"weights": torch.ones(100_000)})
        content = bytearray((tmp_path / "checkpoint.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="is damaged"):
            run.load_checkpoint()


def test_what_a_killed_process_had_half_written_is_removed(tmp_path):
    with open_run(tmp_path) as run:
        run.save_labels(1, some_labels(1))
    (tmp_path / ".checkpoint.pt.tmp").write_bytes(b"half")
    (tmp_path / "labels" / ".round-002.npz.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_text("mine")
    with open_run(tmp_path) as run:
        assert [path.name for path in tmp_path.rglob("*.tmp")] == ["notes.tmp"]
        assert run.load_checkpoint() is None


def test_a_process_that_was_killed_before_its_configuration_was_in_place_left_nothing_in_the_way(tmp_path):
    (tmp_path / "lock").write_text("1\n")
    (tmp_path / ".config.json.tmp").write_text("{")
    open_run(tmp_path).close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.json", "lock"]


def test_metrics_are_one_line_a_round_and_the_same_bytes_for_the_same_rows(tmp_path):
    with open_run(tmp_path) as run:
        assert run.read_metrics() == []
        run.write_metrics(ROWS)
        assert run.read_metrics() == ROWS
    expected = '{"round": 1, "train/loss/total": 2.5}\n{"round": 2, "train/loss/total": 1.25}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == expected


@pytest.mark.parametrize("on_disk", [0, 1, 2, 3])
def test_a_kill_between_checkpoint_and_metrics_neither_loses_nor_doubles_a_round(tmp_path, on_disk):
    rows = [{"round": number} for number in (1, 2, 3)]
    with open_run(tmp_path) as run:
        run.write_metrics(rows[:on_disk])  # whatever a killed process had got to
        run.save_checkpoint({"completed": 2, "metrics": rows[:2]})
    with open_run(tmp_path) as run:
        checkpoint = run.load_checkpoint()
        assert checkpoint is not None
        run.write_metrics(checkpoint["metrics"])
        assert run.read_metrics() == rows[:2]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    with open_run(tmp_path) as run:
        run.write_metrics([{"round": 1, "a": float("nan"), "b": float("inf"), "c": 1.0}])
        assert run.read_metrics() == [{"round": 1, "a": None, "b": None, "c": 1.0}]


def test_timings_are_kept_apart_from_metrics(tmp_path):
    with open_run(tmp_path) as run:
        run.write_timings([{"round": 1, "extract": 0.25}])
        assert (run.read_timings(), run.read_metrics()) == ([{"round": 1, "extract": 0.25}], [])


def test_a_damaged_line_is_an_error_that_names_the_file(tmp_path):
    with open_run(tmp_path) as run:
        (tmp_path / "metrics.jsonl").write_text('{"round": 1}\n{"rou')
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged"):
            run.read_metrics()


def test_labels_of_several_rounds_are_kept(tmp_path):
    with open_run(tmp_path) as run:
        first, second = run.save_labels(9, some_labels(1)), run.save_labels(12, some_labels(0))
        assert [path.name for path in (first, second)] == ["round-009.npz", "round-012.npz"]
        for path, last in ((first, 1), (second, 0)):
            with np.load(path, allow_pickle=False) as loaded:
                for modality, expected in some_labels(last).clusterings.items():
                    np.testing.assert_array_equal(loaded[f"{modality}_labels"], expected.labels)
                    np.testing.assert_array_equal(loaded[f"{modality}_core"], expected.core)


def test_a_label_file_is_the_same_bytes_for_the_same_labels(tmp_path):
    with open_run(tmp_path) as run:
        once = run.save_labels(1, some_labels(1)).read_bytes()
        assert run.save_labels(1, some_labels(1)).read_bytes() == once


def test_a_label_file_holds_plain_arrays_under_stated_names(tmp_path):
    with open_run(tmp_path) as run, np.load(run.save_labels(1, some_labels(1)), allow_pickle=False) as arrays:
        names = {"visible_labels", "visible_core", "infrared_labels", "infrared_core"}
        assert set(arrays) == names
        assert arrays["visible_labels"].tolist() == [0, -1, 1, 1]


def test_reports_and_identifiers_are_kept_and_replaced(tmp_path):
    with open_run(tmp_path) as run:
        assert (run.read_evaluation(), read_note(run.path)) == (None, None)
        run.write_evaluation({"format": 1})
        path = run.write_evaluation({"format": 1, "searches": [{"deviation": None}]})
        assert run.read_evaluation() == {"format": 1, "searches": [{"deviation": None}]}
        assert path.name == "evaluation.json"
        write_note(run.path, TrackingNote("abc", rounds=3))
        assert read_note(run.path) == TrackingNote("abc", rounds=3)
        assert run.write_environment({"python": "3.11"}).name == "environment.json"


def test_text_files_are_valid_utf8_json_for_other_programs(tmp_path):
    with open_run(tmp_path) as run:
        path = run.write_environment({"place": "Zürich"})
    assert re.fullmatch(r'\{\n  "place": "Zürich"\n\}\n', path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"<html>", "it is a web page"),
        (b"\x80\x02", "it is a pickle"),
    ],
)
def test_a_checkpoint_that_is_something_else_is_named(tmp_path, content, message):
    with open_run(tmp_path) as run:
        run.checkpoint_path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            run.load_checkpoint()


def test_a_checkpoint_that_holds_code_or_no_parts_is_refused(tmp_path):
    trace = tmp_path / "executed"

    class Runs:
        def __reduce__(self):
            return Path.touch, (trace,)

    with open_run(tmp_path) as run:
        torch.save({"completed": Runs()}, run.checkpoint_path)
        with pytest.raises(CheckpointError, match="it holds other objects than tensors") as caught:
            run.load_checkpoint()
        assert "weights_only" not in caught.value.message and not trace.exists()
        torch.save([1, 2], run.checkpoint_path)
        with pytest.raises(CheckpointError, match="is no checkpoint of a run"):
            run.load_checkpoint()
