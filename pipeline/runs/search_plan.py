"""The searches that measure a run: those of its data set's protocol that the configuration selects."""

from pipeline.config.experiment import AnyConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.evaluation import searches
from pipeline.evaluation.protocols import protocol_of
from pipeline.evaluation.protocols.spec import Plans


def plan_test(dataset: Dataset, config: AnyConfig, *, final: bool) -> Plans:
    """The trials of every test search, the headline first; see `pipeline.evaluation.searches.plan_test`."""
    return searches.plan_test(protocol_of(config.data.name), dataset, config.evaluation, final=final)


def plan_validation(dataset: Dataset, config: AnyConfig) -> Plans:
    """The trials on validation images; the first one decides `selection = "val"`."""
    return searches.plan_validation(protocol_of(config.data.name), dataset, config.evaluation)


def refuse_unmeasurable(dataset: Dataset, config: AnyConfig) -> None:
    """Refuse, before training, a run that cannot be measured with its settings.

    Raises:
        ConfigError: `evaluation.selection` needs images that the data set does not have, or a search cannot be planned.
        DataError: The images do not allow a search.
    """
    needed = {"val": ("validation", dataset.validation), "test_best": ("test", dataset.test)}
    part, tables = needed.get(config.evaluation.selection, ("", dataset.training))
    if tables is None:
        raise ConfigError(
            f"evaluation.selection = '{config.evaluation.selection}' needs {part} images, and {dataset.root} has none",
            hint="add rows of that split to the manifest, or take the last round: evaluation.selection=last",
        )
    if dataset.test is not None:
        plan_test(dataset, config, final=True)
    if dataset.validation is not None:
        plan_validation(dataset, config)
