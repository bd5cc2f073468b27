"""How long texts are for CLIP, without the limit at which it cuts them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

LONGEST = 512
_TEXTS = 1024


def count_tokens(tokenizer: Callable[..., Tensor], texts: list[str]) -> Int64[np.ndarray, " _"]:
    """The number of tokens of each text, start and end included, as if CLIP read on behind 77.

    Args:
        tokenizer: open_clip's tokenizer of a model that ends a text with the largest of its numbers, as OpenAI's do.
        texts: Any number of them.

    Returns:
        One number a text, at most 512.

    Cost: 6 s for 34,167 captions of 35 words (measured on one core).
    """
    lengths: list[int] = []
    for first in range(0, len(texts), _TEXTS):
        tokens: Any = tokenizer(texts[first : first + _TEXTS], context_length=LONGEST)
        lengths += (torch.as_tensor(tokens).argmax(dim=1) + 1).tolist()
    return np.array(lengths, dtype=np.int64)
