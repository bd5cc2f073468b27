"""The worst queries of a search: in their order, with what they found, and where their person was."""

import numpy as np

from models.modality import Modality, PerModality
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.protocol import Samples
from pipeline.evaluation.searches import plan_search
from pipeline.evaluation.worst_queries import MOST, find_worst
from tests.pipeline.evaluation.test_retrieval_panel import Vectors


def samples(people: np.ndarray, cameras: list[int], name: str) -> Samples:
    paths = tuple(f"{name}/{row}" for row in range(len(people)))
    return Samples(people, np.array(cameras * (len(people) // len(cameras))), paths, None, None)


def test_the_queries_whose_person_is_ranked_last_come_first() -> None:
    people = np.repeat(np.arange(40), 2)
    seen = PerModality(samples(people, [1, 4], "visible"), samples(people, [3, 6], "infrared"))
    generator = np.random.default_rng(2)
    features = PerModality(*(Vectors(generator.normal(size=(80, 8))) for _ in range(2)))
    (plan,) = plan_search("sysu/all", seen)
    (result,) = evaluate_features(features, seen, [plan], keep_queries=True)
    worst = find_worst("sysu/all", result.queries[0], features, seen)
    ranks = result.queries[0].ranks.rank
    assert (worst.modality, worst.queries, len(worst.worst)) == (Modality.INFRARED, 80, MOST)
    assert [one.rank for one in worst.worst] == sorted(ranks.tolist(), reverse=True)[:MOST]
    for one in worst.worst:
        query = int(one.path.removeprefix("infrared/"))
        assert one.right == tuple(people[int(path.removeprefix("visible/"))] == people[query] for path in one.found)
        assert people[int(one.match.removeprefix("visible/"))] == people[query]
        if one.rank <= 10:
            assert one.found[one.rank - 1] == one.match, "the image at that rank"
