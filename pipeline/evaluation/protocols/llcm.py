"""The search protocol of LLCM: all images of one modality against one image a person and camera of the other."""

from models.modality import PerModality
from pipeline.config import datasets
from pipeline.data.datasets.llcm import PUBLISHED_COUNTS
from pipeline.evaluation.protocol import RetrievalTrial, Samples, Search, query_modality
from pipeline.evaluation.protocols.spec import (
    FileRules,
    Plans,
    SearchOptions,
    SearchProtocol,
    count_rows,
    draw_agw,
    group_images,
    refuse_empty,
)


def plan_llcm(direction: str, samples: PerModality[Samples], options: SearchOptions) -> Plans:
    """The trials of LLCM, each with a sampled gallery; the query's person in the query's camera is excluded.

    Source: Zhang and Wang, CVPR 2023; ZYK100/LLCM. Differs: query and gallery are never exchanged; the released test
    script does so for visible queries, which changes what the numbers mean (threads 34 and 35 there).
    """
    query = query_modality(direction)
    kind = Search(f"llcm/{direction}/1-shot/agw", query, "agw", 1, "person", "same_person_same_camera")
    folders, rows = group_images(samples[query.other]), samples[query].query_rows
    plan = [RetrievalTrial(kind, trial, rows, draw_agw(folders, trial)) for trial in range(options.draws.trials)]
    refuse_empty(plan[0])
    return [plan]


LLCM = SearchProtocol(
    datasets.LLCM,
    plan_llcm,
    files=FileRules(
        ("llcm",), cameras=9, count_rows=lambda _name, samples: count_rows(PUBLISHED_COUNTS["test"], samples)
    ),
)
