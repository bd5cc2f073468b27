"""Heads of supervised training: pooling with a learned power, and identity classifiers."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.encoder import DualStemEncoder

CLASSIFIER_DEVIATION = 0.001  # standard deviation of the initial weights


class LearnedGeneralisedMean(nn.Module):
    """`(mean max(x, floor)^p)^(1/p)` over the cells of a feature map, with one learned power for all channels.

    Source: nengdong96/CSDN, pooling of the network. `floor`: a root has no slope at 0.
    """

    def __init__(self, power: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([power]))
        self.floor = floor

    def forward(self, feature_map: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width"]:
        """One number a channel, larger than 0."""
        # In logarithms: a small value to a large power would underflow, and its gradient with it.
        cells = feature_map.shape[2] * feature_map.shape[3]
        powers = (feature_map.clamp(min=self.floor).log() * self.power).logsumexp(dim=(2, 3))
        return ((powers - math.log(cells)) / self.power).exp()


class PersonClassifier(nn.Module):
    """An identity classifier for each neck of the encoder (projection width 0: one), on features of the whole batch.

    Source: Yu et al., IEEE TMM 2025 (CSDN), public code, both heads of the network.
    """

    def __init__(self, neck_width: int, projection_width: int, num_people: int, generator: torch.Generator) -> None:
        super().__init__()
        if num_people < 2:
            raise ValueError(f"a classifier needs at least 2 people, got {num_people}")
        self.neck = _classifier(neck_width, num_people, generator)
        self.projection = _classifier(projection_width, num_people, generator) if projection_width else None

    @property
    def num_people(self) -> int:
        """Number of classes."""
        return self.neck.out_features

    def forward(
        self, neck: Float[Tensor, "batch width"], projection: Float[Tensor, "batch embed"] | None
    ) -> list[Float[Tensor, "batch people"]]:
        """Scores of all people for each image, from each neck of the encoder."""
        scores = [self.neck(neck)]
        if self.projection is not None:
            scores.append(self.projection(projection))
        return scores


def prepare_for_people(
    encoder: DualStemEncoder, *, stem_activation: Literal["clip", "last"] = "clip"
) -> DualStemEncoder:
    """Give a ResNet encoder, in place, a learned pooling power and two necks with biases, for supervised training.

    With `stem_activation="last"` only the last of a stem's three convolutions keeps its ReLU, as in the public code of
    CSDN; its features are then not CLIP's.
    """
    power = getattr(encoder.pool, "power", None)
    if not isinstance(power, float):
        raise ValueError("supervised training needs a ResNet: a vision transformer has no map to pool")
    place = encoder.neck.weight
    encoder.pool = LearnedGeneralisedMean(power).to(place)
    if encoder.projection is not None:
        encoder.projection_neck = nn.BatchNorm1d(encoder.projection_width).to(place)
    encoder.neck.bias.requires_grad_(True)
    if stem_activation == "last":
        for stem in encoder.stems.children():
            stem.act1, stem.act2 = nn.Identity(), nn.Identity()
    return encoder.eval()


def _classifier(width: int, num_people: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, width, num_people, bias=False)
    layer.weight.data.copy_(torch.randn(num_people, width, generator=generator) * CLASSIFIER_DEVIATION)
    assert isinstance(layer, nn.Linear)
    return layer
