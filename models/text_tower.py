"""CLIP's text tower, frozen by default, and computed only up to the end of the text."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.clip import LoadedClip


class TextTower(nn.Module):
    """CLIP's text transformer, final norm and projection, with gradients for its input and none for its weights.

    Attention is causal, so tokens after the end-of-text token cannot change the output and are not computed.
    `requires_grad_(True)` makes all weights trainable, token embeddings and positions included. `text` is open_clip's
    `CLIP` or its `text`; `end_token` is None if it is the largest of its row, as in CLIP's vocabulary.
    """

    def __init__(self, text: Any, end_token: int | None, tokenizer: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        if text.attn_mask is None or getattr(text, "cls_emb", None) is not None:
            raise ValueError("the text tower does not read its output at the end-of-text token of a causal transformer")
        self.token_embedding: nn.Embedding = copy.deepcopy(text.token_embedding)
        self.positional_embedding: nn.Parameter = copy.deepcopy(text.positional_embedding)
        self.transformer: nn.Module = copy.deepcopy(text.transformer)
        self.ln_final: nn.Module = copy.deepcopy(text.ln_final)
        self.text_projection: nn.Parameter | nn.Linear | None = copy.deepcopy(text.text_projection)
        self.attn_mask: Tensor
        self.register_buffer("attn_mask", text.attn_mask.clone(), persistent=False)
        self.end_token = end_token
        self._tokenizer = tokenizer
        self.requires_grad_(False)

    @classmethod
    def from_clip(cls, clip: LoadedClip) -> "TextTower":
        """Copy the text tower of a CLIP model and freeze the copy; the model itself is unchanged.

        Raises:
            ValueError: A text tower that does not read its output at the end-of-text token of a causal transformer.

        Cost: RN50's tower has 63.7 M weights, 255 MB, of which 25.3 M are token embeddings.
        """
        model: Any = clip.model
        text = model.text if hasattr(model, "text") else model
        pooling = text.pool_type if hasattr(text, "pool_type") else model.text_pool_type
        if pooling not in ("argmax", "eos"):
            raise ValueError(
                f"the text tower of {clip.origin.model} pools by {pooling!r}, not at the end-of-text token"
            )
        end_token = None if pooling == "argmax" else (text.eos_id if hasattr(text, "eos_id") else model.text_eos_id)
        return cls(text, end_token, clip.tokenizer).eval()

    @property
    def width(self) -> int:
        """Width of a token embedding."""
        return self.token_embedding.embedding_dim

    @property
    def embed_dim(self) -> int:
        """Width of the output, CLIP's joint image-text space."""
        match self.text_projection:
            case None:
                return self.width
            case nn.Linear() as linear:
                return linear.out_features
            case matrix:
                return matrix.shape[1]

    @property
    def context_length(self) -> int:
        """The longest text, in tokens."""
        return self.positional_embedding.shape[0]

    def tokenize(self, texts: list[str]) -> Int64[Tensor, "rows length"]:
        """Token ids on the tower's device, one row of `context_length` a text, 0 after the end.

        A longer text is truncated, and its last token is the end-of-text token.
        """
        return self._tokenizer(texts).to(self.positional_embedding.device, torch.int64)

    def ends(self, ids: Int64[Tensor, "rows length"]) -> Int64[Tensor, " rows"]:
        """The position of each row's end-of-text token."""
        return ids.argmax(dim=1) if self.end_token is None else (ids == self.end_token).int().argmax(dim=1)

    def from_embeddings(self, embeddings: Float[Tensor, "rows length width"], eot: int) -> Float[Tensor, "rows embed"]:
        """Text features, not normalised, of token embeddings (before positions are added) that end at position `eot`.

        Cost: RN50's tower, 128 prompts of 13 tokens: 63 G multiplications, a sixth of those for all 77 positions.
        """
        if not eot < min(embeddings.shape[1], self.context_length):
            raise ValueError(
                f"a text that ends at position {eot} cannot be read from {embeddings.shape[1]} embeddings "
                f"by a tower of {self.context_length} positions"
            )
        return self._project(self._transform(embeddings[:, : eot + 1])[:, eot])

    def cut(self, ids: Int64[Tensor, "rows length"]) -> Int64[Tensor, "rows longest"]:
        """Token ids up to the end of the longest text, at least one column; synchronises with a GPU."""
        return ids[:, : int(self.ends(ids).max()) + 1 if len(ids) else 1]

    def from_tokens(self, ids: Int64[Tensor, "rows length"]) -> Float[Tensor, "rows embed"]:
        """Text features of token ids, not normalised, equal to open_clip's `encode_text`.

        Positions behind the longest text are not computed, which synchronises with a GPU.
        """
        return self.from_cut_tokens(self.cut(ids))

    def from_cut_tokens(self, ids: Int64[Tensor, "rows length"]) -> Float[Tensor, "rows embed"]:
        """`from_tokens` of rows that `cut` returned; all positions are computed, without synchronising with a GPU."""
        tokens = self._transform(self.token_embedding(ids))
        return self._project(tokens[torch.arange(len(ids), device=ids.device), self.ends(ids)])

    @torch.no_grad()
    def encode_texts(self, texts: list[str], chunk: int = 256) -> Float[Tensor, "texts embed"]:
        """Features of texts, not normalised, with the current weights, without gradients.

        Each distinct text is encoded once, in batches (`chunk`) of similar lengths; longer ones than `context_length`
        are truncated.

        Cost: RN50's tower, texts of 40 tokens: 1.5 G multiplications each.
        """
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        ids = self.tokenize(list(rows))
        order = self.ends(ids).argsort(stable=True)
        features = self.positional_embedding.new_empty(len(rows), self.embed_dim)
        for part in order.split(chunk):
            features[part] = self.from_tokens(ids[part])
        return features[torch.tensor([rows[text] for text in texts], dtype=torch.int64, device=features.device)]

    def _transform(self, embeddings: Tensor) -> Tensor:
        length = embeddings.shape[1]
        positioned = embeddings + self.positional_embedding[:length]
        tokens: Tensor = self.transformer(positioned, attn_mask=self.attn_mask[:length, :length])
        return tokens

    def _project(self, tokens: Tensor) -> Tensor:
        normalised: Tensor = self.ln_final(tokens)
        match self.text_projection:
            case None:
                return normalised
            case nn.Linear() as linear:
                projected: Tensor = linear(normalised)
                return projected
            case matrix:
                return normalised @ matrix
