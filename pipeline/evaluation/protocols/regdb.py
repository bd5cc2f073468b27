"""The search protocol of RegDB: all images of one modality against all of the other; a model for each split."""

from models.modality import PerModality
from pipeline.config import datasets
from pipeline.data.datasets.regdb import PUBLISHED_COUNTS
from pipeline.evaluation.protocol import RetrievalTrial, Samples, Search, query_modality
from pipeline.evaluation.protocols.spec import FileRules, Plans, SearchOptions, SearchProtocol, count_rows, refuse_empty


def plan_regdb(direction: str, samples: PerModality[Samples], options: SearchOptions) -> Plans:
    """The one trial of a RegDB split: nothing is excluded, and a rank counts images.

    The published number is the mean over ten splits, each with its own model.

    Source: mangye16/Cross-Modal-Re-ID-baseline, test.py. Differs: there the two sides carry invented cameras so that
    its camera rule excludes nothing.
    """
    split = "one-split" if options.split is None else f"split-{options.split}"
    query = query_modality(direction)
    kind = Search(f"regdb/{split}/{direction}", query, None, None, "image", "none")
    number = int(options.split or 0)
    trial = RetrievalTrial(kind, number, samples[query].query_rows, samples[query.other].gallery_rows)
    refuse_empty(trial)
    return [[trial]]


REGDB = SearchProtocol(
    datasets.REGDB,
    plan_regdb,
    files=FileRules(("regdb",), count_rows=lambda _name, samples: count_rows(PUBLISHED_COUNTS["test"], samples)),
)
