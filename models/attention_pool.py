"""CLIP's attention pool, which only the projection uses, and the positional grid that both kinds of trunk resize."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def resize_grid(
    positions: Float[Tensor, "old_tokens width"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "new_tokens width"]:
    """Stretch a grid of positional embeddings to another number of rows and columns, bilinearly.

    The first row belongs to the pooled or class token and is kept; equal sizes return the values bit for bit.

    Args:
        positions: One row for the first token, then one a grid cell, row by row.
        old: Rows and columns of the given grid.
        new: Rows and columns of the wanted grid.

    Returns:
        One row for the first token, then `new[0] * new[1]` rows.

    Raises:
        ValueError: The number of rows is not `1 + old[0] * old[1]`.

    Source: open_clip, src/open_clip/model.py, `resize_pos_embed`.
    Differs: bilinear without antialiasing, as in Syliz517/CLIP-ReID and CzAngus/CCLNet.
    """
    if len(positions) != 1 + old[0] * old[1]:
        raise ValueError(
            f"{len(positions)} positional rows do not fit a grid of {old[0]} x {old[1]} and one more token"
        )
    if old == new:
        return positions
    grid = positions[1:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=new, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], grid.flatten(2)[0].T])


class AttentionPool(nn.Module):
    """The output of CLIP's attention pool, which is its first token, without computing the others.

    A head's score is `q (W_k x + b_k)`, so `q W_k` is formed once and meets the tokens in their own width; likewise
    the value matrix is applied to the weighted mean of the tokens, not to each of them. Same numbers, same gradients.

    Args:
        pool: open_clip's `AttentionPool2d`; it is copied.
        grid: Rows and columns of the feature map that will be pooled.

    Cost: RN50 at 288 x 144 pixels: 36 M multiplications an image; the full pool takes 2.5 G.
    """

    def __init__(self, pool: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        self.q_proj: nn.Linear = copy.deepcopy(pool.q_proj)
        self.k_proj: nn.Linear = copy.deepcopy(pool.k_proj)
        self.v_proj: nn.Linear = copy.deepcopy(pool.v_proj)
        self.c_proj: nn.Linear = copy.deepcopy(pool.c_proj)
        self.num_heads: int = pool.num_heads
        side = round((len(pool.positional_embedding) - 1) ** 0.5)  # open_clip builds square grids only
        self.positional_embedding = nn.Parameter(
            resize_grid(pool.positional_embedding.detach(), (side, side), grid).clone()
        )

    def forward(self, feature_map: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch embed"]:
        """Pool a feature map into the space that CLIP shares with text; not normalised."""
        cells = feature_map.flatten(2).transpose(1, 2)
        tokens = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + self.positional_embedding
        heads, width = self.num_heads, tokens.shape[-1]
        query = self.q_proj(tokens[:, 0]).unflatten(1, (heads, -1)) * (width // heads) ** -0.5
        key_weight = self.k_proj.weight.view(heads, -1, width)
        value_weight = self.v_proj.weight.view(heads, -1, width)
        scores = torch.einsum("bhk,hkw->bhw", query, key_weight) @ tokens.transpose(1, 2)
        # The key bias adds one number to a whole row of scores and softmax ignores it; it stays in the graph so that no
        # parameter is left without a gradient.
        scores = scores + torch.einsum("bhk,hk->bh", query, self.k_proj.bias.view(heads, -1))[..., None]
        mixed = scores.softmax(dim=-1) @ tokens
        values = torch.einsum("bhw,hkw->bhk", mixed, value_weight) + self.v_proj.bias.view(heads, -1)
        pooled: Tensor = self.c_proj(values.flatten(1))
        return pooled
