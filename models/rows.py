"""Rows of unit length, as every comparison by cosine takes them."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def normalise_rows(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Scale rows to length 1; a row of zeros stays."""
    return functional.normalize(rows, dim=1, eps=1e-12)
