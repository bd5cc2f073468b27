"""The stages of CSDN as plain functions: what a flow wraps as tasks, and what a notebook or a benchmark calls."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.encoder import Head
from models.fusion import build_fusion
from models.modality import PerModality
from models.precision import network_precision
from pipeline.config.rounds import Round
from pipeline.data.transforms.augmentation import preprocess
from pipeline.methods.cclnet.stages import evaluate, finish
from pipeline.methods.csdn.method import PersonRun
from pipeline.methods.csdn.prompts import PersonFeatures, Positions, learn_fusion, learn_person_prompts
from pipeline.methods.identity_objective import LossWeights
from pipeline.methods.supervised import log_image_round, person_batches, person_objective, train_epoch_on_people
from pipeline.runtime.seeds import derive_seed, numpy_generator, torch_generator

__all__ = ["evaluate", "finish", "fuse_texts", "learn_person_texts", "log_image_round", "train_on_people"]


def learn_person_texts(run: PersonRun, round_: Round) -> dict[str, float]:  # noqa: ARG001 - it names the task
    """Stage `prompts`: learn words for every person on features of the untrained encoder.

    Raises:
        TrainingError: The loss is not finite.
    """
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

    with run.timed("prompts"):
        known = _known(run)
        told = run.processes.from_first(learn)
        run.state.own.texts = PerModality(*(text.to(run.device) for text in told["texts"]))
    return {"total": told["loss"]}


def fuse_texts(run: PersonRun, round_: Round) -> dict[str, float]:  # noqa: ARG001 - it names the task
    """Stage `fusion`: learn to make one text of a person's two, and write down what it makes of all.

    Raises:
        TrainingError: The loss is not finite.
    """
    config, own, seed = run.config.fusion, run.state.own, run.config.seed
    assert own.texts is not None and config.kind != "none", "stage `prompts` comes first"
    texts, kind = own.texts, config.kind

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

    with run.timed("fusion"):
        if config.batch_statistics == "running":
            known, positions = _known(run), _pairs(run, "features", 0)
        else:
            known, positions = _known_in_training(run)
        told = run.processes.from_first(learn)
        own.fused = told["fused"].to(run.device)
    return {"total": told["loss"]}


def train_on_people(run: PersonRun, round_: Round) -> dict[str, float]:
    """Stage `image`: train the encoder for one epoch.

    Raises:
        TrainingError: The loss is not finite, or a batch does not fit into memory.
    """
    config, own = run.config, run.state.own
    assert own.fused is not None or not config.with_fusion, "stage `fusion` comes first"
    with run.timed("train"):
        batches = person_batches(run, numpy_generator(config.seed, "train", round_.number, "batches"))
        objective = person_objective(run, batches, own.targets, LossWeights(**config.losses.model_dump()))
        return train_epoch_on_people(run, round_, batches, objective)


def _known(run: PersonRun) -> PersonFeatures:
    banks = run.extract_training_features(Head.PROJECTION)
    features = banks.map(lambda bank: torch.from_numpy(bank.vectors).to(run.device))
    return PersonFeatures(features, run.state.own.people.labels, run.state.own.people.num_people)


@torch.no_grad()
def _known_in_training(run: PersonRun) -> tuple[PersonFeatures, Positions]:
    """Features of one pass of the sampler, normalised batch by batch; the encoder's running statistics move."""
    batches = person_batches(run, numpy_generator(run.config.seed, "features", 0))
    encoder, people = run.state.encoder, run.state.own.people
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


def _pairs(run: PersonRun, purpose: str, epoch: int) -> Positions:
    """Images of the same people side by side, as one pass of the sampler shows them."""
    batches = person_batches(run, numpy_generator(run.config.seed, purpose, epoch))
    return batches.positions.map(np.ravel)
