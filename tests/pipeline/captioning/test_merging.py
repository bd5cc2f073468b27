"""Shards: every image in one of them, and put together only when nothing is missing or there twice."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioning.files import image_list, merge_captions, open_writer
from pipeline.errors import ConfigError, DataError
from pipeline.runtime.shards import Shard
from tests.pipeline.captioning.test_caption_writer import answers, lines, provenance

PATHS = [f"cam{camera}/{number:04d}.jpg" for camera in (1, 2) for number in range(10)]


def write_shard(folder: Path, number: int, count: int = 3, leave_out: int = 0, **changes: object) -> Path:
    shard = Shard(number, count)
    paths = [path for path in PATHS if shard.holds(path)]
    file = folder / f"shard-{number}-of-{count}.jsonl"
    described = {"shard": shard, "num_images": len(paths), "all_images": image_list(PATHS)} | changes
    with open_writer(file, provenance(**described), start_over=False) as writer:
        writer.add(answers(*paths[: len(paths) - leave_out]))
    return file


def shards(folder: Path) -> list[Path]:
    return [write_shard(folder, number) for number in (1, 2, 3)]


@given(st.text(min_size=1), st.integers(1, 9))
def test_every_path_is_in_exactly_one_shard(path, count):
    assert sum(Shard(number, count).holds(path) for number in range(1, count + 1)) == 1


def test_shards_are_of_about_equal_size():
    paths = [f"cam1/{number}.jpg" for number in range(4000)]

    # Binomial: 1,000 of 4,000 expected in each quarter, standard deviation 27.
    for number in range(1, 5):
        assert 850 <= sum(Shard(number, 4).holds(path) for path in paths) <= 1150


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_what_is_no_part_of_a_whole_is_refused(text):
    with pytest.raises(ConfigError, match="is not a shard"):
        Shard.parse(text)


def test_shards_put_together_are_the_whole_file_in_the_order_of_paths(tmp_path):
    out = tmp_path / "new" / "whole.jsonl"

    assert merge_captions(out, list(reversed(shards(tmp_path)))) == 20

    assert [row["path"] for row in lines(out)] == PATHS
    assert lines(out)[0] == {"path": PATHS[0], "modality": "visible", "caption": f"a person in {PATHS[0]}"}
    meta = json.loads((tmp_path / "new" / "whole.meta.json").read_text())
    assert (meta["shard"], meta["images"], meta["merged_from"], meta["model_id"]) == (None, 20, 3, "model")


def refusal(folder: Path, parts: list[Path]) -> str:
    with pytest.raises(DataError) as caught:
        merge_captions(folder / "whole.jsonl", parts)
    assert not (folder / "whole.jsonl").exists()
    return caught.value.message


def test_a_shard_that_is_missing_is_named(tmp_path):
    first, _, third = shards(tmp_path)

    assert refusal(tmp_path, [first, third]) == "shard 2 is missing"


def test_a_shard_given_twice_is_an_overlap(tmp_path):
    written = shards(tmp_path)

    assert "images in two shards" in refusal(tmp_path, [*written, written[0]])


def test_an_image_in_two_shards_is_named_with_both_places(tmp_path):
    first, second, third = shards(tmp_path)
    second.write_text(second.read_text() + first.read_text().splitlines()[0] + "\n")

    message = refusal(tmp_path, [first, second, third])

    assert message.startswith("images in two shards: 1 (")
    assert f"({first.name}:1 and {second.name}:" in message


def test_a_shard_that_is_not_complete_is_named_with_its_numbers(tmp_path):
    first, second, _ = shards(tmp_path)
    third = write_shard(tmp_path / "other", 3, leave_out=1)
    size = sum(Shard(3, 3).holds(path) for path in PATHS)

    assert f"{third} has {size - 1} of {size} captions" in refusal(tmp_path, [first, second, third])


def test_an_image_exchanged_for_another_is_a_gap(tmp_path):
    first, second, third = shards(tmp_path)
    third.write_text(third.read_text().replace(lines(third)[0]["path"], "other.jpg"))

    assert "captions of other images than those of the data set" in refusal(tmp_path, [first, second, third])


def test_shards_of_different_divisions_are_refused(tmp_path):
    other = write_shard(tmp_path / "other", 1, count=2, num_images=0)
    other.write_text("")
    first = write_shard(tmp_path, 1)
    other.write_text(json.dumps({"path": "unheard-of.jpg", "caption": "x"}) + "\n")

    assert refusal(tmp_path, [first, other]) == "the shards are parts of 2 and of 3"


def test_shards_that_were_made_otherwise_are_refused(tmp_path):
    first = write_shard(tmp_path, 1)
    second = write_shard(tmp_path, 2, revision="2")

    assert 'revision was "1" and is "2"' in refusal(tmp_path, [first, second])


def test_a_file_that_is_no_shard_is_refused(tmp_path):
    whole = write_shard(tmp_path, 1, shard=None)

    assert "names its shard" in refusal(tmp_path, [whole])


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "whole.jsonl").write_text("mine")

    with pytest.raises(DataError, match="exists"):
        merge_captions(tmp_path / "whole.jsonl", shards(tmp_path))

    assert (tmp_path / "whole.jsonl").read_text() == "mine"
    with pytest.raises(ConfigError, match="JSON lines"):
        merge_captions(tmp_path / "whole.txt", [])
