"""The stages of EEES as plain functions of values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.clip import count_tokens
from models.modality import PerModality
from pipeline.data.captions.files import BESIDE_IMAGES, written_captions
from pipeline.data.captions.store import Captions, load_captions, truncation_report
from pipeline.errors import CheckpointError
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.eees.objective import (
    Captioned,
    CaptionLosses,
    fixed_captions,
    learned_captions,
    normalised_by_batch,
)
from pipeline.methods.eees.state import EeesRun
from pipeline.methods.supervised import people_on_device, person_batches, person_terms, record, train_epoch_on_people
from pipeline.runs.stages import complete_round, stage
from pipeline.runtime.seeds import derive_seed, numpy_generator


@dataclass(frozen=True, slots=True, eq=False)
class EncodedCaptions:
    """From positions of training images, in their shuffled order, to features of their captions.

    `digest` identifies the captions: a resumed run needs the same ones.
    """

    features: PerModality[Captioned]
    digest: str


@stage(uses_device=True)
def encode_captions(run: EeesRun) -> EncodedCaptions:
    """Read the captions of all training images, once a run; a frozen text tower encodes them here, and only here."""
    state, captions = run.state.method, read_captions(run)
    if state.captions not in (None, captions.digest):
        raise CheckpointError(
            f"this run was begun with other captions than those of {captions_path(run)}",
            hint="give it the captions that it was begun with; a new run needs another name (--set name=...)",
        )
    tower = state.tower or run.text_tower
    truncation_report(captions, count_tokens, max_truncated_share=run.config.captions.max_truncated_share)
    ordered = captions.texts.map_with(
        lambda texts, places: [texts[place] for place in places],
        run.supervision.dataset.training_places(run.supervision.rows),
    )
    if state.tower is not None:
        features = ordered.map(lambda texts: learned_captions(tower, tower.cut(tower.tokenize(texts))))
    else:
        features = ordered.map(lambda texts: fixed_captions(tower.encode_texts(texts)))
    return EncodedCaptions(features, captions.digest)


@stage(uses_device=True)
def train(run: EeesRun, captions: EncodedCaptions) -> dict[str, float]:
    """Train the encoder, and the modules that read captions, for one epoch."""
    config, state = run.config, run.state.method
    batches = person_batches(run, numpy_generator(config.seed, "train", run.round.number, "batches"))
    people, classifier = people_on_device(run), state.classifier.train()
    terms = person_terms(people, classifier, **config.losses.model_dump())
    terms += CaptionLosses(
        people=people,
        classifier=classifier,
        captions=captions.features,
        images_per_person=config.batches.images_per_person,
        fusion=None if state.fusion is None else state.fusion.train(),
        fused_neck=normalised_by_batch(run.state.encoder.projection_neck),
        pooled_map=state.pooled_map,
        weights=config.semantics,
    ).terms()
    return train_epoch_on_people(run, batches, terms)


@stage(ends_round=True)
def log_round(
    run: EeesRun, captions: EncodedCaptions, trained: Mapping[str, float], report: EvaluationReport | None
) -> None:
    """Record the round, which counts from its checkpoint on."""
    run.state.method.captions = captions.digest
    complete_round(run, report)
    record(run, trained, report)


def read_captions(run: EeesRun) -> Captions:
    """The captions of all training images, checked against the data set, in its order."""
    config = run.config.captions
    return load_captions(
        run.supervision.dataset,
        captions_path(run),
        caption_field=config.caption_field,
        path_prefix=config.path_prefix,
        strip_lead_in=config.strip_lead_in,
        control=config.control,
        control_seed=derive_seed(run.config.seed, "captions", config.control),
    )


def captions_path(run: EeesRun) -> Path:
    """File of the captions: from the settings, in the data set's folder, or written by `vireid caption`."""
    if run.config.captions.path is not None:
        return run.config.captions.path
    dataset = run.supervision.dataset
    shipped = dataset.root / BESIDE_IMAGES
    return shipped if shipped.exists() else written_captions(run.config.execution.runs_folder, dataset.name)
