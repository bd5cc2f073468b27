"""An encoder of no network, for measurements of what surrounds one; and `vireid search` with it, as a program."""

import numpy as np
from jaxtyping import Float32, UInt8

from models.modality import Modality
from pipeline.data.image_files import FROM_ANYWHERE

HEIGHT, WIDTH = 288, 144


class Projection:
    """A fixed projection of the pixels at an eighth of their size; takes a few milliseconds."""

    name, digest = "projection", "projection"
    height, width = HEIGHT, WIDTH
    reading, synthetic = FROM_ANYWHERE, True

    def __init__(self, dim: int) -> None:
        cells = HEIGHT // 8 * (WIDTH // 8) * 3
        self._matrix = np.random.default_rng(3).standard_normal((cells, dim), dtype=np.float32)

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], _: Modality) -> Float32[np.ndarray, "n dim"]:
        """One vector an image; both modalities alike."""
        small = pixels[:, ::8, ::8].reshape(len(pixels), -1).astype(np.float32) - 127
        return small @ self._matrix


def command_line(dim: int) -> None:
    """The command line, with this encoder in the place of every run's; torch is imported as for a run."""
    from flows.cli.app import main
    from pipeline.inference import run_encoder

    run_encoder.open_encoder = lambda *_: Projection(dim)
    main()
