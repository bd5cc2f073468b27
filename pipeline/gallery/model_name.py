"""What users name a model by: a run's folder, a checkpoint, or an address of MLflow."""

from pathlib import Path

from pipeline.gallery.trained_encoder import TrainedEncoder, read_run_encoder


def open_encoder(name: str, device: str = "auto") -> TrainedEncoder:
    """Open the encoder that a name stands for.

    Args:
        name: A run's folder or a checkpoint in it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        VireidError: See `read_run_encoder`.
    """
    return read_run_encoder(Path(name), device)
