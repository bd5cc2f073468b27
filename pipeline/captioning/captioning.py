"""A data set's training images described, from the model's name to the finished file."""

import logging
from pathlib import Path

from models.modality import PerModality
from pipeline.captioning.caption_writer import failures_path, open_writer, refuse_foreign
from pipeline.captioning.describing import Outcome, caption_images
from pipeline.captioning.loading import library_versions, load_model
from pipeline.captioning.prompts import choose_prompts
from pipeline.captioning.provenance import Provenance, image_list
from pipeline.captioning.settings import CaptionSettings
from pipeline.config.datasets import Split
from pipeline.data.dataset import Dataset, read_dataset, spec_of
from pipeline.data.images import ImageTable

logger = logging.getLogger(__name__)


def read_images(
    name: str,
    root: Path,
    *,
    split: Split | None = None,
    images_root: Path | None = None,
    allow_overlap: bool = False,
    allow_partial: bool = False,
) -> tuple[Dataset, PerModality[ImageTable]]:
    """The images of a data set that captions are for: those that are trained on.

    Args:
        name: The data set; like the others, as for `read_dataset`.
        root: The data set's folder, or the manifest file.
        split: Which split; where None and each split has a model, the images of all splits, which share one file.
        images_root: Where a manifest's paths start.
        allow_overlap: Let a manifest name a person in training and in test.
        allow_partial: Go on when counts differ from the expected ones.

    Raises:
        VireidError: See `read_dataset`.
    """
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
    return dataset, dataset.images if all_splits else dataset.training.images


def caption_images_of(
    dataset: Dataset, tables: PerModality[ImageTable], out: Path, settings: CaptionSettings
) -> Outcome:
    """Describe every image of the tables that has no caption in the file yet.

    Args:
        dataset: Where the images belong.
        tables: The images; originals are read, whatever their size.
        out: The file; what is there already is kept, if it was made with the same settings.
        settings: How.

    Raises:
        VireidError: See `load_model`, `choose_prompts`, `open_writer` and `caption_images`.
    """
    refuse_foreign(out)
    model = load_model(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        local_files_only=settings.local_files_only,
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
        )
    if outcome.failed:
        logger.warning("%d images have no caption; %s says why", outcome.failed, failures_path(out))
    return outcome
