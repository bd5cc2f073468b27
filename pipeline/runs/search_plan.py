"""Which searches a run is measured by: those of its data set's protocol, as far as the configuration asks for them."""

from pipeline.config.experiment import AnyConfig
from pipeline.data.dataset import Dataset
from pipeline.data.datasets.sysu.lists import LIST_FOLDER, PERMUTATION_FILE, read_permutations
from pipeline.evaluation.protocol import DrawName, RetrievalTrial, sightings_of
from pipeline.evaluation.searches import (
    SEARCHES,
    GalleryDraws,
    GalleryRules,
    plan_search,
    possible_directions,
)

Plans = list[list[RetrievalTrial]]


def plan_test(dataset: Dataset, config: AnyConfig, *, final: bool) -> Plans:
    """The trials of every test search, the headline first.

    Args:
        dataset: With test images.
        config: Which searches, draws and shots.
        final: Whether the draw `official` is added where its file is present, as at the end of a run.

    Raises:
        ConfigError: A search does not exist.
        DataError: The test images do not allow a search.
    """
    assert dataset.test is not None, "nothing to search for"
    evaluation, name = config.evaluation, config.data.name
    sightings = sightings_of(dataset.test)
    searches = evaluation.searches or SEARCHES[name]
    if name == "manifest" and not evaluation.searches:
        possible = possible_directions(sightings)
        searches = tuple(search for search in searches if search.partition("/")[2] in possible) or searches
    draws = _draws(dataset, config, final)
    return [
        plan
        for search in searches
        for plan in plan_search(
            search,
            sightings,
            draws=draws,
            rules=_rules(config),
            trial=dataset.trial,
            site=dataset.name if name == "manifest" else None,
        )
    ]


def plan_validation(dataset: Dataset, config: AnyConfig) -> Plans:
    """The trials on held-out images, the one that `selection = "val"` goes by first."""
    assert dataset.validation is not None, "nothing is held out"
    sightings = sightings_of(dataset.validation)
    draws = GalleryDraws(trials=config.evaluation.trials)
    if config.data.name == "sysu":
        return plan_search("sysu/val", sightings, draws=draws)
    return [
        plan
        for direction in possible_directions(sightings)
        for plan in plan_search(
            f"manifest/{direction}", sightings, draws=draws, rules=_rules(config), site=f"{dataset.name}/val"
        )
    ]


def _rules(config: AnyConfig) -> GalleryRules:
    rules = config.evaluation.rules
    return GalleryRules(exclude=rules.exclude, gallery=rules.gallery, rank_by=rules.rank_by)


def _draws(dataset: Dataset, config: AnyConfig, final: bool) -> GalleryDraws:
    evaluation = config.evaluation
    draws: tuple[DrawName, ...] = evaluation.draws
    path = dataset.root / LIST_FOLDER / PERMUTATION_FILE
    if final and config.data.name == "sysu" and "official" not in draws and path.is_file() and evaluation.trials <= 10:
        draws = (*draws, "official")
    permutations = read_permutations(path) if "official" in draws else None
    return GalleryDraws(draws=draws, shots=evaluation.shots, trials=evaluation.trials, permutations=permutations)
