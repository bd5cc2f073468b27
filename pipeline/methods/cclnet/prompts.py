"""Prompt learning: context tokens of a sentence that describes each cluster's images; encoders stay fixed."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from clustering.dbscan import OUTLIER
from clustering.partners import NO_PARTNER
from models.losses import prompt_contrast
from models.modality import Modality, PerModality
from models.prompts import SENTENCES, PromptBank, warm_start
from models.rows import normalise_rows
from models.text_tower import TextTower
from pipeline.data.samplers.sampling import paired_batches
from pipeline.errors import DegenerateClustering
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.training.optimiser import cosine_warmup, fit_texts

_NO_PAIRS = PerModality(np.empty(0, np.int64), np.empty(0, np.int64))


def learn_prompts(
    features: PerModality[Float[Tensor, "n embed"]],
    labels: PerModality[Int64[np.ndarray, " n"]],
    tower: TextTower,
    *,
    pairs: PerModality[Int64[np.ndarray, " pairs"]] = _NO_PAIRS,
    confidence: Float32[np.ndarray, " pairs"] | None = None,
    shared: bool = False,
    scale: float | None = None,
    num_context: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    warmup_epochs: int,
    weight_decay: float,
    previous: PerModality[TextPrototypes] | None,
    init_generator: Callable[[Modality], torch.Generator],
    batch_generator: Callable[[int], np.random.Generator],
) -> PerModality[TextPrototypes]:
    """Learn prompts on fixed image features and fixed pseudo-labels; one row of text prototypes a label.

    With `shared`, both clusters of each of the `pairs` have the same context tokens in two sentences; else the
    modalities share nothing; `confidence` of the pairs is kept with the texts. `features` are attention-pool features,
    not normalised; outliers are excluded. With `scale`, logits are cosines times it. `weight_decay` also shrinks
    context tokens of clusters absent from a batch. `previous` is for a warm start, None for a random one;
    `init_generator` draws the initial tokens, `batch_generator` the order of an epoch.

    Cost: Each step encodes the distinct clusters of a batch once, up to the end token: 12 or 13 of 77 positions.

    Source: Chen et al., ACM MM 2023, cluster-aware prompt learning; released code, stage 1.
    """
    refuse_nothing(labels)
    clustered = labels.map(lambda all_labels: np.flatnonzero(all_labels != OUTLIER))
    device = features.visible.device
    kept = features.map_with(
        lambda all_features, positions: all_features[torch.from_numpy(positions).to(device)], clustered
    )
    if scale is not None:
        kept = kept.map(normalise_rows)
    targets = labels.map_with(lambda all_labels, positions: all_labels[positions], clustered)
    banks = PerModality.build(
        lambda modality: _new_bank(modality, labels, tower, num_context, previous, init_generator(modality)).to(device)
    )
    if shared:
        banks.infrared.tie(banks.visible, pairs.infrared, pairs.visible)

    def loss(batch: PerModality[Int64[np.ndarray, " batch"]]) -> Float[Tensor, ""]:
        losses = batch.map_with(partial(_prompt_loss, tower, scale), kept, targets, banks)
        return losses.visible + losses.infrared

    fit_texts(
        [bank.context for bank in banks],
        epochs,
        lambda epoch: paired_batches(clustered.map(len), batch_size, batch_generator(epoch)),
        loss,
        rate=lambda epoch: cosine_warmup(epoch, base=learning_rate, total_epochs=epochs, warmup_epochs=warmup_epochs),
        weight_decay=weight_decay,
        description="learn prompts",
        setting="prompts.learning_rate",
    )
    certain = np.ones(len(pairs.visible), np.float32) if confidence is None else confidence
    return banks.map_with(partial(_read_out, tower, certain), labels, pairs, PerModality(pairs.infrared, pairs.visible))


def refuse_nothing(labels: PerModality[Int64[np.ndarray, " n"]]) -> None:
    """Refuse a modality without clusters."""
    for modality, of_images in labels.items():
        if np.all(of_images == OUTLIER):
            raise DegenerateClustering(
                f"all {len(of_images)} {modality} images are outliers: there is nothing to describe",
                hint=f"raise labelling.{modality}.eps, or stages.prepare_rounds",
            )


@torch.no_grad()
def _read_out(
    tower: TextTower,
    certain: Float32[np.ndarray, " pairs"],
    bank: PromptBank,
    labels: Int64[np.ndarray, " n"],
    own: Int64[np.ndarray, " pairs"],
    there: Int64[np.ndarray, " pairs"],
) -> TextPrototypes:
    rows = torch.arange(bank.num_rows, device=bank.context.device)
    partners, confidence = np.full(bank.num_rows, NO_PARTNER), np.zeros(bank.num_rows, np.float32)
    partners[own], confidence[own] = there, certain
    return TextPrototypes(bank.encode(tower, rows), labels, bank.contexts(rows).clone(), partners, confidence)


def _new_bank(
    modality: Modality,
    labels: PerModality[Int64[np.ndarray, " n"]],
    tower: TextTower,
    num_context: int,
    previous: PerModality[TextPrototypes] | None,
    generator: torch.Generator,
) -> PromptBank:
    num_clusters = int(labels[modality].max()) + 1
    bank = PromptBank(tower, SENTENCES[modality], num_clusters, num_context=num_context, generator=generator)
    if previous is not None:
        old = previous[modality]
        words = warm_start(old.context.cpu(), labels[modality], old.labels, num_clusters, generator)
        bank.context.data.copy_(words)
    return bank


def _prompt_loss(
    tower: TextTower,
    scale: float | None,
    rows: Int64[np.ndarray, " batch"],
    features: Float[Tensor, "n embed"],
    targets: Int64[np.ndarray, " n"],
    bank: PromptBank,
) -> Float[Tensor, ""]:
    # The distinct clusters are found on the host, where the labels are: asking the device for them would stall it.
    distinct, index = np.unique(targets[rows], return_inverse=True)
    device = features.device
    texts = bank.encode(tower, torch.from_numpy(distinct).to(device))
    if scale is not None:
        texts = scale * normalise_rows(texts)
    return prompt_contrast(features[torch.from_numpy(rows).to(device)], texts, torch.from_numpy(index).to(device))
