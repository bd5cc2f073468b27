"""Learned prompts: a sentence in which some context tokens are free vectors, one set of them for each cluster."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.modality import PerModality
from models.text_tower import TextTower

SENTENCES = PerModality("A visible photo of a {} person.", "An infrared photo of a {} person.")
"""The sentences of CCLNet; the learned context tokens take the place of `{}`."""

INITIAL_DEVIATION = 0.02
"""Standard deviation of a learned vector before training, that of CLIP's own token embeddings."""

_PLACEHOLDER = "X"


class PromptBank(nn.Module):
    """One prompt for each cluster of one modality: the same sentence, with `num_context` learned vectors of its own.

    `context` is the only parameter and the only saved state; the tokens around it are CLIP's and fixed. The cluster
    numbers of the two modalities are unrelated, so each modality has a bank.

    Args:
        tower: Whose tokens the sentence is made of; it is not kept.
        sentence: With `{}` where the learned vectors stand; `X` occurs in it nowhere else.
        num_rows: How many clusters; take it from the labels in use.
        num_context: How many learned vectors a prompt has.
        generator: What the first values are drawn from, on the CPU; normal with deviation 0.02.

    Raises:
        ValueError: No cluster, no learned vector, or a prompt that is longer than the tower's context.

    Source: CzAngus/CCLNet and Syliz517/CLIP-ReID, prompt learner.
    """

    def __init__(
        self, tower: TextTower, sentence: str, num_rows: int, *, num_context: int = 4, generator: torch.Generator
    ) -> None:
        super().__init__()
        if num_rows < 1:
            raise ValueError("a prompt bank needs at least one cluster")
        ids = tower.tokenize([sentence.format(" ".join([_PLACEHOLDER] * num_context))])
        first = _placeholder_position(tower, ids[0], sentence, num_context)
        self.eot = int(tower.ends(ids)[0])
        words = tower.token_embedding(ids)[0, : self.eot + 1].detach()
        self.prefix: Tensor
        self.suffix: Tensor
        self.register_buffer("prefix", words[:first].clone(), persistent=False)
        self.register_buffer("suffix", words[first + num_context :].clone(), persistent=False)
        self.context = nn.Parameter(_draw(num_rows, num_context, tower.width, generator).to(words.device, words.dtype))

    @property
    def num_rows(self) -> int:
        """How many clusters have a prompt."""
        return self.context.shape[0]

    def embeddings(self, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows length width"]:
        """The prompts of some clusters as token embeddings, from the start to the end-of-text token.

        Args:
            rows: Cluster numbers, 0 to `num_rows - 1`; may repeat.
        """
        prefix, suffix = (words.expand(len(rows), -1, -1) for words in (self.prefix, self.suffix))
        return torch.cat([prefix, self.context[rows], suffix], dim=1)

    def encode(self, tower: TextTower, rows: Int64[Tensor, " rows"], chunk: int = 128) -> Float[Tensor, "rows embed"]:
        """Text features of the prompts of some clusters.

        Name every cluster once and gather afterwards: a repeated one is encoded again, for the same loss and gradient.

        Args:
            tower: The tower that the bank was made for.
            rows: Cluster numbers, 0 to `num_rows - 1`, at least one.
            chunk: How many prompts run at once. Without gradients it bounds memory; it changes no result.

        Returns:
            Not normalised; carries the gradient to `context`.
        """
        return torch.cat([tower.from_embeddings(self.embeddings(part), self.eot) for part in rows.split(chunk)])


def warm_start(
    context: Float[Tensor, "old_rows context width"],
    new_labels: Int64[np.ndarray, " n"],
    old_labels: Int64[np.ndarray, " n"],
    num_rows: int,
    generator: torch.Generator,
) -> Float[Tensor, "num_rows context width"]:
    """Learned vectors for new clusters, each copied from the old cluster that it shares most images with.

    Two new clusters may copy the same old one. Equal shares: the smaller old number. A cluster that shares no image
    with any old one is drawn anew, normal with deviation 0.02.

    Args:
        context: The learned vectors of the old clusters.
        new_labels: The new cluster of every image, -1 for none.
        old_labels: The old cluster of the same images in the same order, -1 for none.
        num_rows: How many new clusters there are.
        generator: What new rows are drawn from, on the CPU.

    Returns:
        The learned vectors of the new clusters, on the device of `context`, without gradient.

    Raises:
        ValueError: A label beyond the rows that exist, on either side.

    Source: ours, for prompts that are learned again while clusters change; CCLNet learns them once.
    """
    num_old = len(context)
    for name, labels, limit in (("new", new_labels, num_rows), ("old", old_labels, num_old)):
        if len(labels) and int(labels.max()) >= limit:
            raise ValueError(f"{name} label {int(labels.max())} with {limit} prompts")
    clustered = (new_labels >= 0) & (old_labels >= 0)
    pairs = new_labels[clustered] * num_old + old_labels[clustered]
    overlap = np.bincount(pairs, minlength=num_rows * num_old).reshape(num_rows, num_old)
    source = torch.from_numpy(overlap.argmax(axis=1))  # the first of equal maxima
    is_new = torch.from_numpy(overlap.max(axis=1) == 0)
    started = context.detach()[source.to(context.device)]
    fresh = _draw(int(is_new.sum()), context.shape[1], context.shape[2], generator)
    started[is_new.to(context.device)] = fresh.to(context.device, context.dtype)
    return started


def _draw(num_rows: int, num_context: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(num_rows, num_context, width, generator=generator) * INITIAL_DEVIATION


def _placeholder_position(tower: TextTower, ids: Tensor, sentence: str, num_context: int) -> int:
    """Where the placeholders start, after checking that all are there, side by side, and that nothing is cut off."""
    placeholder = tower.tokenize([_PLACEHOLDER])[0, 1]  # between the start and the end of the text
    positions: list[int] = (ids == placeholder).nonzero()[:, 0].tolist()
    first = positions[0] if positions else 0
    whole = int(tower.ends(tower.tokenize([sentence.format("")]))[0]) + num_context
    is_cut = not int(tower.ends(ids[None])[0]) == whole < tower.context_length
    if num_context < 1 or is_cut or positions != list(range(first, first + num_context)):
        raise ValueError(
            f"{sentence!r} cannot hold {num_context} learned vectors in {tower.context_length} tokens: "
            f"their token positions are {positions}"
        )
    return first
