"""Retrieval metrics of one trial, spelled out in Python loops.

Follows Ye et al., "Deep Learning for Person Re-identification" (TPAMI 2022), for average precision and the inverse
negative penalty, and the SYSU-MM01 authors' evaluation for the rank by person.
"""

import numpy as np


def rank_one_query(similarities, query_person, gallery_people, excluded, rank_by):
    """(rank, average precision, inverse negative penalty) of one query, or None without a match that it may see."""
    kept = [column for column in range(len(gallery_people)) if not excluded[column]]
    # Highest similarity first; `sorted` is stable, so that ties keep gallery order.
    ranked = [int(gallery_people[column]) for column in sorted(kept, key=lambda column: -similarities[column])]
    positions = [position for position, person in enumerate(ranked, start=1) if person == query_person]
    if not positions:
        return None
    before = ranked[: positions[0] - 1]
    rank = 1 + (len(set(before)) if rank_by == "person" else len(before))
    precisions = [found / position for found, position in enumerate(positions, start=1)]
    return rank, sum(precisions) / len(positions), len(positions) / positions[-1]


def rank_all_queries(similarity, query_people, gallery_people, excluded, rank_by):
    """The results of `rank_one_query`, in query order."""
    return [
        rank_one_query(np.asarray(row, dtype=np.float64), person, gallery_people, row_excluded, rank_by)
        for row, person, row_excluded in zip(similarity, query_people, excluded, strict=True)
    ]


def mean_over_valid_queries(results):
    """(CMC of 20 ranks, mAP, mINP) over the queries that have a match."""
    valid = [result for result in results if result is not None]
    cmc = [sum(rank <= k for rank, _, _ in valid) / len(valid) for k in range(1, 21)]
    return cmc, sum(ap for _, ap, _ in valid) / len(valid), sum(inp for _, _, inp in valid) / len(valid)


def best_of_all_queries(similarity, excluded, count):
    """The first `count` gallery positions of each query's list, filled up with -1."""
    lists = []
    for row, row_excluded in zip(similarity, excluded, strict=True):
        kept = [column for column in range(len(row)) if not row_excluded[column]]
        ranked = sorted(kept, key=lambda column: -row[column])[:count]
        lists.append(ranked + [-1] * (count - len(ranked)))
    return lists


def chance_of_the_first_rank(query_people, gallery_people, excluded):
    """How often a random order of the shown images begins with a match, over the queries that have one."""
    chances = []
    for person, row_excluded in zip(query_people, excluded, strict=True):
        shown = [other for other, absent in zip(gallery_people, row_excluded, strict=True) if not absent]
        if person in shown:
            chances.append(sum(other == person for other in shown) / len(shown))
    return sum(chances) / len(chances)
