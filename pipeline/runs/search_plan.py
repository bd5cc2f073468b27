"""Which searches a run is measured by: those of its data set's protocol, as far as the configuration asks for them."""

from pipeline.config.experiment import AnyConfig
from pipeline.data.dataset import Dataset
from pipeline.evaluation import searches
from pipeline.evaluation.protocols import protocol_of
from pipeline.evaluation.protocols.spec import Plans


def plan_test(dataset: Dataset, config: AnyConfig, *, final: bool) -> Plans:
    """The trials of every test search, the headline first; see `pipeline.evaluation.searches.plan_test`."""
    return searches.plan_test(protocol_of(config.data.name), dataset, config.evaluation, final=final)


def plan_validation(dataset: Dataset, config: AnyConfig) -> Plans:
    """The trials on validation images, the one that `selection = "val"` goes by first."""
    return searches.plan_validation(protocol_of(config.data.name), dataset, config.evaluation)
