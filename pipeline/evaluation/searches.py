"""The trials of a search by its name, and those that a run is measured by: published queries, galleries, exclusion."""

from collections.abc import Sequence
from typing import Any

from models.modality import Modality, PerModality
from pipeline.config.datasets import Split
from pipeline.config.shared import EvaluationConfig
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError
from pipeline.evaluation.protocol import Direction, Samples, direction_from
from pipeline.evaluation.protocols import PROTOCOLS, search_protocol
from pipeline.evaluation.protocols.spec import GalleryDraws, GalleryRules, Plans, SearchOptions, SearchProtocol

DIRECTIONS: tuple[Direction, ...] = ("infrared_to_visible", "visible_to_infrared")


def plan_search(
    search: str,
    samples: PerModality[Samples],
    *,
    draws: GalleryDraws | None = None,
    rules: GalleryRules | None = None,
    split: Split | None = None,
    site: str | None = None,
    protocols: Sequence[SearchProtocol] = PROTOCOLS,
) -> Plans:
    """The trials of a search, by its name: one list for each draw and number of shots.

    Args:
        search: A search of `SearchProtocol.options` or `files`: `sysu/all`, `regdb/infrared_to_visible`.
        samples: All rows of both test tables.
        draws: How galleries are drawn, where the protocol draws them.
        rules: What `manifest` and `pairs` leave open.
        split: Which published split this is; None where it is not known.
        site: The manifest's name.
        protocols: The protocols to choose from.

    Raises:
        ConfigError: There is no such search, or fewer than one trial or shot is asked for.
        DataError: There is no query or no gallery image, or the orders of the draw `official` do not fit.
    """
    draws = draws or GalleryDraws()
    if draws.trials < 1 or min(draws.shots, default=1) < 1:
        raise ConfigError(
            f"{draws.trials} trials with {', '.join(map(str, draws.shots))} shots asked for, at least 1 is needed",
            hint="published numbers use 10 trials, and 1 shot or 10",
        )
    options = SearchOptions(draws, rules or GalleryRules(), split, site)
    return search_protocol(search, protocols).plan(search.partition("/")[2], samples, options)


def plan_test(protocol: SearchProtocol, dataset: Dataset, evaluation: EvaluationConfig, *, final: bool) -> Plans:
    """The trials of every test search, the headline first.

    Args:
        protocol: Of the data set.
        dataset: With test images.
        evaluation: Which searches, draws and shots.
        final: Whether a run ends, which may add draws.

    Raises:
        ConfigError: A search does not exist.
        DataError: The test images do not allow a search.
    """
    assert dataset.test is not None, "nothing to search for"
    samples = samples_of(dataset.test)
    searches = evaluation.searches or possible_searches(protocol.options.searches, samples)
    draws = protocol.prepare_draws(dataset.root, _draws(evaluation), final)
    return _plans(protocol, searches, samples, evaluation, draws, dataset, dataset.name)


def plan_validation(protocol: SearchProtocol, dataset: Dataset, evaluation: EvaluationConfig) -> Plans:
    """The trials on validation images, the one that `selection = "val"` goes by first."""
    assert dataset.validation is not None, "there are no validation images"
    samples = samples_of(dataset.validation)
    searches = possible_searches([f"{protocol.name}/{part}" for part in protocol.validation], samples)
    draws = GalleryDraws(trials=evaluation.trials)
    return _plans(protocol, searches, samples, evaluation, draws, dataset, f"{dataset.name}/val")


def possible_searches(searches: Sequence[str], samples: PerModality[Samples]) -> Sequence[str]:
    """Those of the searches that are no direction, or one with queries and a gallery; all where there is none."""
    possible = possible_directions(samples)
    parts = {search: search.partition("/")[2] for search in searches}
    return [search for search, part in parts.items() if part not in DIRECTIONS or part in possible] or searches


def possible_directions(samples: PerModality[Samples]) -> tuple[Direction, ...]:
    """The directions that have both queries and gallery images."""
    return tuple(
        direction_from(query)
        for query in (Modality.INFRARED, Modality.VISIBLE)
        if len(samples[query].query_rows) and len(samples[query.other].gallery_rows)
    )


def _plans(
    protocol: SearchProtocol,
    searches: Sequence[str],
    samples: PerModality[Samples],
    evaluation: EvaluationConfig,
    draws: GalleryDraws,
    dataset: Dataset,
    site: str,
) -> Plans:
    rules = GalleryRules(**evaluation.rules.model_dump())
    return [
        plan
        for search in searches
        for plan in plan_search(
            search, samples, draws=draws, rules=rules, split=dataset.split, site=site, protocols=(protocol,)
        )
    ]


def _draws(evaluation: EvaluationConfig) -> GalleryDraws:
    return GalleryDraws(draws=evaluation.draws, shots=evaluation.shots, trials=evaluation.trials)


def samples_of(tables: SplitTables) -> PerModality[Samples]:
    """Who was seen by which camera in the images of a split."""
    roles: PerModality[Any] = tables.roles or PerModality(None, None)
    return tables.images.map_with(
        lambda images, people, role: Samples(
            people.ids, images.cameras, images.paths, role and role.query, role and role.gallery
        ),
        tables.people,
        roles,
    )
