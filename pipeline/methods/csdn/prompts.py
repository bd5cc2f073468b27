"""Text prototypes of CSDN: learned prompts of every person and modality, and their fusion. Encoders stay fixed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.fusion import SumFusion
from models.losses import text_contrast
from models.modality import Modality, PerModality
from models.prompts import SENTENCES, PromptBank
from models.text_tower import TextTower
from models.transfer import upload
from pipeline.training.optimiser import cosine_warmup, fit_texts

SHARED_SENTENCE = "A photo of a {} person."
"""The sentence of CSDN, which does not name the modality; the learned context tokens take the place of `{}`."""

Positions = PerModality[Int64[np.ndarray, " _"]]


@dataclass(frozen=True, slots=True)
class PersonFeatures:
    """Projections of all training images, not normalised, and the person of each, -1 for excluded images."""

    features: PerModality[Float[Tensor, "_ embed"]]
    labels: PerModality[Int64[np.ndarray, " _"]]
    num_people: int


def learn_person_prompts(
    known: PersonFeatures,
    tower: TextTower,
    pairs: Callable[[int], Positions],
    *,
    template: Literal["shared", "per_modality"],
    banks: Literal["two", "one"],
    positives: Literal["joint", "per_modality"],
    num_context: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    warmup_epochs: int,
    weight_decay: float,
    init_generator: Callable[[Modality], torch.Generator],
    batch_generator: Callable[[int], np.random.Generator],
) -> tuple[PerModality[Float[Tensor, "people embed"]], float]:
    """Learn the context tokens of every person; return text prototypes (not normalised) and the last epoch's mean loss.

    `pairs` gives the positions of visible and infrared images of the same person for an epoch, from 1. `banks`: context
    tokens for each modality, or for both. `positives`: whether an image's positives include its person's text prototype
    of the other modality. Fewer pairs than `batch_size` make one smaller batch.

    Source: Yu et al., IEEE TMM 2025 (CSDN), modality-specific prompt learner; public code, stage 1.
    """
    device = known.features.visible.device
    sentences = SENTENCES.map(lambda own: SHARED_SENTENCE if template == "shared" else own)
    words = sentences.map_with(partial(_new_bank, tower, known, num_context), PerModality.build(init_generator))

    def encoded(rows: Int64[Tensor, " rows"]) -> PerModality[Float[Tensor, "rows embed"]]:
        visible = words.visible.encode(tower, rows)
        return PerModality(visible, visible if banks == "one" else words.infrared.encode(tower, rows))

    def loss(batch: Positions) -> Float[Tensor, ""]:
        people, index = np.unique(known.labels.visible[batch.visible], return_inverse=True)
        rows, places = upload(people, device), upload(index, device)
        texts = encoded(rows).map(lambda one: one[places])
        images = known.features.map_with(lambda some, at: some[upload(at, device)], batch)
        if positives == "per_modality":
            terms = images.map_with(lambda x, t: _both_ways(x, t, places), texts)
            return terms.visible + terms.infrared
        return _both_ways(torch.cat([*images]), torch.cat([*texts]), torch.cat([places, places]))

    mean = fit_texts(
        [words.visible.context] if banks == "one" else [bank.context for bank in words],
        epochs,
        lambda epoch: _shuffled(pairs(epoch), batch_size, batch_generator(epoch)),
        loss,
        rate=lambda epoch: cosine_warmup(
            epoch - 1, base=learning_rate, total_epochs=epochs, warmup_epochs=warmup_epochs
        ),
        weight_decay=weight_decay,
        description="learn prompts",
        setting="prompts.learning_rate",
    )
    everyone = torch.arange(known.num_people, device=device)
    with torch.no_grad():
        return encoded(everyone), mean


def learn_fusion(
    known: PersonFeatures,
    texts: PerModality[Float[Tensor, "people embed"]],
    fusion: nn.Module,
    positions: Positions,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    warmup_epochs: int,
    weight_decay: float,
    prototype_dropout: bool,
    batch_generator: Callable[[int], np.random.Generator],
) -> tuple[Float[Tensor, "people embed"], float]:
    """Learn to fuse a person's two text prototypes into one, which images of both modalities are pulled towards.

    `fusion` is changed in place, on the images of `positions`. `prototype_dropout`: the result is computed with
    dropout. Returns the fused text prototypes, not normalised, and the mean loss of the last epoch, 0 if nothing is
    learned.

    Source: Yu et al., IEEE TMM 2025 (CSDN), semantic information integration; public code, stage 2. Differs: the text
    encoder is run once, not at every step.
    """
    device = texts.visible.device
    features = torch.cat([*known.features.map_with(lambda some, at: some[upload(at, device)], positions)])
    labels = np.concatenate([*known.labels.map_with(lambda some, at: some[at], positions)])

    def loss(batch: Int64[np.ndarray, " _"]) -> Float[Tensor, ""]:
        people = upload(labels[batch], device)
        fused = fusion(*texts.map(lambda text: text[people]))
        return _both_ways(features[upload(batch, device)], fused, people)

    def batches(epoch: int) -> Iterator[Int64[np.ndarray, " _"]]:
        order = batch_generator(epoch).permutation(len(labels))
        yield from _full_batches(order, batch_size)

    mean = 0.0
    if not isinstance(fusion, SumFusion):
        mean = fit_texts(
            list(fusion.train().parameters()),
            epochs,
            batches,
            loss,
            rate=lambda epoch: cosine_warmup(
                epoch - 1, base=learning_rate, total_epochs=epochs, warmup_epochs=warmup_epochs
            ),
            weight_decay=weight_decay,
            description="learn fusion",
            setting="fusion.learning_rate",
        )
    with torch.no_grad():
        fused: Tensor = fusion.train(prototype_dropout)(*texts)
    return fused, mean


def _new_bank(
    tower: TextTower, known: PersonFeatures, num_context: int, sentence: str, generator: torch.Generator
) -> PromptBank:
    bank = PromptBank(tower, sentence, known.num_people, num_context=num_context, generator=generator)
    return bank.to(known.features.visible.device)


def _both_ways(images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
    return text_contrast(images, texts, labels, labels) + text_contrast(texts, images, labels, labels)


def _shuffled(pairs: Positions, batch_size: int, generator: np.random.Generator) -> Iterator[Positions]:
    order = generator.permutation(len(pairs.visible))
    for chosen in _full_batches(order, batch_size):
        yield PerModality(pairs.visible[chosen], pairs.infrared[chosen])


def _full_batches(order: Int64[np.ndarray, " n"], batch_size: int) -> Iterator[Int64[np.ndarray, " _"]]:
    """All full batches, without the rest; one smaller batch if there is none."""
    for start in range(max(1, len(order) // batch_size)):
        yield order[start * batch_size : (start + 1) * batch_size]
