"""The trials of a search by its name, and those of a run's evaluation."""

from collections.abc import Sequence
from typing import Any

from models.modality import Modality, PerModality
from pipeline.config.datasets import DIRECTIONS, Split
from pipeline.config.shared import EvaluationConfig
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError
from pipeline.evaluation.protocol import Direction, Samples, direction_from
from pipeline.evaluation.protocols import PROTOCOLS, search_protocol
from pipeline.evaluation.protocols.spec import GalleryDraws, GalleryRules, Plans, SearchOptions, SearchProtocol


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
    """The trials of a search, by its name (`sysu/all`, `regdb/infrared_to_visible`): one list per draw and shots.

    `samples` are all rows of both test tables, `site` is the manifest's name; for the other arguments, see
    `SearchOptions`.

    Raises:
        ConfigError: There is no such search, or fewer than one trial or shot is set.
        DataError: There is no query or no gallery image, or the orders of the draw `official` do not fit.
    """
    draws = draws or GalleryDraws()
    if draws.trials < 1 or min(draws.shots, default=1) < 1:
        raise ConfigError(
            f"{draws.trials} trials with {', '.join(map(str, draws.shots))} shots: at least 1 of each is needed",
            hint="published numbers use 10 trials, and 1 shot or 10",
        )
    options = SearchOptions(draws, rules or GalleryRules(), split, site)
    return search_protocol(search, protocols).plan(search.partition("/")[2], samples, options)


def plan_test(protocol: SearchProtocol, dataset: Dataset, evaluation: EvaluationConfig, *, final: bool) -> Plans:
    """The trials of every test search, the headline first; the last evaluation of a run (`final`) may add draws.

    Raises:
        ConfigError: A search does not exist.
        DataError: The test images do not allow a search.
    """
    assert dataset.test is not None, "there are no test images"
    samples = samples_of(dataset.test)
    searches = evaluation.searches or possible_searches(protocol.options.searches, samples)
    draws = GalleryDraws(draws=evaluation.draws, shots=evaluation.shots, trials=evaluation.trials)
    draws = protocol.prepare_draws(dataset.root, draws, final)
    return _plans(protocol, searches, samples, evaluation, draws, dataset, dataset.name)


def plan_validation(protocol: SearchProtocol, dataset: Dataset, evaluation: EvaluationConfig) -> Plans:
    """The trials on validation images; `selection = "val"` compares rounds by the first."""
    assert dataset.validation is not None, "there are no validation images"
    samples = samples_of(dataset.validation)
    searches = possible_searches([f"{protocol.name}/{part}" for part in protocol.validation], samples)
    draws = GalleryDraws(trials=evaluation.trials)
    return _plans(protocol, searches, samples, evaluation, draws, dataset, f"{dataset.name}/val")


def possible_searches(searches: Sequence[str], samples: PerModality[Samples]) -> Sequence[str]:
    """Remove directions without queries or gallery; all searches if none remains."""
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


def samples_of(tables: SplitTables) -> PerModality[Samples]:
    """Identity, camera and role of each image of a split."""
    roles: PerModality[Any] = tables.roles or PerModality(None, None)
    return tables.images.map_with(
        lambda images, people, role: Samples(
            people.ids, images.cameras, images.paths, role and role.query, role and role.gallery
        ),
        tables.people,
        roles,
    )
