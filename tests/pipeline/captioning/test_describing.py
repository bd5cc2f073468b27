"""The loop: which images are described, in which batches, and what happens when something is wrong with one."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.modality import PerModality
from pipeline.captioning.captioning import Outcome, _Pace, caption_images
from pipeline.captioning.files import CaptionWriter, failures_path, open_writer
from pipeline.captioning.models import PATH_ENTRY
from pipeline.errors import DataError, TrainingError, WeightsError
from tests.pipeline.captioning.test_caption_writer import lines, provenance

VISIBLE = [f"v{number}.png" for number in range(5)]
INFRARED = [f"r{number}.png" for number in range(2)]


class Recorder:
    """Says the path of an image, as many as fit at once; keeps the sizes of the batches that it was asked for."""

    def __init__(self, fits: int = 1000, silent: frozenset[str] = frozenset()) -> None:
        self.fits, self.silent = fits, silent
        self.sizes: list[int] = []

    def describe(self, images: list[Image.Image]) -> list[str]:
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise MemoryError("too many")
        paths = [image.info[PATH_ENTRY] for image in images]
        return [
            "" if path in self.silent else f" {image.size}\n {path}" for path, image in zip(paths, images, strict=True)
        ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in VISIBLE:
        Image.fromarray(np.zeros((6, 3, 3), np.uint8)).save(folder / path)
    for path in INFRARED:
        Image.fromarray(np.zeros((6, 3), np.uint8)).save(folder / path)
    return folder


def run(root: Path, captioner: Recorder, batch_size: int = 2, paths: PerModality | None = None) -> Outcome:
    wanted = paths or PerModality(VISIBLE, INFRARED)
    with open_writer(root.parent / "c.jsonl", provenance(), start_over=False) as writer:
        return caption_images(root, wanted, PerModality(captioner, captioner), writer, batch_size=batch_size)


def test_every_image_is_described_once_in_order_and_a_batch_is_of_one_modality(root):
    captioner = Recorder()

    outcome = run(root, captioner)

    assert [row["path"] for row in lines(root.parent / "c.jsonl")] == [*VISIBLE, *INFRARED]
    # Five visible images in twos, then two infrared ones.
    assert captioner.sizes == [2, 2, 1, 2]
    assert (outcome.captioned, outcome.before, outcome.failed) == (7, 0, 0)
    assert [row["modality"] for row in lines(root.parent / "c.jsonl")] == ["visible"] * 5 + ["infrared"] * 2


def test_images_are_described_at_their_own_size_and_whitespace_is_collapsed(root):
    run(root, Recorder())

    assert lines(root.parent / "c.jsonl")[0]["caption"] == "(3, 6) v0.png"


def test_each_modality_has_its_own_captioner(root):
    visible, infrared = Recorder(), Recorder()
    with open_writer(root.parent / "c.jsonl", provenance(), start_over=False) as writer:
        caption_images(root, PerModality(VISIBLE, INFRARED), PerModality(visible, infrared), writer, batch_size=10)

    assert (visible.sizes, infrared.sizes) == ([5], [2])


def test_a_second_start_describes_what_is_left_and_a_third_nothing(root):
    run(root, Recorder(), paths=PerModality(VISIBLE[:3], []))

    captioner = Recorder()
    outcome = run(root, captioner)
    assert (outcome.captioned, outcome.before) == (4, 3)
    assert sum(captioner.sizes) == 4

    captioner = Recorder()
    before = (root.parent / "c.jsonl").read_bytes()
    assert run(root, captioner).captioned == 0
    assert captioner.sizes == []
    assert (root.parent / "c.jsonl").read_bytes() == before


def test_out_of_memory_halves_the_batch_for_good_and_says_so_once(root, caplog):
    captioner = Recorder(fits=2)

    with caplog.at_level(logging.WARNING):
        run(root, captioner, batch_size=5)

    # Five do not fit; half of five is two.
    assert captioner.sizes == [5, 2, 2, 1, 2]
    assert [row["path"] for row in lines(root.parent / "c.jsonl")] == [*VISIBLE, *INFRARED]
    assert caplog.messages == ["out of memory with 5 images at once: continuing with fewer"]


def test_halving_goes_on_until_it_fits_and_is_said_once_all_the_same(root, caplog):
    captioner = Recorder(fits=1)

    with caplog.at_level(logging.WARNING):
        run(root, captioner, batch_size=4)

    assert captioner.sizes == [4, 2, 1, 1, 1, 1, 1, 1, 1]
    assert len(caplog.messages) == 1


def test_too_little_memory_for_one_image_ends_it_and_keeps_what_was_made(root):
    class Tired(Recorder):
        def describe(self, images: list[Image.Image]) -> list[str]:
            self.fits = 0 if len(self.sizes) >= 1 else 1000
            return super().describe(images)

    with pytest.raises(TrainingError, match="a single image"):
        run(root, Tired())

    assert [row["path"] for row in lines(root.parent / "c.jsonl")] == VISIBLE[:2]


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_image_that_cannot_be_read_is_noted_and_tried_again_at_the_next_start(root, content):
    image = root / VISIBLE[1]
    good = image.read_bytes()
    image.unlink()
    if content is not None:
        image.write_bytes(content)

    outcome = run(root, Recorder())

    assert (outcome.captioned, outcome.failed) == (6, 1)
    (failure,) = lines(failures_path(root.parent / "c.jsonl"))
    assert failure["path"] == VISIBLE[1]
    assert failure["error"]
    assert str(root) not in failure["error"]

    image.write_bytes(good)
    assert (run(root, Recorder()).captioned, failures_path(root.parent / "c.jsonl").exists()) == (1, False)


def test_an_image_about_which_nothing_is_said_is_noted_and_never_written(root):
    outcome = run(root, Recorder(silent=frozenset(VISIBLE[:1])))

    assert (outcome.captioned, outcome.failed) == (6, 1)
    assert VISIBLE[0] not in {row["path"] for row in lines(root.parent / "c.jsonl")}
    assert lines(failures_path(root.parent / "c.jsonl")) == [
        {"path": VISIBLE[0], "modality": "visible", "error": "the captioner returned an empty text"}
    ]


def test_a_captioner_that_gives_another_number_of_texts_is_refused(root):
    class Short(Recorder):
        def describe(self, images: list[Image.Image]) -> list[str]:
            return super().describe(images)[1:]

    with pytest.raises(WeightsError, match="1 texts for 2 images"):
        run(root, Short())

    assert (root.parent / "c.jsonl").read_text() == ""


@pytest.mark.parametrize("path", ["../secret.png", "/etc/x.png", "a/../../x.png"])
def test_a_path_that_leads_out_of_the_root_is_refused_before_anything_is_described(root, path):
    captioner = Recorder()

    with pytest.raises(DataError, match="inside the data root"):
        run(root, captioner, paths=PerModality([VISIBLE[0], path], []))

    assert captioner.sizes == []


def test_captions_are_on_disk_before_the_next_batch_is_described(root):
    class Watching(Recorder):
        def describe(self, images: list[Image.Image]) -> list[str]:
            on_disk.append((root.parent / "c.jsonl").read_bytes().count(b"\n"))
            return super().describe(images)

    on_disk: list[int] = []
    run(root, Watching())

    assert on_disk == [0, 2, 4, 5]


def test_an_interrupted_loop_leaves_the_finished_batches(root):
    class Interrupted(Recorder):
        def describe(self, images: list[Image.Image]) -> list[str]:
            if len(self.sizes) == 2:
                raise KeyboardInterrupt
            return super().describe(images)

    with pytest.raises(KeyboardInterrupt):
        run(root, Interrupted())

    assert [row["path"] for row in lines(root.parent / "c.jsonl")] == VISIBLE[:4]


def test_a_line_a_minute_says_how_fast_it_goes_and_how_long_it_takes(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("pipeline.captioning.captioning.time.monotonic", lambda: now[0])
    pace = _Pace(1000)
    with caplog.at_level(logging.INFO):
        for seconds in (30.0, 60.0, 90.0):
            now[0] = seconds
            pace.advance(100)

    # At 60 s, 200 images are done: 3.3 a second, and 800 take 240 s.
    assert caplog.messages == ["200 of 1,000 images, 3.3 images/s, about 4 min left"]


def test_an_outcome_says_how_many_and_how_fast():
    outcome = Outcome(captioned=30, before=1000, failed=10, seconds=8.0)

    assert str(outcome) == "1,030 images have a caption (30 new, 10 failed, 5.0 images/s)"
    assert json.loads(json.dumps(outcome.to_dict()))["images_per_second"] == 5.0


def test_the_writer_is_the_only_thing_that_the_loop_writes_to(root):
    written = []

    class Paper:
        def __init__(self) -> None:
            self.done: set[str] = set()

        def add(self, answers: list) -> None:
            written.extend(answer.path for answer in answers)

    paper: CaptionWriter = Paper()  # type: ignore[assignment]
    captioner = Recorder()
    caption_images(root, PerModality(VISIBLE, []), PerModality(captioner, captioner), paper, batch_size=2)

    assert written == VISIBLE
    assert not list(root.parent.glob("*.jsonl"))
