"""The parts of CLIP's vision transformer that follow the patch embedding: the shared layers and the projection."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.attention_pool import resize_grid


class VisionTransformerTrunk(nn.Module):
    """Everything of open_clip's `VisionTransformer` between the patch embedding and the projection.

    Patches are never dropped in training, whatever the model's configuration says.

    Args:
        visual: open_clip's `VisionTransformer`; its parts are copied.
        grid: Rows and columns of patches in the images to come; the positional embeddings are stretched to it.

    Raises:
        ValueError: A pooling that open_clip itself calls untested.
    """

    def __init__(self, visual: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        if getattr(visual, "attn_pool_contrastive", None) is not None or visual.pool_type == "none":
            raise ValueError(f"a vision transformer with pooling {visual.pool_type!r} has no single image feature")
        self.class_embedding = copy.deepcopy(visual.class_embedding)
        positions: Tensor = visual.positional_embedding
        self.positional_embedding = nn.Parameter(
            resize_grid(positions.detach(), visual.grid_size, grid).clone(), requires_grad=positions.requires_grad
        )
        self.ln_pre: nn.Module = copy.deepcopy(visual.ln_pre)
        self.transformer: nn.Module = copy.deepcopy(visual.transformer)
        self.attn_pool: nn.Module | None = copy.deepcopy(visual.attn_pool)
        self.ln_post: nn.Module = copy.deepcopy(visual.ln_post)
        self._takes_mean = visual.pool_type == "avg"
        # The attentional pooler of CoCa is always followed by the norm, then by the choice of a token.
        self._norm_after_pooling = visual.final_ln_after_pool and self.attn_pool is None

    def forward(self, patches: Float[Tensor, "batch patch_width rows columns"]) -> Float[Tensor, "batch width"]:
        """The image feature before the projection: the class token, or the mean token where the model pools so."""
        tokens = patches.flatten(2).transpose(1, 2)
        first = self.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        tokens = self.ln_pre(torch.cat([first, tokens], dim=1) + self.positional_embedding.to(tokens.dtype))
        tokens = self.transformer(tokens)
        if self.attn_pool is not None:
            tokens = self.attn_pool(tokens)
        if self._norm_after_pooling:
            pooled: Tensor = self.ln_post(self._pool(tokens))
            return pooled
        return self._pool(self.ln_post(tokens))

    def _pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:].mean(dim=1) if self._takes_mean else tokens[:, 0]


def patch_projection(visual: Any) -> nn.Linear:
    """Copy the matrix that takes the image feature into the space that CLIP shares with text."""
    matrix: Tensor = visual.proj.detach()
    linear = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False, device="meta")  # draws no weights
    linear.weight = nn.Parameter(matrix.T.clone())
    return linear


def patch_grid(visual: Any, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of whole patches in an image; a rest at the right or lower edge is not seen."""
    return height // visual.patch_size[0], width // visual.patch_size[1]
