"""`vireid caption`, with real classes of transformers and random weights."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.captioning import models
from pipeline.captioning.models import ChatCaptioner
from pipeline.data.captions.store import load_captions
from pipeline.data.dataset import read_dataset
from pipeline.data.synthetic.writer import generate_dataset
from tests.flows.command_line import Call
from tests.fresh_process import run_fresh

# In the order in which the command meets them; each start goes on from what is on disk.
KILL_POINTS = (
    "pipeline.captioning.files:atomic_files.write_json:1",  # the file is there, its description is not
    "pipeline.captioning.models:_generate:2",  # the second batch is being described
    "pipeline.captioning.files:_append:3",  # the third batch of this start is described, not written
    "caption_writer:half:2",  # its last line lacks four bytes
    "pipeline.captioning.files:os.fsync:4",  # written, not synced
    "pipeline.captioning.files:os.fsync:1",  # while the half line is dropped
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A drawn data set in two layouts."""
    place = tmp_path_factory.mktemp("drawn")
    for layout in ("sysu", "regdb", "manifest"):
        generate_dataset(place / layout, size="smoke", layout=layout, difficulty="easy", height=32, width=16, workers=1)
    return {"sysu": place / "sysu", "regdb": place / "regdb", "manifest": place / "manifest" / "manifest.csv"}


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def options(model: Path, out: Path) -> list[str]:
    return ["--model", str(model), "--out", str(out), "--device", "cpu", "--max-new-tokens", "8"]


@pytest.mark.parametrize("family", ["llava", "blip"])
def test_every_training_image_gets_a_caption_that_training_can_read(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path, family: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(f"tiny_{family}")
    out = tmp_path / "c.jsonl"
    command = ["caption", "sysu", str(drawn["sysu"]), *options(model, out), "--batch-size", "64"]
    command += ["--prompt", "a person with"]  # BLIP's captions begin so; with random weights they might be empty

    code, text, err = vireid(*command)

    assert code == 0, err
    dataset = read_dataset("sysu", drawn["sysu"])
    number = sum(map(len, dataset.training.images))
    assert f"{number} images have a caption ({number} new, 0 failed, " in text
    captions = load_captions(dataset, out)
    assert all(all(some) for some in captions.texts)
    said = {row["path"]: row["caption"] for row in lines(out)}
    assert captions.texts.visible == tuple(said[path] for path in dataset.training.images.visible.paths)
    meta = json.loads((tmp_path / "c.meta.json").read_text())
    assert (meta["model_id"], meta["revision"][:7]) == (f"tiny-{family}", "sha256:")

    before = out.read_bytes()
    code, text, _ = vireid(*command, "--json")
    assert code == 0
    assert {name: json.loads(text)[name] for name in ("captioned", "before", "failed")} == {
        "captioned": 0,
        "before": number,
        "failed": 0,
    }
    assert out.read_bytes() == before


@pytest.mark.slow
def test_captioning_killed_again_and_again_equals_the_uninterrupted_one(
    vireid: Call, drawn: dict[str, Path], tiny_llava: Path, tmp_path: Path
) -> None:
    calm, killed = tmp_path / "calm.jsonl", tmp_path / "killed.jsonl"
    assert vireid("caption", "sysu", str(drawn["sysu"]), *options(tiny_llava, calm), "--batch-size", "16")[0] == 0

    command = ["caption", "sysu", str(drawn["sysu"]), *options(tiny_llava, killed), "--batch-size", "16"]
    program = "import sys; from tests.flows.caption_kill_points import main; main(*sys.argv[1:])"
    run_fresh(program, " ".join(KILL_POINTS), *command)

    expected, found = (sorted(path.read_text().splitlines()) for path in (calm, killed))
    assert found == expected
    assert len({row["path"] for row in lines(killed)}) == len(found)


def test_an_interruption_says_that_the_same_command_goes_on(
    vireid: Call, drawn: dict[str, Path], tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.jsonl"
    real, calls = ChatCaptioner.describe, []

    def interrupted(self: ChatCaptioner, images: list) -> list[str]:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(ChatCaptioner, "describe", interrupted)
    command = ["caption", "sysu", str(drawn["sysu"]), *options(tiny_llava, out), "--batch-size", "20"]

    code, _, err = vireid(*command)

    assert code == 130
    assert "finished work is kept, the same command resumes it" in err
    assert len(lines(out)) == 40

    assert vireid(*command)[0] == 0
    paths = [row["path"] for row in lines(out)]
    assert len(paths) == len(set(paths)) == sum(map(len, read_dataset("sysu", drawn["sysu"]).training.images))


def test_out_of_memory_on_the_device_halves_the_batch_and_is_said_once(
    vireid: Call, drawn: dict[str, Path], tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import LlavaForConditionalGeneration

    real, sizes = LlavaForConditionalGeneration.generate, []

    def generate(self: object, **inputs: object) -> object:
        size = len(inputs["input_ids"])
        sizes.append(size)
        if size > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, **inputs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", generate)
    out = tmp_path / "c.jsonl"

    code, _, err = vireid("caption", "sysu", str(drawn["sysu"]), *options(tiny_llava, out), "--batch-size", "100")

    assert code == 0
    assert sizes[:4] == [100, 50, 25, 25]
    assert max(sizes[2:]) == 25
    assert err.count("out of memory with 100 images at once: continuing with fewer") == 1
    assert len(lines(out)) == sum(map(len, read_dataset("sysu", drawn["sysu"]).training.images))


def test_shards_are_captioned_apart_and_put_together(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["caption", "sysu", str(drawn["sysu"]), "--model", "stub"]
    assert vireid(*command)[0] == 0
    for number in (1, 2):
        assert vireid(*command, "--shard", f"{number}/2")[0] == 0
    parts = [f"runs/captions/sysu-mm01.shard-{number}-of-2.jsonl" for number in (1, 2)]

    code, text, _ = vireid("caption-merge", "merged.jsonl", *parts)

    assert code == 0
    whole = Path("runs/captions/sysu-mm01.jsonl").read_text().splitlines()
    assert f"merged.jsonl: {len(whole)} captions of 2 shards" in text
    assert sorted(Path("merged.jsonl").read_text().splitlines()) == sorted(whole)
    code, _, err = vireid("caption-merge", "again.jsonl", parts[0])
    assert (code, "shard 2 is missing" in err) == (1, True)


def test_all_splits_of_regdb_share_one_file_and_one_split_can_be_asked_for(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path
) -> None:
    command = ["caption", "regdb", str(drawn["regdb"]), "--model", "stub", "--out"]
    every, one = tmp_path / "every.jsonl", tmp_path / "one.jsonl"

    assert vireid(*command, str(every))[0] == 0
    assert vireid(*command, str(one), "--split", "2")[0] == 0

    # 24 people with ten images of each modality; half of them are trained on in a split.
    assert (len(lines(every)), len(lines(one))) == (480, 240)
    for split in (1, 2, 10):
        assert load_captions(read_dataset("regdb", drawn["regdb"], split=split), every).texts.visible

    # The file of one split goes on to all of them.
    assert vireid(*command, str(one))[0] == 0
    assert len(lines(one)) == 480


def test_images_of_a_manifest_are_captioned_from_where_its_paths_start(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere.csv"
    shutil.copy(drawn["manifest"], moved)
    out = tmp_path / "c.jsonl"

    code, _, err = vireid(
        "caption", "manifest", str(moved), "--root", str(drawn["manifest"].parent), "--model", "stub", "-o", str(out)
    )

    assert code == 0, err
    dataset = read_dataset("manifest", moved, images_root=drawn["manifest"].parent)
    assert load_captions(dataset, out).texts.infrared


def test_each_modality_is_asked_in_its_own_way(vireid: Call, drawn: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    command = ["caption", "sysu", str(drawn["sysu"]), "--model", "stub", "--out", str(out)]

    assert vireid(*command, "--prompt", "Who?", "--infrared-prompt", "Who, without colours?")[0] == 0

    starts = {row["modality"]: row["caption"].split("?")[0] for row in lines(out)}
    assert starts == {"visible": "Who", "infrared": "Who, without colours"}
    code, _, err = vireid(*command, "--prompt-variant", "greyscale")
    assert code == 1
    assert "was begun with other options: prompt was" in err and "--new" in err
    assert vireid(*command, "--prompt-variant", "greyscale", "--new")[0] == 0
    assert (tmp_path / "c.jsonl.old").exists()


def test_an_image_that_cannot_be_read_ends_with_code_1_and_is_done_by_the_same_command_later(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(drawn["sysu"], root)
    path = read_dataset("sysu", root).training.images.visible.paths[0]
    good = (root / path).read_bytes()
    (root / path).write_bytes(good[:200])
    out = tmp_path / "c.jsonl"
    command = ["caption", "sysu", str(root), "--model", "stub", "--out", str(out)]

    code, text, err = vireid(*command)

    assert code == 1
    assert "1 failed" in text
    assert "1 images have no caption" in err and "c.errors.jsonl" in err
    (root / path).write_bytes(good)
    assert vireid(*command)[0] == 0
    assert not (tmp_path / "c.errors.jsonl").exists()


def test_the_captions_that_come_with_drawn_people_are_not_written_into(
    vireid: Call, drawn: dict[str, Path], tmp_path: Path
) -> None:
    captions = drawn["sysu"] / "captions.jsonl"
    before = captions.read_bytes()

    code, _, err = vireid("caption", "sysu", str(drawn["sysu"]), "--model", "stub", "--out", str(captions))

    assert code == 1
    assert "was begun with other options: model_id" in err
    assert captions.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "./absent"], "there is no folder ./absent"),
        (["--model", "stub", "--shard", "3/2"], "is not a shard"),
        (["--model", "stub", "--prompt-variant", "poetic"], "--prompt-variant 'poetic' does not exist"),
        (["--model", "stub", "--precision", "int8"], "--precision 'int8' does not exist"),
        (["--model", "stub", "--out", "c.csv"], "written as JSON lines"),
    ],
)
def test_what_cannot_be_is_one_line_with_a_hint(
    vireid: Call,
    drawn: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    code, _, err = vireid("caption", "sysu", str(drawn["sysu"]), *arguments)

    assert (code, said in err, "hint:" in err) == (1, True, True)


def test_nothing_is_generated_once_everything_is_there(
    vireid: Call, drawn: dict[str, Path], tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["caption", "sysu", str(drawn["sysu"]), *options(tiny_llava, tmp_path / "c.jsonl"), "--batch-size", "64"]
    assert vireid(*command)[0] == 0
    monkeypatch.setattr(models, "_generate", lambda *_: pytest.fail("described again"))

    assert vireid(*command)[0] == 0
