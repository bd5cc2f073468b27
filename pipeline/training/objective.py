"""The objective of an epoch: a list of terms, each a function of the features of a step, and updates between the steps.

A new loss is a function that returns a `Term`, and one more entry in the list that a method builds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from models.encoder import Encoded, Head
from models.modality import PerModality

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Features of one step (not normalised), those of the whole batch on every rank.

    Rows of a modality are ordered by view: all images in their first view, then all of them in their second one. Row i
    shows training image `positions[modality][i]`, on the device, or `host_positions[modality][i]`, on the host.
    """

    encoded: PerModality[Encoded]
    positions: PerModality[Int64[Tensor, " rows"]]
    host_positions: PerModality[Int64[np.ndarray, " rows"]]
    num_views: PerModality[int]
    _shared: dict[Any, Any] = field(default_factory=dict)

    def rows(self, head: Head) -> PerModality[Float[Tensor, "rows width"]]:
        """Features of all views; the head must be among those of the term that reads it."""
        return self.encoded.map(lambda one: _present(getattr(one, head), head))

    def values(self, per_image: PerModality[Tensor]) -> PerModality[Tensor]:
        """From one value a training image, such as its label, to the value of each row's image; all on the device."""
        return per_image.map_with(lambda values, at: values[at], self.positions)

    def split(self, rows: PerModality[Tensor]) -> PerModality[tuple[Tensor, ...]]:
        """From one entry a row to `[modality][view]`; entry k of every view belongs to the k-th image."""
        return rows.map_with(lambda own, views: own.split(len(own) // views), self.num_views)

    def first(self, rows: PerModality[Tensor]) -> PerModality[Tensor]:
        """The entries of first views."""
        return self.split(rows).map(lambda views: views[0])

    def all_rows(self, head: Head) -> Float[Tensor, "rows width"]:
        """Features of both modalities below each other, visible rows first; one tensor for all terms."""
        if head not in self._shared:
            self._shared[head] = torch.cat([*self.rows(head)])
        rows: Tensor = self._shared[head]
        return rows

    def views(self, head: Head) -> PerModality[tuple[Float[Tensor, "images width"], ...]]:
        """`all_rows` by `[modality][view]`."""
        lengths = self.positions.map_with(lambda at, views: views * [len(at) // views], self.num_views)
        parts = self.all_rows(head).split(lengths.visible + lengths.infrared)
        return PerModality(parts[: self.num_views.visible], parts[self.num_views.visible :])

    def once(self, make: Callable[["Batch"], T]) -> T:
        """`make(batch)`, computed at the first call: terms that share a quantity share its graph."""
        if make not in self._shared:
            self._shared[make] = make(self)
        made: T = self._shared[make]
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One loss of a step: `weight * loss(batch)`; a weight of 0 removes the term.

    `name` follows `train/loss/` in the record and is unique in an objective. `loss` reads the features of `heads` and
    returns a scalar on the device, without side effects and without waiting for a GPU.
    """

    name: str
    weight: float
    heads: frozenset[Head]
    loss: Callable[[Batch], Float[Tensor, ""]]


@runtime_checkable
class Updates(Protocol):
    """State of a method that changes between the steps, such as cluster memories."""

    def settle(self) -> None:
        """Complete `after_step`: called before the losses of each step, and after the last step."""
        ...

    def after_step(self, batch: Batch) -> None:
        """Called after the optimiser has changed the weights."""
        ...


class NoUpdates:
    """No state between the steps."""

    def settle(self) -> None:
        """No-op."""

    def after_step(self, batch: Batch) -> None:
        """No-op."""


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """The sum of weighted terms is minimised, in the order of the list; `updates` follow each step."""

    terms: tuple[Term, ...]
    updates: Updates = field(default_factory=NoUpdates)

    def __post_init__(self) -> None:
        """Refuse two terms of one name: only one of them would be recorded and minimised."""
        names = [*(term.name for term in self.terms), "total"]
        assert len(set(names)) == len(names), f"terms need different names, got {names}"

    @property
    def active(self) -> tuple[Term, ...]:
        """The terms with a weight above 0."""
        return tuple(term for term in self.terms if term.weight > 0)

    @property
    def heads(self) -> frozenset[Head]:
        """The features that the active terms read."""
        return frozenset[Head]().union(*(term.heads for term in self.active))

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The weighted losses of a step by name, and their sum as `total`."""
        losses = {term.name: term.weight * term.loss(batch) for term in self.active}
        return losses | {"total": torch.stack(list(losses.values())).sum()}


def _present(features: Tensor | None, head: Head) -> Tensor:
    assert features is not None, f"no active term lists {head} among its heads"
    return features
