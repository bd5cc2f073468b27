"""The encoder of a run from the files of a registered model: safetensors and a description, no code."""

from pathlib import Path

from models.clip_files import WeightsLoadError
from models.saved_encoder import DESCRIPTION, load_encoder
from pipeline.config.presets import validate_config
from pipeline.data.image_files import search_reading
from pipeline.errors import ConfigError, WeightsError
from pipeline.inference.encoder import RunEncoder
from pipeline.runtime.device import PrecisionSetting, recorded_precision, resolve_device, resolve_precision

_AGAIN = (
    "repeat the training command of its run with this version: a finished run registers its result again; "
    "or name the run's folder"
)


def read_saved_encoder(
    folder: Path, name: str, device: str = "auto", precision: PrecisionSetting | None = None
) -> RunEncoder:
    """Read the files that `models.saved_encoder` wrote; `name` is for messages.

    Raises:
        WeightsError: The folder holds graphs only, as older versions wrote them, or is damaged.
        ConfigError: No such device, or bfloat16 on a CPU.
    """
    if not (folder / DESCRIPTION).is_file():
        raise registered_as_graphs(name)
    place = resolve_device(device)
    try:
        encoder, settings = load_encoder(folder)
        config = validate_config(settings.get("config") or {})
    except (WeightsLoadError, ConfigError) as error:
        raise WeightsError(f"{name} cannot be read: {error.message}", hint=_AGAIN) from error
    if encoder.image_size != (config.images.height, config.images.width):
        raise WeightsError(f"{name} is for images of another size than its settings", hint=_AGAIN)
    setting = config.execution.precision
    computed_in = recorded_precision(setting, place) if precision is None else resolve_precision(precision, place)
    number = settings.get("round")
    number = number if isinstance(number, int) else 0
    reading = search_reading(config.data.orientation, config.data.deep_range)
    synthetic = settings.get("synthetic") is True
    return RunEncoder(name, encoder.to(place), config, number, place, computed_in, reading, synthetic)


def registered_as_graphs(name: str) -> WeightsError:
    """The error of a model without an encoder as safetensors."""
    return WeightsError(
        f"{name} was registered by an older version as graphs, which can run code when they are loaded", hint=_AGAIN
    )
