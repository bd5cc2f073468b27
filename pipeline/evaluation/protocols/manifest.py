"""The search protocol of a user's own data, from a manifest, or from feature files under the name `pairs`."""

import numpy as np

from models.modality import PerModality
from pipeline.config import datasets
from pipeline.config.datasets import DIRECTIONS, DatasetOptions
from pipeline.evaluation.protocol import ExclusionRule, RetrievalTrial, Samples, Search, query_modality
from pipeline.evaluation.protocols.spec import (
    FileRules,
    Plans,
    SearchOptions,
    SearchProtocol,
    draw_agw,
    group_images,
    refuse_empty,
)


def plan_manifest(direction: str, samples: PerModality[Samples], options: SearchOptions) -> Plans:
    """The trials of a manifest: one with the full gallery, or several with sampled galleries."""
    return _plan("manifest" if options.site is None else f"manifest/{options.site}", direction, samples, options)


def _plan_pairs(direction: str, samples: PerModality[Samples], options: SearchOptions) -> Plans:
    return _plan("pairs", direction, samples, options)


def _plan(prefix: str, direction: str, samples: PerModality[Samples], options: SearchOptions) -> Plans:
    rules, query = options.rules, query_modality(direction)
    exclude = rules.exclude or _usual_exclusion(samples)
    rows, name = samples[query].query_rows, f"{prefix}/{direction}/{rules.gallery}"
    if rules.gallery == "full":
        kind = Search(name, query, None, None, rules.rank_by, exclude)
        plan = [RetrievalTrial(kind, 0, rows, samples[query.other].gallery_rows)]
    else:
        kind = Search(name, query, "agw", 1, rules.rank_by, exclude)
        folders = group_images(samples[query.other])
        plan = [RetrievalTrial(kind, trial, rows, draw_agw(folders, trial)) for trial in range(options.draws.trials)]
    refuse_empty(plan[0])
    return [plan]


def _usual_exclusion(samples: PerModality[Samples]) -> ExclusionRule:
    """Exclude the query's person in the query's camera if one of several cameras has both modalities, else nothing."""
    visible, infrared = samples.visible.cameras, samples.infrared.cameras
    shared = np.intersect1d(visible, infrared).size > 0 and np.union1d(visible, infrared).size > 1
    return "same_person_same_camera" if shared else "none"


MANIFEST = SearchProtocol(datasets.MANIFEST, plan_manifest, validation=DIRECTIONS)
PAIRS = SearchProtocol(
    DatasetOptions("pairs", tuple(f"pairs/{direction}" for direction in DIRECTIONS), frozenset({"evaluation.rules"})),
    _plan_pairs,
    files=FileRules(("pairs",)),
)
