"""Who answers: the one thing that the loop knows about a captioner, and the one that needs no model."""

from typing import Final, Protocol

from PIL import Image, ImageStat

STUB: Final = "stub"
"""The name by which the captioner without a model is asked for."""
PATH_ENTRY: Final = "vireid path"
"""The entry of `image.info` that says where an image lies, relative to the data root."""


class Captioner(Protocol):
    """Describes images.

    Asking again gives the same answer. An answer may be empty: it is then no caption.
    """

    def describe(self, images: list[Image.Image]) -> list[str]:
        """One text an image, in the order of the images.

        Raises:
            MemoryError: They are too many at once for the device's memory; fewer may not be.
        """
        ...


class StubCaptioner:
    """Says where an image lies and what its mean colour is: for trying a chain out, not for training.

    Args:
        instruction: What is asked; repeated in every answer, so that one can see what was asked of whom.
    """

    def __init__(self, instruction: str) -> None:
        self._instruction = instruction

    def describe(self, images: list[Image.Image]) -> list[str]:
        """See `Captioner`."""
        return [self._answer(image) for image in images]

    def _answer(self, image: Image.Image) -> str:
        red, green, blue = (round(value) for value in ImageStat.Stat(image).mean[:3])
        return f"{self._instruction} {image.info.get(PATH_ENTRY, 'an image')}, mean colour {red} {green} {blue}".strip()
