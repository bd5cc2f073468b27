"""The loop: images are read ahead, described in batches, and written down at once."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from models.modality import Modality, PerModality
from pipeline.captioning.caption_writer import Answer, CaptionWriter
from pipeline.captioning.captioner import PATH_ENTRY, Captioner
from pipeline.console import progress
from pipeline.data.captions.files import inside_root
from pipeline.data.decoding import read_image, reason_of
from pipeline.errors import DataError, TrainingError, WeightsError

logger = logging.getLogger(__name__)

_READERS = 4
_LOG_SECONDS = 60.0
_SAID_NOTHING = "the captioner said nothing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many images have a caption now, how many had one before, how many have none, and how fast it went."""

    captioned: int
    before: int
    failed: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of this start, images without a caption among them."""
        return (self.captioned + self.failed) / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, float]:
        """As plain JSON types."""
        return {**asdict(self), "images_per_second": self.images_per_second}

    def __str__(self) -> str:
        return (
            f"{self.captioned + self.before:,} images have a caption ({self.captioned:,} new, {self.failed:,} failed, "
            f"{self.images_per_second:.1f} images/s)"
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    path: str
    image: Image.Image | None
    problem: str = ""


def caption_images(
    root: Path,
    paths: PerModality[Sequence[str]],
    captioners: PerModality[Captioner],
    writer: CaptionWriter,
    *,
    batch_size: int,
) -> Outcome:
    """Describe the images that have no caption yet, visible ones first.

    An image that cannot be read, or about which nothing is said, is noted and passed over.

    Args:
        root: The folder that paths start from.
        paths: The images.
        captioners: Who describes them.
        writer: Where captions go.
        batch_size: Images described at once. Where memory is too small for them it is halved, and stays so.

    Raises:
        DataError: A path leads out of `root`.
        TrainingError: Memory is too small for a single image.
        WeightsError: The captioner gives more or fewer texts than it got images.
        CheckpointError: A caption could not be written.
    """
    _stay_inside(paths)
    left = paths.map(lambda some: [path for path in some if path not in writer.done])
    before = sum(map(len, paths)) - sum(map(len, left))
    total = sum(map(len, left))
    batches = _Batches(batch_size)
    pace = _Pace(total)

    def described() -> Iterator[Sequence[Answer]]:
        for modality in Modality:
            yield from batches.describe(root, left[modality], modality, captioners[modality])

    captioned = 0
    steps = progress(described(), "caption images", total=total, unit="images", count=len, rate=True)
    for answers in steps:
        writer.add(answers)
        captioned += sum(bool(answer.caption) for answer in answers)
        pace.advance(len(answers))
    return Outcome(captioned, before, total - captioned, pace.seconds)


class _Batches:
    """Batches as large as memory allows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._told = False

    def describe(
        self, root: Path, paths: Sequence[str], modality: Modality, captioner: Captioner
    ) -> Iterator[Sequence[Answer]]:
        """Answers to all paths, a batch at a time."""
        waiting: list[tuple[str, Image.Image]] = []
        for opened in _open_ahead(root, paths, 2 * self._size):
            if opened.image is None:
                yield [Answer(opened.path, modality.value, "", opened.problem)]
            else:
                waiting.append((opened.path, opened.image))
            while len(waiting) >= self._size:
                yield self._describe_some(waiting, modality, captioner)
        while waiting:
            yield self._describe_some(waiting, modality, captioner)

    def _describe_some(
        self, waiting: list[tuple[str, Image.Image]], modality: Modality, captioner: Captioner
    ) -> list[Answer]:
        """Take a batch off the front."""
        batch = waiting[: self._size]
        while True:
            try:
                texts = captioner.describe([image for _, image in batch])
                break
            except MemoryError as error:
                if len(batch) == 1:
                    raise TrainingError(
                        f"memory is too small to describe a single image: {error}",
                        hint="take a smaller model, or --device cpu; captions that were made are kept",
                    ) from error
            self._halve(len(batch))
            batch = batch[: self._size]
        if len(texts) != len(batch):
            raise WeightsError(
                f"the captioner gave {len(texts)} texts for {len(batch)} images", hint="use another captioner"
            )
        del waiting[: len(batch)]
        texts = [" ".join(text.split()) for text in texts]
        return [
            Answer(path, modality.value, text, "" if text else _SAID_NOTHING)
            for (path, _), text in zip(batch, texts, strict=True)
        ]

    def _halve(self, too_many: int) -> None:
        self._size = too_many // 2
        if not self._told:
            logger.warning("out of memory with %d images at once: going on with fewer", too_many)
            self._told = True


def _open_ahead(root: Path, paths: Sequence[str], ahead: int) -> Iterator[_Opened]:
    """Images in order, read while others are described; never more than `ahead` of them in memory."""
    waiting: deque[Future[_Opened]] = deque()
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(_open, root, path))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _open(root: Path, path: str) -> _Opened:
    try:
        image = read_image(root / path)
    except (OSError, ValueError) as error:
        return _Opened(path, None, reason_of(error))
    image.info[PATH_ENTRY] = path
    return _Opened(path, image)


def _stay_inside(paths: PerModality[Sequence[str]]) -> None:
    for some in paths:
        for path in some:
            try:
                inside_root(path)
            except ValueError as error:
                raise DataError(str(error), hint="name images by paths inside the data root") from error


class _Pace:
    """How fast it goes and how long it takes, a line a minute: for those who see no progress bar."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._started = self._logged = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._logged < _LOG_SECONDS:
            return
        self._logged = time.monotonic()
        rate = self._done / self.seconds
        left = (self._total - self._done) / rate
        logger.info(
            "%s of %s images, %.1f images/s, about %.0f min left",
            f"{self._done:,}",
            f"{self._total:,}",
            rate,
            left / 60,
        )
