"""The two modalities, and a value held once for each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Modality(StrEnum):
    """What a camera records; it selects the stem that encodes an image."""

    VISIBLE = "visible"
    INFRARED = "infrared"

    @property
    def other(self) -> "Modality":
        """The opposite modality."""
        return Modality.INFRARED if self is Modality.VISIBLE else Modality.VISIBLE


@dataclass(frozen=True, slots=True)
class PerModality(Generic[T_co]):
    """One value for visible images and one for infrared images.

    >>> PerModality(3, 4).map(lambda count: count * 10)
    PerModality(visible=30, infrared=40)
    >>> PerModality(3, 4).map_with(lambda count, name: f"{count} {name}", PerModality("v", "i")).infrared
    '4 i'
    >>> PerModality.build(lambda modality: modality.value).visible
    'visible'
    """

    visible: T_co
    infrared: T_co

    @staticmethod
    def build(make: Callable[[Modality], U]) -> "PerModality[U]":
        """Call `make` for visible, then for infrared."""
        return PerModality(make(Modality.VISIBLE), make(Modality.INFRARED))

    def map(self, function: Callable[[T_co], U]) -> "PerModality[U]":
        """Apply `function` to the visible value, then to the infrared one."""
        return PerModality(function(self.visible), function(self.infrared))

    def map_with(self, function: Callable[..., U], *others: "PerModality[Any]") -> "PerModality[U]":
        """Apply `function` to the values of one modality at a time: this one's first, then those of `others`."""
        return PerModality(
            function(self.visible, *(other.visible for other in others)),
            function(self.infrared, *(other.infrared for other in others)),
        )

    def __getitem__(self, modality: Modality) -> T_co:
        return self.visible if modality is Modality.VISIBLE else self.infrared

    def __iter__(self) -> Iterator[T_co]:
        return iter((self.visible, self.infrared))

    def items(self) -> tuple[tuple[Modality, T_co], tuple[Modality, T_co]]:
        """Modality and value, visible first."""
        return (Modality.VISIBLE, self.visible), (Modality.INFRARED, self.infrared)
