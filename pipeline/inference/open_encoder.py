"""What users name a model by: a run's folder, a checkpoint, or an address of MLflow."""

from pathlib import Path

from pipeline.inference.run_encoder import TrainedEncoder, read_run_encoder


def open_encoder(name: str, device: str = "auto") -> TrainedEncoder:
    """Open the encoder that a name stands for.

    Args:
        name: A run's folder, a checkpoint in it, or an address of MLflow as for `read_registered_encoder`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        VireidError: See `read_run_encoder` and `read_registered_encoder`.
    """
    if name.startswith(("models:/", "runs:/")):
        from pipeline.inference.mlflow_encoder import read_registered_encoder  # MLflow takes seconds to import

        return read_registered_encoder(name, device)
    return read_run_encoder(Path(name), device)
