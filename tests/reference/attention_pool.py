"""CLIP's attention pool for every query, and the bilinear stretching of a grid, in loops.

Follows Radford et al., 2021, and the public code of openai/CLIP, clip/model.py, `AttentionPool2d`.
"""

import math
from typing import Any

import torch
from torch import Tensor


def stretch(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Cell centres of the new grid, looked up between the four nearest cell centres of the old one."""
    cells = positions[1:].reshape(*old, -1)
    rows = [positions[0]]
    for row in range(new[0]):
        for column in range(new[1]):
            top, bottom, down = _neighbours(row, old[0], new[0])
            left, right, along = _neighbours(column, old[1], new[1])
            above = cells[top, left] * (1 - along) + cells[top, right] * along
            below = cells[bottom, left] * (1 - along) + cells[bottom, right] * along
            rows.append(above * (1 - down) + below * down)
    return torch.stack(rows)


def _neighbours(cell: int, old: int, new: int) -> tuple[int, int, float]:
    place = max((cell + 0.5) * old / new - 0.5, 0.0)
    first = min(math.floor(place), old - 1)
    return first, min(first + 1, old - 1), place - first


def all_tokens(pool: Any, positions: Tensor, feature_map: Tensor) -> Tensor:
    """Every output token [b 1+hw e] of the full pool; `pool` has q_proj, k_proj, v_proj, c_proj and num_heads."""
    images = []
    for image in feature_map:
        cells = image.reshape(image.shape[0], -1).T
        tokens = torch.stack([cells.mean(dim=0), *cells]) + positions
        query, key, value = pool.q_proj(tokens), pool.k_proj(tokens), pool.v_proj(tokens)
        width = query.shape[1] // pool.num_heads
        outputs = []
        for position in range(len(tokens)):
            heads = []
            for head in range(pool.num_heads):
                part = slice(head * width, (head + 1) * width)
                scores = torch.stack([query[position, part] @ other[part] / math.sqrt(width) for other in key])
                shares = scores.exp() / scores.exp().sum()
                heads.append(sum(share * other[part] for share, other in zip(shares, value, strict=True)))
            outputs.append(pool.c_proj(torch.cat(heads)))
        images.append(torch.stack(outputs))
    return torch.stack(images)
