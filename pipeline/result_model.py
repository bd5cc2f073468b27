"""A run's result as models that other programs load: the pixels of images in, the vectors they are searched by out."""

import logging
import shutil
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from models.descriptor import Descriptor
from models.encoder import Head
from models.modality import Modality
from pipeline.any_config import AnyConfig
from pipeline.data.augmentation import Normalisation, preprocess
from pipeline.durable_files import TEMPORARY
from pipeline.experiment import Run
from pipeline.mlflow_models import ModelExportError, save_model
from pipeline.tracking_note import read_note

logger = logging.getLogger(__name__)


class PixelDescriptor(nn.Module):
    """A descriptor together with the normalisation that its images need, so that nobody can give it another one.

    Args:
        descriptor: From normalised images to vectors.
        normalisation: Whose mean and standard deviation the pixels get.
    """

    def __init__(self, descriptor: Descriptor, normalisation: Normalisation) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.normalisation: Normalisation = normalisation

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch dim"]:
        """The vectors of decoded images, red, green, blue, of the encoder's height and width."""
        vectors: Tensor = self.descriptor(preprocess(pixels, self.normalisation))
        return vectors


def registered_name(config: AnyConfig, modality: Modality) -> str:
    """Under which name MLflow's registry has an experiment's models of a modality: `vireid-cclnet-sysu-visible`."""
    return f"vireid-{config.name}-{modality}"


def export_result(run: Run[Any, Any]) -> None:
    """Write the model of each modality into the run's folder, from where the tracker takes it, if that is wanted.

    Nothing is done where the models are registered already. A network that cannot be translated costs a warning, never
    the run.

    Cost: RN50 at 288 x 144 pixels: 28 s on a CPU core, and 312 MB, for both modalities together.
    """
    config, selected, folder = run.config, run.state.selected, run.record.folder
    note = read_note(folder.path)
    if not (config.execution.tracking and config.execution.register_model) or (note is not None and note.models):
        return
    if selected is None or config.evaluation.selection == "last":
        number, weights = run.state.completed, run.state.encoder.state_dict()
    else:
        number, weights = selected.round, selected.encoder
    # Built anew: on the CPU, in float32, and without what several processes or a compiler added.
    encoder = run.method.new_encoder(config, run.clip)
    encoder.load_state_dict(weights)
    heads = [Head(name) for name in config.evaluation.heads]
    example = _example(config.images.height, config.images.width)
    for modality in Modality:
        name = registered_name(config, modality)
        model = PixelDescriptor(
            Descriptor(encoder, modality, heads, config.evaluation.flip), config.images.normalisation
        )
        tags = {"vireid.model": name, "vireid.run": folder.path.name, "vireid.round": str(number)}
        path = folder.unregistered / str(modality)
        unfinished = path.with_name(path.name + TEMPORARY)
        for old in (path, unfinished):
            shutil.rmtree(old, ignore_errors=True)
        try:
            save_model(model.eval(), example, unfinished, tags)
        except ModelExportError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            logger.warning("the result is not registered in MLflow, %s cannot be exported: %s", name, error)
            return
        unfinished.rename(path)


def _example(height: int, width: int) -> UInt8[np.ndarray, "2 height width 3"]:
    """Two images of nobody: shades that run from the top to the bottom, and back."""
    shades = np.linspace(0, 255, height).astype(np.uint8)
    return np.stack([np.tile(some[:, None, None], (1, width, 3)) for some in (shades, shades[::-1])])
