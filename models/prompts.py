"""Learned prompts: a sentence with learned context vectors, one set for each cluster."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.modality import PerModality
from models.text_tower import TextTower

SENTENCES = PerModality("A visible photo of a {} person.", "An infrared photo of a {} person.")
"""The sentences of CCLNet; the learned context vectors replace `{}`."""

INITIAL_DEVIATION = 0.02
"""Standard deviation of an initial context vector, that of CLIP's own token embeddings."""

_PLACEHOLDER = "X"


class PromptBank(nn.Module):
    """One prompt for each cluster of one modality: the same sentence, with `num_context` learned vectors of its own.

    `context` is the only parameter and the only saved state; the tokens around it are CLIP's and fixed. Cluster numbers
    of the two modalities are unrelated, so each modality has a bank. `sentence` has `{}` at the place of the learned
    vectors, and no other `X`. Initial vectors are normal with deviation 0.02, from `generator` on the CPU.

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
        tokens = tower.token_embedding(ids)[0, : self.eot + 1].detach()
        self.prefix: Tensor
        self.suffix: Tensor
        self.register_buffer("prefix", tokens[:first].clone(), persistent=False)
        self.register_buffer("suffix", tokens[first + num_context :].clone(), persistent=False)
        context = _initial_context(num_rows, num_context, tower.width, generator)
        self.context = nn.Parameter(context.to(tokens.device, tokens.dtype))
        self._tied: tuple[nn.Parameter, Tensor] | None = None

    @property
    def num_rows(self) -> int:
        """Number of clusters."""
        return self.context.shape[0]

    def tie(self, other: "PromptBank", rows: Int64[np.ndarray, " pairs"], there: Int64[np.ndarray, " pairs"]) -> None:
        """Use the context vectors of another bank for some clusters, in this bank's sentence.

        Source: ours.
        """
        places = torch.full((self.num_rows,), -1)
        places[torch.from_numpy(rows)] = torch.from_numpy(there)
        self._tied = other.context, places.to(self.context.device)

    def contexts(self, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows context width"]:
        """The context vectors of some clusters, with gradient to the bank that holds them."""
        own = self.context[rows]
        if self._tied is None:
            return own
        context, places = self._tied
        there = places[rows]
        return torch.where((there >= 0)[:, None, None], context[there.clamp(min=0)], own)

    def embeddings(self, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows length width"]:
        """The prompts of some clusters as token embeddings, from the start to the end-of-text token."""
        prefix, suffix = (tokens.expand(len(rows), -1, -1) for tokens in (self.prefix, self.suffix))
        return torch.cat([prefix, self.contexts(rows), suffix], dim=1)

    def encode(self, tower: TextTower, rows: Int64[Tensor, " rows"], chunk: int = 128) -> Float[Tensor, "rows embed"]:
        """Text features of the prompts of at least one cluster, not normalised, with gradient to `context`.

        Repeated clusters are encoded repeatedly: pass each once and gather afterwards. `chunk`, the number of prompts
        encoded at once, bounds memory without gradients and does not change the result.
        """
        return torch.cat([tower.from_embeddings(self.embeddings(part), self.eot) for part in rows.split(chunk)])


def warm_start(
    context: Float[Tensor, "old_rows context width"],
    new_labels: Int64[np.ndarray, " n"],
    old_labels: Int64[np.ndarray, " n"],
    num_rows: int,
    generator: torch.Generator,
) -> Float[Tensor, "num_rows context width"]:
    """Context vectors for new clusters, each copied from the old cluster with which it shares most images.

    Several new clusters may copy the same old one; of equal shares the smaller old number is used. A cluster without an
    image of any old one gets new vectors, as in `PromptBank`. Labels are those of the same images, -1 for none.

    Raises:
        ValueError: A label beyond the old or the new clusters.

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
    fresh = _initial_context(int(is_new.sum()), context.shape[1], context.shape[2], generator)
    started[is_new.to(context.device)] = fresh.to(context.device, context.dtype)
    return started


def _initial_context(num_rows: int, num_context: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(num_rows, num_context, width, generator=generator) * INITIAL_DEVIATION


def _placeholder_position(tower: TextTower, ids: Tensor, sentence: str, num_context: int) -> int:
    """Position of the first placeholder; checks that all are adjacent and nothing is truncated."""
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
