"""A caption file loses no line and doubles none."""

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.modality import PerModality
from pipeline.captioning import files
from pipeline.captioning.files import Answer, Provenance, failures_path, image_list, open_writer
from pipeline.captioning.settings import Shard
from pipeline.errors import CheckpointError, ConfigError, DataError

PATHS = [f"cam1/{number}.jpg" for number in range(6)]


def provenance(**changes: object) -> Provenance:
    values = {
        "model_id": "model",
        "revision": "1",
        "prompts": PerModality("Who?", "Who?"),
        "max_new_tokens": 5,
        "dtype": "float32",
        "data_set": "small",
        "shard": None,
        "num_images": len(PATHS),
        "all_images": image_list(PATHS),
        "library_versions": {"torch": "1"},
    }
    return Provenance(**{**values, **changes})


def answers(*paths: str) -> list[Answer]:
    return [Answer(path, "visible", f"a person in {path}") for path in paths]


def write(path: Path, *paths: str, **changes: object) -> None:
    with open_writer(path, provenance(**changes), start_over=False) as writer:
        writer.add(answers(*paths))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_names_path_modality_and_caption(tmp_path):
    file = tmp_path / "new" / "c.jsonl"

    write(file, *PATHS[:2])

    assert lines(file) == [
        {"path": path, "modality": "visible", "caption": f"a person in {path}"} for path in PATHS[:2]
    ]


def test_the_description_names_model_revision_prompt_decoding_and_libraries(tmp_path):
    write(tmp_path / "c.jsonl")

    meta = json.loads((tmp_path / "c.meta.json").read_text())
    assert meta.pop("created").startswith("20")
    assert meta == {
        "schema": "vireid-captions-1",
        "model_id": "model",
        "revision": "1",
        "prompt": {"visible": "Who?", "infrared": "Who?"},
        "decoding": {"max_new_tokens": 5, "do_sample": False, "dtype": "float32"},
        "image_source": "original",
        "data_set": "small",
        "shard": None,
        "images": 6,
        "all_images": image_list(PATHS),
        "library_versions": {"torch": "1"},
    }


def test_a_second_start_knows_what_is_done_and_appends(tmp_path):
    file = tmp_path / "c.jsonl"
    write(file, *PATHS[:2])

    with open_writer(file, provenance(), start_over=False) as writer:
        assert writer.done == set(PATHS[:2])
        writer.add(answers(PATHS[2]))
        assert writer.done == set(PATHS[:3])

    assert [row["path"] for row in lines(file)] == PATHS[:3]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_ends_as_the_uninterrupted_one(tmp_path, data):
    calm, cut = tmp_path / "calm.jsonl", tmp_path / "cut.jsonl"
    for file in (calm, cut):
        file.unlink(missing_ok=True)
        write(file, *PATHS)
    content = cut.read_bytes()
    length = data.draw(st.integers(0, len(content)))
    cut.write_bytes(content[:length])

    with open_writer(cut, provenance(), start_over=False) as writer:
        assert writer.done == set(PATHS[: content[:length].count(b"\n")])
        writer.add(answers(*(path for path in PATHS if path not in writer.done)))

    assert sorted(cut.read_text().splitlines()) == sorted(calm.read_text().splitlines())


def test_a_letter_of_several_bytes_may_be_cut_in_half(tmp_path):
    file = tmp_path / "c.jsonl"
    write(file, PATHS[0])
    file.write_bytes(file.read_bytes() + '{"path": "x.jpg", "caption": "Mä'.encode()[:-1])

    with open_writer(file, provenance(), start_over=False) as writer:
        assert writer.done == {PATHS[0]}


def test_a_kill_before_the_description_was_written_leaves_nothing_in_the_way(tmp_path):
    (tmp_path / "c.jsonl").touch()

    write(tmp_path / "c.jsonl", PATHS[0])

    assert len(lines(tmp_path / "c.jsonl")) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_id": "other"}, 'model_id was "model" and is "other"'),
        ({"revision": "2"}, 'revision was "1" and is "2"'),
        ({"prompts": PerModality("Who?", "What?")}, "prompt was"),
        ({"max_new_tokens": 6}, "decoding was"),
        ({"dtype": "bfloat16"}, "decoding was"),
        ({"data_set": "regdb"}, 'data_set was "small" and is "regdb"'),
        ({"shard": Shard(1, 2)}, 'shard was null and is "1/2"'),
    ],
)
def test_a_file_that_was_made_otherwise_is_refused_and_stays_as_it_is(tmp_path, changes, said):
    file = tmp_path / "c.jsonl"
    write(file, PATHS[0])
    before = file.read_bytes()

    with pytest.raises(ConfigError) as caught:
        write(file, PATHS[1], **changes)

    assert said in caught.value.message
    assert "--new" in caught.value.hint
    assert file.read_bytes() == before


def test_beginning_again_keeps_the_old_file(tmp_path):
    file = tmp_path / "c.jsonl"
    write(file, *PATHS[:2])

    with open_writer(file, provenance(revision="2"), start_over=True) as writer:
        assert writer.done == set()
        writer.add(answers(PATHS[5]))

    assert [row["path"] for row in lines(file)] == [PATHS[5]]
    assert [row["path"] for row in lines(tmp_path / "c.jsonl.old")] == PATHS[:2]
    assert json.loads((tmp_path / "c.meta.json").read_text())["revision"] == "2"
    assert json.loads((tmp_path / "c.meta.json.old").read_text())["revision"] == "1"


@pytest.mark.parametrize("start_over", [False, True])
def test_a_file_of_somebody_else_is_never_touched(tmp_path, start_over):
    file = tmp_path / "captions.jsonl"
    file.write_text('{"path": "a.jpg", "caption": "mine"}\n')

    with (
        pytest.raises(DataError, match=r"exists without captions\.meta\.json"),
        open_writer(file, provenance(), start_over=start_over),
    ):
        pass

    assert file.read_text() == '{"path": "a.jpg", "caption": "mine"}\n'
    assert len(list(tmp_path.iterdir())) == 1


def test_captions_that_come_with_drawn_people_are_never_touched(tmp_path):
    file = tmp_path / "captions.jsonl"
    file.write_text('{"path": "a.jpg", "caption": "mine"}\n')
    (tmp_path / "captions.meta.json").write_text('{"schema": "vireid-captions-1", "model_id": "drawn"}')

    with pytest.raises(ConfigError, match="model_id"), open_writer(file, provenance(), start_over=False):
        pass


def test_other_versions_of_libraries_are_noted_and_no_reason_to_refuse(tmp_path, caplog):
    file = tmp_path / "c.jsonl"
    write(file, PATHS[0])
    with caplog.at_level(logging.WARNING):
        for version in ("2", "2", "1"):
            write(file, library_versions={"torch": version})

    meta = json.loads((tmp_path / "c.meta.json").read_text())
    assert meta["library_versions"] == {"torch": "1"}
    assert meta["later_library_versions"] == [{"torch": "2"}]
    assert "other library versions" in caplog.text


def test_more_images_than_before_are_no_reason_to_refuse(tmp_path):
    file = tmp_path / "c.jsonl"
    write(file, PATHS[0])

    write(file, num_images=7, all_images=image_list([*PATHS, "new.jpg"]))

    meta = json.loads((tmp_path / "c.meta.json").read_text())
    assert (meta["images"], meta["all_images"]["count"]) == (7, 7)


def test_images_without_a_caption_are_noted_apart_and_forgotten_at_the_next_start(tmp_path):
    file = tmp_path / "c.jsonl"
    with open_writer(file, provenance(), start_over=False) as writer:
        writer.add([*answers(PATHS[0]), Answer(PATHS[1], "infrared", "", "said nothing")])
        assert writer.done == {PATHS[0]}

    assert [row["path"] for row in lines(file)] == [PATHS[0]]
    assert lines(failures_path(file)) == [{"path": PATHS[1], "modality": "infrared", "error": "said nothing"}]

    with open_writer(file, provenance(), start_over=False) as writer:
        assert PATHS[1] not in writer.done
    assert not failures_path(file).exists()


def test_two_processes_cannot_write_one_file(tmp_path):
    file = tmp_path / "c.jsonl"
    with open_writer(file, provenance(), start_over=False):
        for start_over in (False, True):
            with (
                pytest.raises(CheckpointError, match="another process writes"),
                open_writer(file, provenance(), start_over=start_over),
            ):
                pass


def test_a_full_disk_is_an_error_and_what_was_written_stays(tmp_path, monkeypatch):
    file = tmp_path / "c.jsonl"

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with open_writer(file, provenance(), start_over=False) as writer:
        writer.add(answers(PATHS[0]))
        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device") as caught:
            writer.add(answers(PATHS[1]))
        monkeypatch.undo()

    assert "it resumes" in caught.value.hint
    assert lines(file)[0]["path"] == PATHS[0]


def test_a_damaged_line_is_named(tmp_path):
    file = tmp_path / "c.jsonl"
    write(file, *PATHS[:2])
    file.write_bytes(b"\0" + file.read_bytes())

    with pytest.raises(DataError, match=r"c\.jsonl:1: not JSON"):
        write(file)


def test_a_name_that_does_not_end_in_jsonl_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="JSON lines"):
        write(tmp_path / "c.json")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match="could not be written"):
        write(tmp_path / "file" / "c.jsonl")
