"""Caption the training images of a data set: read ahead, describe in batches, write at once."""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from models.modality import Modality, PerModality
from pipeline.captioning.files import (
    Answer,
    CaptionWriter,
    Provenance,
    failures_path,
    image_list,
    open_writer,
    refuse_foreign,
)
from pipeline.captioning.models import PATH_ENTRY, Captioner, library_versions, load_model
from pipeline.captioning.settings import CaptionSettings, choose_prompts
from pipeline.config.datasets import Split
from pipeline.console import progress
from pipeline.data.captions.files import inside_root
from pipeline.data.dataset import Dataset, read_dataset, spec_of
from pipeline.data.image_files import (
    AS_STORED,
    Adjustment,
    ImageReading,
    log_adjustments,
    open_image,
    reason_of,
    without_pillow_warnings,
)
from pipeline.data.images import ImageTable
from pipeline.errors import DataError, TrainingError, WeightsError

logger = logging.getLogger(__name__)

_READERS = 4
_LOG_SECONDS = 60.0
_EMPTY = "the captioner returned an empty text"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Images captioned now, captioned before, and failed; and the time."""

    captioned: int
    before: int
    failed: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images processed a second, including failed ones."""
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
    adjustments: frozenset[Adjustment] = frozenset()


@without_pillow_warnings()
def caption_images(
    root: Path,
    paths: PerModality[Sequence[str]],
    captioners: PerModality[Captioner],
    writer: CaptionWriter,
    *,
    batch_size: int,
    reading: ImageReading = AS_STORED,
) -> Outcome:
    """Describe the images that have no caption yet, visible ones first.

    An unreadable image, or one with an empty description, is recorded as failed and skipped. `batch_size` is halved for
    the rest of the run if memory is too small.

    Raises:
        DataError: A path leads out of `root`.
        TrainingError: Memory is too small for a single image.
        WeightsError: The captioner returned more or fewer texts than images.
        CheckpointError: A caption could not be written.
    """
    _stay_inside(paths)
    left = paths.map(lambda some: [path for path in some if path not in writer.done])
    before = sum(map(len, paths)) - sum(map(len, left))
    total = sum(map(len, left))
    batches = _Batches(batch_size, reading)
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
    log_adjustments(batches.seen, total)
    return Outcome(captioned, before, total - captioned, pace.seconds)


class _Batches:
    """Batches as large as memory allows."""

    def __init__(self, size: int, reading: ImageReading) -> None:
        self.seen: Counter[Adjustment] = Counter()
        self._reading = reading
        self._size = size
        self._warned = False

    def describe(
        self, root: Path, paths: Sequence[str], modality: Modality, captioner: Captioner
    ) -> Iterator[Sequence[Answer]]:
        """Answers to all paths, a batch at a time."""
        waiting: list[tuple[str, Image.Image]] = []
        for opened in _open_ahead(root, paths, 2 * self._size, self._reading):
            self.seen.update(opened.adjustments)
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
        """Describe and remove the first batch of `waiting`."""
        batch = waiting[: self._size]
        while True:
            try:
                texts = captioner.describe([image for _, image in batch])
                break
            except MemoryError as error:
                if len(batch) == 1:
                    raise TrainingError(
                        f"memory is too small to describe a single image: {error}",
                        hint="use a smaller model, or --device cpu; finished captions are kept",
                    ) from error
            self._halve(len(batch))
            batch = batch[: self._size]
        if len(texts) != len(batch):
            raise WeightsError(
                f"the captioner returned {len(texts)} texts for {len(batch)} images", hint="use another captioner"
            )
        del waiting[: len(batch)]
        texts = [" ".join(text.split()) for text in texts]
        return [
            Answer(path, modality.value, text, "" if text else _EMPTY)
            for (path, _), text in zip(batch, texts, strict=True)
        ]

    def _halve(self, too_many: int) -> None:
        self._size = too_many // 2
        if not self._warned:
            logger.warning("out of memory with %d images at once: continuing with fewer", too_many)
            self._warned = True


def _open_ahead(root: Path, paths: Sequence[str], ahead: int, reading: ImageReading) -> Iterator[_Opened]:
    """Images in order, read ahead by threads; never more than `ahead` of them in memory."""
    waiting: deque[Future[_Opened]] = deque()
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(_open, root, path, reading))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _open(root: Path, path: str, reading: ImageReading) -> _Opened:
    try:
        opened = open_image(root / path, reading)
    except (OSError, ValueError) as error:
        return _Opened(path, None, reason_of(error))
    opened.image.info[PATH_ENTRY] = path
    return _Opened(path, opened.image, adjustments=opened.adjustments)


def _stay_inside(paths: PerModality[Sequence[str]]) -> None:
    for some in paths:
        for path in some:
            try:
                inside_root(path)
            except ValueError as error:
                raise DataError(str(error), hint="use paths inside the data root") from error


class _Pace:
    """Logs speed and remaining time once a minute, for logs without a progress bar."""

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
        done = f"{self._done:,} of {self._total:,}"
        logger.info("%s images, %.1f images/s, about %.0f min left", done, rate, left / 60)


def read_images(
    name: str,
    root: Path,
    *,
    split: Split | None = None,
    images_root: Path | None = None,
    allow_overlap: bool = False,
    allow_partial: bool = False,
) -> tuple[Dataset, PerModality[ImageTable]]:
    """The images to caption: those of the training split, or of all if each split has a model and `split` is None."""
    spec = spec_of(name)
    all_splits = spec.options.model_per_split and split is None
    dataset = read_dataset(
        name,
        root,
        split=spec.any_split if all_splits else split,
        images_root=images_root,
        allow_overlap=allow_overlap,
        allow_partial=allow_partial,
    )
    if not (all_splits or dataset.has_training):
        raise DataError(f"{root} has no training images to caption", hint="captions are of rows of split train")
    return dataset, dataset.images if all_splits else dataset.training.images


def caption_images_of(
    dataset: Dataset,
    tables: PerModality[ImageTable],
    out: Path,
    settings: CaptionSettings,
    reading: ImageReading = AS_STORED,
) -> Outcome:
    """Describe every image of the tables that has no caption in the file yet, from the originals of any size."""
    refuse_foreign(out)
    model = load_model(
        settings.model, device=settings.device, precision=settings.precision, local_files_only=settings.local_files_only
    )
    prompts = choose_prompts(model.family, settings.variant, settings.prompt, settings.infrared_prompt)
    wanted = tables.map(
        lambda table: [path for path in table.paths if settings.shard is None or settings.shard.holds(path)]
    )
    provenance = Provenance(
        model_id=model.model_id,
        revision=model.revision,
        prompts=prompts,
        max_new_tokens=settings.max_new_tokens,
        dtype=model.dtype,
        data_set=dataset.name,
        shard=settings.shard,
        num_images=sum(map(len, wanted)),
        all_images=image_list(path for table in tables for path in table.paths),
        library_versions=library_versions(),
    )
    with open_writer(out, provenance, start_over=settings.start_over) as writer:
        if writer.done:
            logger.info("%s: %s images have a caption already", out, f"{len(writer.done):,}")
        outcome = caption_images(
            tables.visible.root,
            wanted,
            model.captioners(prompts, settings.max_new_tokens),
            writer,
            batch_size=settings.batch_size,
            reading=reading,
        )
    if outcome.failed:
        logger.warning("%d images have no caption; see %s", outcome.failed, failures_path(out))
    return outcome
