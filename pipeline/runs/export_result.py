"""A run's result as models for other programs: from pixels of images to the vectors for searching."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from models.encoder import Descriptor, Head
from models.modality import Modality
from models.saved_encoder import save_encoder
from pipeline.config.experiment import AnyConfig, marks_of, record_of
from pipeline.data.image_files import search_reading
from pipeline.data.transforms.augmentation import Normalisation, preprocess
from pipeline.runs.run import Run
from pipeline.runtime.atomic_files import TEMPORARY
from pipeline.storage.origin import is_synthetic
from pipeline.tracking.replay import MODELS_FORM, read_note

logger = logging.getLogger(__name__)

_LOADER = "pipeline.inference.served_model"


class PixelDescriptor(nn.Module):
    """A descriptor together with the normalisation of its images."""

    def __init__(self, descriptor: Descriptor, normalisation: Normalisation) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.normalisation: Normalisation = normalisation

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch dim"]:
        """The vectors of decoded images, red, green, blue, of the encoder's height and width."""
        vectors: Tensor = self.descriptor(preprocess(pixels, self.normalisation))
        return vectors


def registered_name(config: AnyConfig, modality: Modality | None = None) -> str:
    """The name in MLflow's registry: `vireid-csdn-sysu-visible` of a modality's model, `vireid-csdn-sysu` of tables."""
    name = f"vireid-{config.name}"
    return name if modality is None else f"{name}-{modality}"


def export_result(run: Run[Any, Any]) -> None:
    """Write the models of both modalities and of tables into the run's folder, from where the tracker takes them.

    No-op if `execution.register_model` is off or they are registered already. A network that cannot be exported only
    causes a warning.

    Cost: RN50 at 288 x 144 pixels: 28 s on a CPU core, and 470 MB in total.
    """
    config, selected, folder = run.config, run.state.selected, run.record.folder
    note = read_note(folder.path)
    # With tracking off, a run that MLflow knows already leaves its models for `vireid runs sync`.
    tracked = config.execution.tracking if note is None else not (note.models and note.form == MODELS_FORM)
    if not (tracked and config.execution.register_model):
        return
    # MLflow takes seconds to import, and commands that use a finished run do without it.
    from pipeline.tracking.mlflow_models import READING, ModelExportError, save_model, save_table_model

    if selected is None or config.evaluation.selection == "last":
        number, weights = run.state.completed, run.state.encoder.state_dict()
    else:
        number, weights = selected.round, selected.encoder
    # Built anew: on the CPU, in float32, and without what several processes or a compiler added.
    encoder = run.method.new_encoder(config, run.clip)
    encoder.load_state_dict(weights)
    heads = [Head(name) for name in config.evaluation.heads]
    size = config.images.height, config.images.width
    reading = json.dumps(search_reading(config.data.orientation, config.data.deep_range).to_dict())
    synthetic = is_synthetic(folder.path)
    tags = {"vireid.run": folder.path.name, "vireid.round": str(number), READING: reading}
    tags |= dict.fromkeys(marks_of(record_of(config)), "true")
    tags |= {"vireid.data": "synthetic"} if synthetic else {}
    try:
        for modality in Modality:
            name = registered_name(config, modality)
            descriptor = Descriptor(encoder, modality, heads, config.evaluation.flip)
            model = PixelDescriptor(descriptor, config.images.normalisation).eval()
            with _placed(folder.unregistered / str(modality)) as path:
                save_model(model, _example(*size), path, tags | {"vireid.model": name})
        with _placed(folder.unregistered / "table") as path:
            settings = {"run": folder.path.name, "round": number, "config": record_of(config), "synthetic": synthetic}
            write = partial(save_encoder, encoder=encoder, architecture=run.clip.architecture, settings=settings)
            save_table_model(write, _LOADER, path, tags | {"vireid.model": registered_name(config)})
    except ModelExportError as error:
        shutil.rmtree(folder.unregistered, ignore_errors=True)
        logger.warning("the result is not registered in MLflow, it cannot be exported: %s", error)


@contextmanager
def _placed(path: Path) -> Iterator[Path]:
    unfinished = path.with_name(path.name + TEMPORARY)
    for old in (path, unfinished):
        shutil.rmtree(old, ignore_errors=True)
    yield unfinished
    unfinished.rename(path)


def _example(height: int, width: int) -> UInt8[np.ndarray, "2 height width 3"]:
    shades = np.linspace(0, 255, height).astype(np.uint8)
    return np.stack([np.tile(some[:, None, None], (1, width, 3)) for some in (shades, shades[::-1])])
