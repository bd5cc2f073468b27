"""What a caption file says of itself, in the file beside it: which model was asked what, about which images."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from models.modality import PerModality
from pipeline.captioning.shards import Shard
from pipeline.data.captions.files import CAPTION_SCHEMA

IMAGE_SOURCE: Final = "original"
"""Images are described as they lie on disk: neither resized to the network's input nor augmented."""
DECIDING: Final = ("schema", "model_id", "revision", "prompt", "decoding", "image_source", "data_set")
"""What captions depend on: lines of one file agree in it."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where captions come from.

    Attributes:
        model_id: The name of the model.
        revision: Which version of it.
        prompts: What was asked about the images of each modality.
        max_new_tokens: The longest answer.
        dtype: The numbers that the model computes in.
        data_set: The data set's name.
        shard: Which part of the images; None for all.
        num_images: How many images the part has.
        all_images: `image_list` of the images of all parts.
        library_versions: Of the libraries that take part.
    """

    model_id: str
    revision: str
    prompts: PerModality[str]
    max_new_tokens: int
    dtype: str
    data_set: str
    shard: Shard | None
    num_images: int
    all_images: dict[str, Any]
    library_versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the present time."""
        return {
            "schema": CAPTION_SCHEMA,
            "model_id": self.model_id,
            "revision": self.revision,
            "prompt": {modality.value: prompt for modality, prompt in self.prompts.items()},
            "decoding": {"max_new_tokens": self.max_new_tokens, "do_sample": False, "dtype": self.dtype},
            "image_source": IMAGE_SOURCE,
            "data_set": self.data_set,
            "shard": None if self.shard is None else str(self.shard),
            "images": self.num_images,
            "all_images": self.all_images,
            "library_versions": self.library_versions,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def image_list(paths: Iterable[str]) -> dict[str, Any]:
    """How many images there are, and a digest of their paths, whatever their order.

    >>> image_list(["b", "a"]) == image_list(["a", "b"])
    True
    """
    ordered = sorted(paths)
    digest = hashlib.sha256("".join(f"{path}\n" for path in ordered).encode()).hexdigest()
    return {"count": len(ordered), "digest": f"sha256:{digest}"}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], names: Iterable[str] = DECIDING) -> list[str]:
    """One sentence for each of these names under which two descriptions disagree.

    >>> differences({"schema": "1"}, {"schema": "2"}, ["schema"])
    ['schema was "1" and is "2"']
    """
    return [
        f"{name} was {_shown(found.get(name))} and is {_shown(wanted.get(name))}"
        for name in names
        if found.get(name) != wanted.get(name)
    ]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
