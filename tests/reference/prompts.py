"""CLIP's text transformer over all positions, and the warm start of prompts, in loops.

Follows Radford et al., 2021, section 2.4, and the public code of openai/CLIP, clip/model.py.
"""

import math
from typing import Any

import torch
from torch import Tensor


def text_features(tower: Any, embeddings: Tensor, ends: list[int]) -> Tensor:
    """Features [r e] of token embeddings [r L w] over all L positions, read at `ends`; for towers with quick GELU."""
    features = []
    for text, end in zip(embeddings, ends, strict=True):
        tokens = text + tower.positional_embedding[: len(text)]
        for block in tower.transformer.resblocks:
            tokens = tokens + _attend(block.attn, block.ln_1(tokens))
            hidden = block.mlp.c_fc(block.ln_2(tokens))
            tokens = tokens + block.mlp.c_proj(hidden / (1 + (-1.702 * hidden).exp()))
        features.append(tower.ln_final(tokens)[end] @ tower.text_projection)
    return torch.stack(features)


def _attend(attention: Any, tokens: Tensor) -> Tensor:
    query, key, value = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=1)
    width = query.shape[1] // attention.num_heads
    outputs = []
    for position in range(len(tokens)):
        heads = []
        for head in range(attention.num_heads):
            part = slice(head * width, (head + 1) * width)
            seen = slice(position + 1)  # a token looks at itself and back
            shares = (key[seen, part] @ query[position, part] / math.sqrt(width)).softmax(dim=0)
            heads.append(shares @ value[seen, part])
        outputs.append(attention.out_proj(torch.cat(heads)))
    return torch.stack(outputs)


def warm_start_sources(new_labels: list[int], old_labels: list[int], num_rows: int, num_old: int) -> list[int | None]:
    """For every new cluster the old one that it shares most images with, the smaller of equals; `None` without any."""
    sources: list[int | None] = []
    for cluster in range(num_rows):
        shared = [
            sum(1 for new, old in zip(new_labels, old_labels, strict=True) if (new, old) == (cluster, candidate))
            for candidate in range(num_old)
        ]
        most = max(shared)
        sources.append(shared.index(most) if most > 0 else None)
    return sources
