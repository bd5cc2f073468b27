"""Every output option of every command: what would be destroyed or cannot be written is refused before any work."""

import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import typer.main

from flows.cli.app import app
from flows.cli.options import Output
from pipeline.runtime.outputs import (
    CAPTIONS,
    FEATURES,
    HITS,
    LABELS,
    MANIFEST,
    PAGE,
    QUERIES,
    VECTORS,
    check_file,
)
from tests.flows.command_line import Call, vireid_command
from tests.reference.feature_sets import identity_features


def _outputs() -> Iterator[tuple[tuple[str, ...], str, Output]]:
    groups = [((), app), *(((one.name,), one.typer_instance) for one in app.registered_groups)]
    for path, group in groups:
        for one in group.registered_commands:
            callback = one.callback
            assert callback is not None
            for name, hint in get_type_hints(callback, include_extras=True).items():
                for mark in getattr(hint, "__metadata__", ()):
                    if isinstance(mark, Output):
                        yield (*path, one.name or callback.__name__.replace("_", "-")), name, mark


OUTPUTS = list(_outputs())
NAMES = [" ".join((*command, name)) for command, name, _ in OUTPUTS]
every_output = pytest.mark.parametrize(("command", "name", "mark"), OUTPUTS, ids=NAMES)
every_file = pytest.mark.parametrize(
    ("command", "name", "mark"),
    [one for one in OUTPUTS if one[2].kind],
    ids=[" ".join((*command, name)) for command, name, mark in OUTPUTS if mark.kind],
)


def test_every_option_that_writes_is_marked() -> None:
    written = {
        "calibrate index", "caption out", "caption-merge out", "compare html", "data folders out", "data index cache",
        "data manifest out", "data synth out", "demo runs", "demo-clip out", "embed csv", "embed out", "embed parquet",
        "embed sqlite", "embed-merge out",
        "evaluate features", "evaluate per_query", "export out", "label out", "look html", "look table",
        "rank per_query", "search csv", "search html", "search index", "search parquet", "search sqlite",
        "serve feedback", "serve index", "server runs", "train runs",
    }  # fmt: skip
    assert set(NAMES) == written
    for line in _words_of_help():
        assert not line[1].startswith(("Write ", "The new ", "The file to write")) or line[0] in written, line


def test_search_and_embed_replace_only_their_own_tables() -> None:
    kinds = {(command[0], name): mark.kind for command, name, mark in OUTPUTS}
    for command, table in (("search", HITS), ("embed", VECTORS)):
        assert [kinds[command, form] for form in ("csv", "parquet", "sqlite")] == [
            table.csv,
            table.parquet,
            table.sqlite,
        ]


def _words_of_help() -> Iterator[tuple[str, str]]:
    for path, group in [((), app), *(((one.name,), one.typer_instance) for one in app.registered_groups)]:
        for one in group.registered_commands:
            assert one.callback is not None
            command = (*path, one.name or one.callback.__name__.replace("_", "-"))
            for name, hint in get_type_hints(one.callback, include_extras=True).items():
                for mark in getattr(hint, "__metadata__", ()):
                    yield " ".join((*command, name)), getattr(mark, "help", None) or ""


def _arguments(command: tuple[str, ...], name: str, given: Path, out: Path) -> list[str]:
    """The command with `given` for every required input, and the output; another required output gets a file beside."""
    others = {one for place, one, _ in OUTPUTS if place == command and one != name}
    found: Any = typer.main.get_command(app)
    for word in command:
        found = found.commands[word]
    arguments, options = list[str](), list[str]()
    for param in found.params:
        beside = given.with_name("beside.npz") if param.name in others else given
        value = str(out) if param.name == name else str(beside) if param.required else None
        if value is not None and param.param_type_name == "argument":
            arguments.append(value)
        elif value is not None:
            options += [param.opts[0], value]
    if command == ("label",) or command[0] == "rank":
        arguments = [str(given)]
    return [*command, *arguments, *options]


def _input(folder: Path) -> Path:
    path = folder / "input.npz"
    np.savez(path, features=identity_features(48, 4, 16), person_ids=np.arange(48) % 4)
    return path


def _refused(vireid: Call, arguments: list[str], words: str) -> None:
    code, printed, err = vireid(*arguments)
    assert (code, printed) == (1, ""), err
    assert err.startswith("error: ") and " hint: " in err and "Traceback" not in err
    assert words in err, err


@every_file
@pytest.mark.parametrize("spelling", ["same", "dots", "link", "hard link"])
def test_an_input_is_never_an_output(
    vireid: Call, tmp_path: Path, command: tuple[str, ...], name: str, mark: Output, spelling: str
) -> None:
    given = _input(tmp_path)
    if not any(word == str(given) for word in _arguments(command, name, given, tmp_path / "out")):
        pytest.skip("the command has no required input")
    before, out = given.read_bytes(), tmp_path / "other"
    match spelling:
        case "same":
            out = given
        case "dots":
            out = tmp_path / "x" / ".." / "input.npz"
            (tmp_path / "x").mkdir()
        case "link":
            out.symlink_to(given)
        case "hard link":
            out.hardlink_to(given)
    _refused(vireid, _arguments(command, name, given, out), f"{mark.option} {out} is also an input of this command")
    assert given.read_bytes() == before


@every_file
def test_what_else_exists_is_kept(
    vireid: Call, tmp_path: Path, command: tuple[str, ...], name: str, mark: Output
) -> None:
    given = _input(tmp_path)
    target, link, nowhere = tmp_path / "notes.txt", tmp_path / "link", tmp_path / "nowhere"
    target.write_text("notes")
    link.symlink_to(target)
    nowhere.symlink_to(tmp_path / "absent")
    folder = tmp_path / "folder"
    folder.mkdir()
    for out, words in [
        (link, "is a link to"),
        (nowhere, "is a link to"),
        (folder, "is a folder"),
        (target / "x.npz", "is a file"),
        (tmp_path / ("n" * 253), "File name too long"),
        (Path("/proc/none/x.npz"), "cannot be written"),
        *([(target, "is not replaced")] if mark.kind is not CAPTIONS else []),
    ]:
        _refused(vireid, _arguments(command, name, given, out), words)
    assert target.read_text() == "notes"
    assert link.is_symlink() and nowhere.is_symlink() and not (tmp_path / "absent").exists()


@every_output
def test_an_output_folder_is_a_folder(
    vireid: Call, tmp_path: Path, command: tuple[str, ...], name: str, mark: Output
) -> None:
    if mark.kind is not None:
        pytest.skip("a file")
    given, nowhere = _input(tmp_path), tmp_path / "nowhere"
    nowhere.symlink_to(tmp_path / "absent")
    for out, words in [(given, ""), (nowhere, "does not exist"), (Path("/proc/none/x"), "cannot be written")]:
        _refused(vireid, _arguments(command, name, given, out), words)


def test_a_device_stays_a_device(vireid: Call, tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    code, _, err = vireid("label", str(_input(tmp_path)), "--k1", "6", "--k2", "2", "-o", str(device))
    assert code == 0, err
    assert stat.S_ISCHR(device.stat().st_mode)


def test_a_pipe_receives_the_whole_file(vireid: Call, tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    options = ("--k1", "6", "--k2", "2")
    given = _input(tmp_path)
    assert vireid("label", str(given), *options, "-o", str(pipe))[0] == 0
    assert vireid("label", str(given), *options, "-o", str(tmp_path / "file.npy"))[0] == 0
    reader.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert received == [(tmp_path / "file.npy").read_bytes()]


def test_a_dash_is_standard_output(vireid: Call, tmp_path: Path) -> None:
    label = ["label", str(_input(tmp_path)), "--k1", "6", "--k2", "2", "-o"]
    assert vireid(*label, str(tmp_path / "file.npy"))[0] == 0
    ended = subprocess.run(vireid_command(*label, "-"), capture_output=True, cwd=tmp_path, check=True)
    assert ended.stdout == (tmp_path / "file.npy").read_bytes() and not (tmp_path / "-").exists()
    _refused(vireid, [*label, "-", "--json"], "--out - and --json both print")


def test_a_block_device_is_refused(vireid: Call, tmp_path: Path) -> None:
    device = tmp_path / "disk"
    try:
        os.mknod(device, stat.S_IFBLK | 0o666, os.makedev(7, 200))
    except PermissionError:
        pytest.skip("only root makes devices")
    _refused(vireid, ["label", str(_input(tmp_path)), "-o", str(device)], "is no regular file")


def test_a_file_of_the_same_command_is_replaced(vireid: Call, tmp_path: Path) -> None:
    out, options = tmp_path / "labels.npy", ("--k2", "2")
    given = _input(tmp_path)
    for k1 in ("5", "6"):
        code, _, err = vireid("label", str(given), "--k1", k1, *options, "-o", str(out))
        assert code == 0, err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("labels")] == ["labels.npy"]


def test_features_in_the_name_of_labels_are_kept(vireid: Call, tmp_path: Path) -> None:
    features = tmp_path / "hours.npy"
    np.save(features, np.ones((4, 3)))
    _refused(vireid, ["label", str(_input(tmp_path)), "-o", str(features)], "does not contain labels")


@pytest.mark.parametrize("kind", [FEATURES, LABELS, MANIFEST, PAGE, QUERIES])
def test_an_empty_file_is_replaced(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "empty").touch()
    check_file(tmp_path / "empty", kind, "--out")


def test_a_name_beside_the_output_is_kept(vireid: Call, tmp_path: Path) -> None:
    given = _input(tmp_path).rename(tmp_path / "labels.npy.tmp.npz")
    (tmp_path / "labels.npy.tmp").write_text("notes")
    assert vireid("label", str(given), "--k1", "6", "--k2", "2", "-o", str(tmp_path / "labels.npy"))[0] == 0
    assert (tmp_path / "labels.npy.tmp").read_text() == "notes"


def test_two_outputs_are_two_files(vireid: Call, tmp_path: Path) -> None:
    both = str(tmp_path / "x.npz")
    _refused(vireid, ["evaluate", str(tmp_path), "--features", both, "--per-query", both], "is also another output")
