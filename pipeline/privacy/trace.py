"""A trace of images: one place where their pixels, vectors or names are kept, and how it is removed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from pipeline.inference.milvus_address import MilvusAddress
from pipeline.runtime.folder_lock import lock_folder


class Order(IntEnum):
    """Traces are removed in this order, so that what selects images or runs is removed last: a kill loses nothing."""

    COPIES = 0
    LABELS = 1
    INDEX = 2
    SELECTING_INDEX = 3


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file that the writers of a place hold; `what` names the place in messages."""

    folder: Path
    name: str
    what: str

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it; CheckpointError if another process does."""
        descriptor = lock_folder(self.folder, self.name, self.what)
        try:
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Trace:
    """Images in one place.

    Attributes:
        place: A file, a folder or a collection.
        what: What is kept there.
        images: How many of the images to forget; None if the place does not record which images it holds.
        deed: What `forget` does.
        forget: Removes them; may be repeated.
        lock: Held meanwhile.
        certain: Whether the images are there; if not, they may be.
    """

    place: Path | MilvusAddress
    what: str
    images: int | None
    deed: str
    forget: Callable[[], None] = field(repr=False)
    lock: Lock | None = None
    order: Order = Order.COPIES
    certain: bool = True

    def to_dict(self) -> dict[str, Any]:
        """What is found, as plain JSON types."""
        return {"place": str(self.place), "what": self.what, "images": self.images, "deed": self.deed}


@dataclass(slots=True)
class Findings:
    """What a search has found, in the order of removal, and what it could not decide.

    Attributes:
        unread: Sentences about places that cannot be read: they may hold the images.
        unclear: Sentences about places that do not record whose images they hold, and are kept.
        trained: Sentences about weights.
        remains: Sentences about copies that a removal does not reach.
        absent: Galleries that do not exist.
    """

    traces: list[Trace] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    absent: list[MilvusAddress] = field(default_factory=list)
