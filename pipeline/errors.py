"""Errors that a user can act on. Lower packages raise `ValueError`; the command line catches this family once."""


class VireidError(Exception):
    """What happened, with numbers, and what to change.

    Args:
        message: One sentence: what is wrong, with the figures and the path.
        hint: What the user can do about it.

    Attributes:
        transient: Whether the same command may succeed later although nobody changes anything; deployments retry it.
    """

    transient = False

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["VireidError"], tuple[str, str]]:
        return type(self), (self.message, self.hint)


class DataError(VireidError):
    """The data set is not what it should be: files missing, unreadable, contradictory."""


class ConfigError(VireidError):
    """A setting does not exist, is out of range, or contradicts another."""


class DegenerateClustering(VireidError):
    """The pseudo-labels cannot train anything: no clusters, or one that holds everything."""


class CheckpointError(VireidError):
    """A run folder or checkpoint cannot be used: busy, cut short, or made with other settings."""


class WeightsError(VireidError):
    """The weights cannot be loaded: missing, of another architecture, or not reachable offline."""


class TrainingError(VireidError):
    """Training cannot go on: the loss is not finite, or the device ran out of memory."""


class RankError(VireidError):
    """A rank was killed, or ended with an error that is not a `VireidError`; the last finished round is kept."""

    transient = True


class TrackingError(VireidError):
    """MLflow does not answer, or refuses. What the run itself has saved is not affected."""

    transient = True
