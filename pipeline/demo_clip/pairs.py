"""Image-caption pairs of synthetic people, generated in a separate process while the network trains."""

import multiprocessing
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.modality import Modality, PerModality
from models.torchvision_operators import define_missing_operators
from pipeline.data.synthetic.cameras import Camera, wild_camera
from pipeline.data.synthetic.captions import ATTRIBUTES, Attributes, caption_of, compose_caption, visible_attributes
from pipeline.data.synthetic.images import draw_image
from pipeline.data.synthetic.knobs import DEFAULT, EASY, SyntheticKnobs, blend_knobs
from pipeline.data.synthetic.people import Person, fresh_people
from pipeline.runtime.seeds import derive_seed, numpy_generator

_QUEUE_LENGTH = 12
_SETTINGS = 8  # difficulties from easy to default
_CAMERAS = 8  # of each modality and difficulty at a time
_MAX_DROP, _SWAP = 0.5, 0.02  # captions name all to about half of the attributes, few of them wrong
_PLAIN_CAPTION = 0.5  # probability that an infrared caption does not name its modality, so that the rest matters


@dataclass(frozen=True, slots=True)
class PairSettings:
    """Settings of the generated pairs: sizes in pixels, and the share of infrared images."""

    seed: int
    batch: int
    height: int
    width: int
    infrared_share: float


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """Pixels uint8 [n, height, width, 3], token ids int64 [n, length] up to the longest caption, and attributes.

    `values` is int64 [n, attributes]: the index of the value in `ATTRIBUTES`, or -1 if the image does not show it.
    """

    pixels: NDArray[np.uint8]
    tokens: NDArray[np.int64]
    values: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticPair:
    """One person, one image, and the attributes that it shows."""

    person: Person
    pixels: NDArray[np.uint8]
    modality: Modality
    shown: Attributes
    caption: str


class PairSource:
    """Generates pairs, each of a new person, at difficulties from easy to default.

    `name` is part of the generators' key, so that training and held-out people differ.
    """

    def __init__(self, settings: PairSettings, name: str) -> None:
        self._settings = settings
        self._rng = numpy_generator(settings.seed, "demo clip", name)
        shares = np.linspace(0.0, 1.0, _SETTINGS)
        self._knobs = [blend_knobs(EASY, DEFAULT, float(share)) for share in shares]
        seed = derive_seed(settings.seed, "demo clip", name)
        self._people = [fresh_people(derive_seed(seed, index), knobs) for index, knobs in enumerate(self._knobs)]
        self._cameras = PerModality.build(
            lambda modality: [self._new_cameras(modality, knobs) for knobs in self._knobs]
        )

    def draw(self, modality: Modality | None = None) -> SyntheticPair:
        """Generate one pair; of a random modality by default."""
        rng, settings = self._rng, self._settings
        if modality is None:
            infrared = rng.random() < settings.infrared_share
            modality = Modality.INFRARED if infrared else Modality.VISIBLE
        level = int(rng.integers(_SETTINGS))
        knobs = self._knobs[level]
        cameras = self._cameras[modality][level]
        slot = int(rng.integers(_CAMERAS))
        if rng.random() < 0.02:
            cameras[slot] = wild_camera(rng, modality, knobs, settings.height, settings.width)
        person = next(self._people[level])
        image = draw_image(rng, person, cameras[slot], knobs, settings.height, settings.width)
        shown = visible_attributes(person, image.pose, modality)
        worded = Modality.VISIBLE if rng.random() < _PLAIN_CAPTION else modality
        caption = compose_caption(shown, rng, worded, drop=_MAX_DROP * float(rng.random()), swap=_SWAP)
        pixels = image.pixels if image.pixels.ndim == 3 else np.repeat(image.pixels[:, :, None], 3, axis=2)
        return SyntheticPair(person, pixels, modality, shown, caption)

    def _new_cameras(self, modality: Modality, knobs: SyntheticKnobs) -> list[Camera]:
        size = self._settings.height, self._settings.width
        return [wild_camera(self._rng, modality, knobs, *size) for _ in range(_CAMERAS)]


def attribute_values(shown: Attributes) -> list[int]:
    """The index of each attribute's value in `ATTRIBUTES`, -1 if an image does not show it."""
    return [options.index(shown[name]) if name in shown else -1 for name, options in ATTRIBUTES.items()]


def attribute_prompts() -> list[str]:
    """One short caption for each value of each attribute, in the order of `ATTRIBUTES`."""
    return [caption_of({name: value}, Modality.VISIBLE) for name, options in ATTRIBUTES.items() for value in options]


def tokenize(captions: list[str]) -> NDArray[np.int64]:
    """Token ids of CLIP's vocabulary with start and end token, up to the longest caption, padded with 0.

    The ids of open_clip's tokenizer: its pattern never joins words, so each distinct word is encoded once.
    """
    rows = [[token for word in caption.split() for token in _word_tokens(word)] for caption in captions]
    tokens = np.zeros((len(rows), max(map(len, rows)) + 2), np.int64)
    start, end = _tokenizer().all_special_ids[:2]
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row) + 2] = (start, *row, end)
    return tokens


@cache
def _tokenizer() -> Any:
    define_missing_operators()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@cache
def _word_tokens(word: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(word))


@contextmanager
def generated_batches(settings: PairSettings) -> Iterator[Iterator[PairBatch]]:
    """An endless series of batches from a second process, which stops with the context."""
    context = multiprocessing.get_context("spawn")
    batches: "Queue[PairBatch]" = context.Queue(_QUEUE_LENGTH)
    process = context.Process(target=_feed, args=(batches, settings), daemon=True)
    process.start()
    try:
        yield _received(batches, process)
    finally:
        process.terminate()
        process.join()


def _received(batches: "Queue[PairBatch]", process: BaseProcess) -> Iterator[PairBatch]:
    while True:
        try:
            yield batches.get(timeout=5.0)
        except queue.Empty:
            if not process.is_alive():
                raise RuntimeError("the process that generates pairs has died") from None


def _feed(batches: "Queue[PairBatch]", settings: PairSettings) -> None:
    source = PairSource(settings, "train")
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.is_alive():
        pairs = [source.draw() for _ in range(settings.batch)]
        pixels = np.stack([pair.pixels for pair in pairs])
        values = np.array([attribute_values(pair.shown) for pair in pairs])
        batch = PairBatch(pixels, tokenize([pair.caption for pair in pairs]), values)
        while parent.is_alive():
            with suppress(queue.Full):
                batches.put(batch, timeout=5.0)
                break
