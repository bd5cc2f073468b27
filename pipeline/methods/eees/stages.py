"""The stages of EEES as plain functions: what a flow wraps as tasks, and what a notebook or a benchmark calls."""

from models.clip import count_tokens
from models.modality import PerModality
from models.transfer import upload
from pipeline.config.rounds import Round
from pipeline.data.captions.store import truncation_report
from pipeline.errors import CheckpointError
from pipeline.methods.cclnet.stages import evaluate, finish
from pipeline.methods.eees.method import CaptionRun, caption_weights, captions_path, read_captions
from pipeline.methods.eees.objective import (
    Captioned,
    CaptionObjective,
    fixed_captions,
    learned_captions,
    normalised_by_batch,
)
from pipeline.methods.identity_objective import LossWeights
from pipeline.methods.supervised import log_image_round, person_batches, person_objective, train_epoch_on_people
from pipeline.runtime.seeds import numpy_generator

__all__ = ["encode_captions", "evaluate", "finish", "log_image_round", "train_with_captions"]


def encode_captions(run: CaptionRun) -> PerModality[Captioned]:
    """Read the captions of all training images, once a run; a frozen text tower encodes them here, and only here.

    Returns:
        From positions of training images, in their shuffled order, to features of their captions.

    Raises:
        DataError: Captions are missing, do not fit the data set, or too many are too long.
        CheckpointError: The run was begun with other captions.
    """
    own, captions = run.state.own, read_captions(run)
    if own.captions not in (None, captions.digest):
        raise CheckpointError(
            f"this run was begun with other captions than those of {captions_path(run)}",
            hint="give it the captions that it was begun with; a new run needs another name (--set name=...)",
        )
    own.captions = captions.digest
    tower = own.tower or run.text_tower
    truncation_report(captions, count_tokens, max_truncated_share=run.config.captions.max_truncated_share)
    ordered = captions.texts.map_with(
        lambda texts, places: [texts[place] for place in places],
        run.dataset.training_places(run.images.training.map(lambda images: images.rows)),
    )
    if own.tower is not None:
        return ordered.map(lambda texts: learned_captions(tower, tower.cut(tower.tokenize(texts))))
    return ordered.map(lambda texts: fixed_captions(tower.encode_texts(texts)))


def train_with_captions(run: CaptionRun, round_: Round, captions: PerModality[Captioned]) -> dict[str, float]:
    """Train the encoder for one epoch, and what reads captions with it.

    Raises:
        TrainingError: The loss is not finite, or a batch does not fit into memory.
    """
    config, own = run.config, run.state.own
    with run.timed("train"):
        batches = person_batches(run, numpy_generator(config.seed, "train", round_.number, "batches"))
        weights = LossWeights(
            **config.losses.model_dump(), visible_text_weight=0.0, infrared_text_weight=0.0, text_on_second_view=False
        )
        objective = CaptionObjective(
            people=person_objective(run, batches, None, weights),
            captions=captions,
            positions=batches.positions.map(lambda at: upload(at, run.device)),
            images_per_person=batches.images_per_person,
            fusion=None if own.fusion is None else own.fusion.train(),
            fused_neck=normalised_by_batch(run.state.encoder.projection_neck),
            pooled_map=own.pooled_map,
            weights=caption_weights(config),
        )
        return train_epoch_on_people(run, round_, batches, objective)
