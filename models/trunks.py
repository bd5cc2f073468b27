"""The parts of CLIP's image towers: ResNet stem, trunk and attention pool, and the vision transformer."""

import copy
from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3", "bn3", "act3", "avgpool")
_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def resnet_stem(visual: Any) -> nn.Sequential:
    """Copy the stem of open_clip's `ModifiedResNet`: images to maps of a quarter of their height and width."""
    return nn.Sequential(OrderedDict((name, copy.deepcopy(getattr(visual, name))) for name in _STEM))


def resnet_trunk(visual: Any) -> nn.Sequential:
    """Copy the four residual layers of open_clip's `ModifiedResNet`, the last one with stride 1.

    CLIP strides by average pooling, so the poolings in the first block of `layer4` and in its shortcut become the
    identity; weights keep their shapes and open_clip's names.
    """
    trunk = nn.Sequential(OrderedDict((name, copy.deepcopy(getattr(visual, name))) for name in _LAYERS))
    first: Any = trunk.get_submodule("layer4.0")
    first.avgpool = nn.Identity()
    first.downsample[0] = nn.Identity()
    first.stride = 1
    return trunk


def resnet_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the last feature map.

    >>> resnet_grid(288, 144)
    (18, 9)
    """
    return _sixteenth(height), _sixteenth(width)


def _sixteenth(length: int) -> int:
    """The first convolution rounds a half up, the three poolings round down."""
    return (length + 1) // 2 // 8


class GeneralisedMean(nn.Module):
    """`(mean x^p)^(1/p)` over the cells of a non-negative feature map: the mean for p = 1, the maximum for large p.

    Source: CzAngus/CCLNet, the model's pooling: 1e-12 is added before the root, so an empty channel gives 1e-4.
    """

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, feature_map: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width"]:
        """One number a channel."""
        return (feature_map.pow(self.power).mean(dim=(2, 3)) + 1e-12).pow(1 / self.power)


def resize_grid(
    positions: Float[Tensor, "old_tokens width"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "new_tokens width"]:
    """Resize positional embeddings of `old` rows x columns bilinearly to `new`.

    The first row belongs to the pooled or class token and is kept; equal sizes return the values bit for bit.

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
    """The first token of CLIP's attention pool (its output), without computing the others; same numbers and gradients.

    A head's score is `q (W_k x + b_k)`, so `q W_k` is computed once and multiplied with the tokens in their own width;
    likewise the value matrix is applied to the weighted mean of the tokens. `pool` is copied; `grid` has the rows and
    columns of the feature map.

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
        """Pool a feature map into CLIP's joint image-text space; not normalised."""
        cells = feature_map.flatten(2).transpose(1, 2)
        tokens = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + self.positional_embedding
        heads, width = self.num_heads, tokens.shape[-1]
        query = self.q_proj(tokens[:, 0]).unflatten(1, (heads, -1)) * (width // heads) ** -0.5
        key_weight = self.k_proj.weight.view(heads, -1, width)
        value_weight = self.v_proj.weight.view(heads, -1, width)
        scores = torch.einsum("bhk,hkw->bhw", query, key_weight) @ tokens.transpose(1, 2)
        # Softmax ignores the key bias, which is equal for a row; it stays in the graph so that it has a gradient.
        scores = scores + torch.einsum("bhk,hk->bh", query, self.k_proj.bias.view(heads, -1))[..., None]
        mixed = scores.softmax(dim=-1) @ tokens
        values = torch.einsum("bhw,hkw->bhk", mixed, value_weight) + self.v_proj.bias.view(heads, -1)
        pooled: Tensor = self.c_proj(values.flatten(1))
        return pooled


class VisionTransformerTrunk(nn.Module):
    """Everything of open_clip's `VisionTransformer` between the patch embedding and the projection; no patch dropout.

    The parts are copied, and positional embeddings resized to `grid`, the rows and columns of patches.
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
        # CoCa's attentional pooler is always followed by the norm, then by the choice of a token.
        self._norm_after_pooling = visual.final_ln_after_pool and self.attn_pool is None

    def forward(self, patches: Float[Tensor, "batch patch_width rows columns"]) -> Float[Tensor, "batch width"]:
        """The image feature before the projection: the class token, or the mean token if the model pools so."""
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
    """Copy the projection into CLIP's joint image-text space."""
    matrix: Tensor = visual.proj.detach()
    linear = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False, device="meta")  # draws no weights
    linear.weight = nn.Parameter(matrix.T.clone())
    return linear


def patch_grid(visual: Any, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of whole patches in an image; a remainder at the right or lower edge is ignored."""
    return height // visual.patch_size[0], width // visual.patch_size[1]
