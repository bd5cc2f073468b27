"""The stages of CSDN as plain functions of values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.encoder import Head
from models.fusion import build_fusion
from models.modality import PerModality
from models.precision import network_precision
from pipeline.data.transforms.augmentation import preprocess
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.csdn.prompts import PersonFeatures, Positions, learn_fusion, learn_person_prompts
from pipeline.methods.csdn.state import CsdnRun
from pipeline.methods.supervised import (
    people_on_device,
    person_batches,
    person_terms,
    record,
    text_terms,
    train_epoch_on_people,
)
from pipeline.runs.figures import draw_text_similarity
from pipeline.runs.stages import complete_round, stage
from pipeline.runtime.seeds import derive_seed, numpy_generator, torch_generator

Texts = PerModality[Float[Tensor, "people embed"]]
"""One text prototype a person, in each modality."""


@stage(uses_device=True)
def learn_prompts(run: CsdnRun) -> tuple[Texts, dict[str, float]]:
    """Stage `prompts`: learn context tokens for every person on features of the untrained encoder."""
    config = run.config.prompts
    seed = run.config.seed
    once = _pairs(run, "pairs", 0)

    def pairs(epoch: int) -> Positions:
        return once if config.pairs == "sampled" else _pairs(run, "pairs", epoch)

    def learn() -> dict[str, Any]:
        texts, loss = learn_person_prompts(
            known,
            run.text_tower,
            pairs,
            template=config.template,
            banks=config.banks,
            positives=config.positives,
            num_context=config.num_context,
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup_epochs=config.warmup_epochs,
            weight_decay=config.weight_decay,
            init_generator=lambda modality: torch_generator(seed, "init", "prompts", modality),
            batch_generator=lambda epoch: numpy_generator(seed, "batches", "prompts", epoch),
        )
        return {"texts": [text.cpu() for text in texts], "loss": loss}

    known = _known(run)
    learned = run.processes.from_rank_zero(learn)
    return PerModality(*(text.to(run.device) for text in learned["texts"])), {"total": learned["loss"]}


@stage(uses_device=True)
def fuse_texts(run: CsdnRun, texts: Texts | None) -> tuple[Float[Tensor, "people embed"], dict[str, float]]:
    """Stage `fusion`: learn to make one text prototype of a person's two."""
    config, seed = run.config.fusion, run.config.seed
    assert texts is not None and config.kind != "none", "stage `prompts` comes first"
    kind = config.kind

    def learn() -> dict[str, Any]:
        generator = torch_generator(seed, "init", "fusion")
        fusion = build_fusion(kind, texts.visible.shape[1], config.dropout, generator).to(run.device)
        devices = [run.device] if run.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # torch's dropout takes no generator
            torch.manual_seed(derive_seed(seed, "dropout", "fusion"))
            fused, loss = learn_fusion(
                known,
                texts,
                fusion,
                positions,
                epochs=config.epochs,
                batch_size=config.batch_size,
                learning_rate=config.learning_rate,
                warmup_epochs=config.warmup_epochs,
                weight_decay=config.weight_decay,
                prototype_dropout=config.prototype_dropout,
                batch_generator=lambda epoch: numpy_generator(seed, "batches", "fusion", epoch),
            )
        return {"fused": fused.cpu(), "loss": loss}

    if config.batch_statistics == "running":
        known, positions = _known(run), _pairs(run, "features", 0)
    else:
        known, positions = _known_in_training(run)
    learned = run.processes.from_rank_zero(learn)
    return learned["fused"].to(run.device), {"total": learned["loss"]}


@stage(uses_device=True)
def train(run: CsdnRun, texts: Texts | None, fused: Float[Tensor, "people embed"] | None) -> dict[str, float]:
    """Stage `image`: train the encoder for one epoch with fused text prototypes, or those of each modality."""
    config, losses = run.config, run.config.losses
    assert fused is not None or not config.with_fusion, "stage `fusion` comes first"
    targets = texts if fused is None else PerModality(fused, fused)
    batches = person_batches(run, numpy_generator(config.seed, "train", run.round.number, "batches"))
    people = people_on_device(run)
    terms = person_terms(
        people,
        run.state.method.classifier.train(),
        gap_weight=losses.gap_weight,
        triplet_weight=losses.triplet_weight,
        triplet_softmax=losses.triplet_softmax,
    )
    if targets is not None:
        terms += text_terms(
            people,
            targets,
            visible_text_weight=losses.visible_text_weight,
            infrared_text_weight=losses.infrared_text_weight,
            text_on_second_view=losses.text_on_second_view,
        )
    return train_epoch_on_people(run, batches, terms)


@stage(ends_round=True)
def log_round(
    run: CsdnRun,
    texts: Texts | None,
    fused: Float[Tensor, "people embed"] | None,
    trained: Mapping[str, float],
    report: EvaluationReport | None,
) -> None:
    """Store the text prototypes in the state, and record the round, which counts from its checkpoint on."""
    run.state.method.texts, run.state.method.fused = texts, fused
    complete_round(run, report)
    if texts is not None and run.round.stage == "prompts" and run.processes.is_rank_zero:
        draw_text_similarity(run, texts, same_order=True)
    record(run, trained, report)


def _known(run: CsdnRun) -> PersonFeatures:
    banks = run.extract_training_features(Head.PROJECTION)
    features = banks.map(lambda bank: torch.from_numpy(bank.vectors).to(run.device))
    return PersonFeatures(features, run.state.method.people.labels, run.state.method.people.num_people)


@torch.no_grad()
def _known_in_training(run: CsdnRun) -> tuple[PersonFeatures, Positions]:
    """Features of one pass of the sampler, normalised batch by batch; the encoder's running statistics change."""
    batches = person_batches(run, numpy_generator(run.config.seed, "features", 0))
    encoder, people = run.state.encoder, run.state.method.people
    supplies = run.training_pixels.map_with(lambda supply, at: supply.batches(list(at)), batches.positions)
    found: PerModality[list[Tensor]] = PerModality([], [])
    encoder.train()
    for pair in zip(*supplies, strict=True):
        inputs = PerModality(*pair).map(lambda pixels: preprocess(pixels, run.config.images.normalisation))
        with network_precision(run.precision, run.device):
            encoded = encoder(inputs, frozenset({Head.PROJECTION}))
        encoded.map_with(lambda one, rows: rows.append(one.projection), found)
    labels = people.labels.map_with(lambda some, at: some[at.ravel()], batches.positions)
    known = PersonFeatures(found.map(torch.cat), labels, people.num_people)
    return known, labels.map(lambda some: np.arange(len(some)))


def _pairs(run: CsdnRun, purpose: str, epoch: int) -> Positions:
    batches = person_batches(run, numpy_generator(run.config.seed, purpose, epoch))
    return batches.positions.map(np.ravel)
