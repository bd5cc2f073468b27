"""Errors that a user can act on, caught once by the command line. `clustering` and `models` raise `ValueError`."""

from pipeline.secrets import masked


class VireidError(Exception):
    """An error with a message (what is wrong, with numbers and paths) and a hint (what the user can change).

    Passwords of addresses are masked in both.
    """

    transient = False
    """Whether the same command may succeed later without a change; deployments retry these errors only."""

    def __init__(self, message: str, hint: str) -> None:
        self.message = masked(message)
        self.hint = masked(hint)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type["VireidError"], tuple[str, str]]:
        return type(self), (self.message, self.hint)


class DataError(VireidError):
    """Files of a data set are missing, unreadable or contradictory."""


class ConfigError(VireidError):
    """A setting does not exist, is out of range, or contradicts another."""


class DegenerateClustering(VireidError):
    """Clustering found no clusters, or a single one, so the pseudo-labels are useless for training."""


class CheckpointError(VireidError):
    """A run folder or checkpoint cannot be used: locked, truncated, or made with other settings."""


class WeightsError(VireidError):
    """The weights cannot be loaded: missing, of another architecture, or not available offline."""


class TrainingError(VireidError):
    """Training cannot continue: the loss is not finite, or the device is out of memory."""


class RankError(VireidError):
    """A rank was killed, or failed with an error that is not a `VireidError`; the last finished round is kept."""

    transient = True


class TrackingError(VireidError):
    """MLflow does not answer, or refuses a request. Files of the run are not affected."""

    transient = True
