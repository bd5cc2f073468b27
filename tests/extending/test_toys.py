"""A new method, loss, memory update and matching are new files only: none of the sources knows the toys."""

import json
import math

import numpy as np
import pytest
import torch

from models.encoder import Encoded
from models.modality import PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.methods import train
from pipeline.methods.cclnet.method import CCLNET
from pipeline.runs.open import open_run, run_path
from pipeline.training.objective import Batch
from tests.extending import toy_method, toy_variant
from tests.extending.toy_method import TOY, ToyConfig
from tests.extending.toy_variant import VARIANT, add_images, match_greedily, partner_contrast


def rounds_of(config) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_path(config) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def toy_config(smoke_config: CclnetConfig) -> ToyConfig:
    shared = {name: getattr(smoke_config, name) for name in ("data", "images", "model", "evaluation", "execution")}
    return ToyConfig(**shared, stages={"head_rounds": 1, "joint_rounds": 2})


def test_a_new_method_trains_its_stages_and_is_measured(toy_config: ToyConfig) -> None:
    with open_run(toy_config, TOY) as run:
        start = {name: weights.clone() for name, weights in run.state.encoder.named_parameters()}
    seen, real = [], toy_method.train

    def watched(run):
        losses = real(run)
        seen.append(all(torch.equal(start[name], weights) for name, weights in run.state.encoder.named_parameters()))
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_method, "train", watched)
        report = train(toy_config, TOY)
    rows = rounds_of(toy_config)
    assert [row["stage"] for row in rows] == ["head", "joint", "joint"]
    assert ["train/loss/triplet" in row for row in rows] == [False, True, True]
    assert seen == [True, False, False]
    assert rows[-1]["test/" + report.searches[0].name + "/r1"] == report.searches[0].mean.r1


def test_a_new_method_goes_on_after_its_last_finished_round(toy_config: ToyConfig) -> None:
    whole = toy_config.model_copy(update={"name": "whole"})
    train(whole, TOY)
    with open_run(toy_config, TOY) as run:
        next(run.rounds_left())
        toy_method.log_round(run, toy_method.train(run), toy_method.evaluate(run))
    train(toy_config, TOY)
    assert rounds_of(toy_config) == rounds_of(whole)


def test_a_variant_trains_with_its_matching_its_loss_and_its_update(smoke_config: CclnetConfig) -> None:
    config = smoke_config.model_copy(
        update={
            "stages": smoke_config.stages.model_copy(update={"prepare_rounds": 1, "clip_rounds": 1}),
            "swap": smoke_config.swap.model_copy(update={"start": 1}),
        }
    )
    greedy, added = [], []

    def count_greedy(similarity):
        greedy.append(similarity.shape)
        return match_greedily(similarity)

    def count_added(rows, visitors):
        added.append(len(rows))
        return add_images(rows, visitors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_variant, "match_greedily", count_greedy)
        patch.setattr(toy_variant, "add_images", count_added)
        assert train(config.model_copy(update={"name": "variant"}), VARIANT) is not None
    train(config, CCLNET)
    varied, plain = rounds_of(config.model_copy(update={"name": "variant"})), rounds_of(config)
    assert [row["train/loss/partner"] > 0 for row in varied] == [True, True]
    assert "train/loss/partner" not in plain[0]
    # Once a round to match the clusters, and again whenever prototypes have moved: swapping uses the same function.
    assert len(greedy) > len(varied)
    assert len(added) >= len(greedy) - len(varied)
    assert varied[0]["train/loss/visible_prototype"] != plain[0]["train/loss/visible_prototype"]
    assert varied[0]["labels/visible/clusters"] == plain[0]["labels/visible/clusters"]


def test_greedy_matching_takes_the_most_similar_pair_first() -> None:
    # 0.9 is the largest, so row 0 takes column 0; row 1 is left with column 1. The best total would be 0.8 + 0.7.
    rows, columns = match_greedily(np.array([[0.9, 0.8], [0.7, 0.1]], dtype=np.float32))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 1])
    assert [one.tolist() for one in match_greedily(np.empty((0, 3), dtype=np.float32))] == [[], []]


def test_images_are_added_to_their_prototypes() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # The first cluster has two images, the second one: (1, 0) + (0, 1) + (2, 0) = (3, 1), and (0, 1) + (0, 1).
    found = add_images(rows, [torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0]])])
    assert found.numpy() == pytest.approx(np.array([[3 / math.sqrt(10), 1 / math.sqrt(10)], [0, 1]]))
    assert rows.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_images_without_a_partner_are_left_out_of_the_further_loss() -> None:
    class Found:
        labels = PerModality(np.array([0, 1, -1]), np.array([0]))
        prototypes = PerModality(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[:1])
        matching = type("Pairs", (), {"visible": np.array([1]), "infrared": np.array([0])})

    term = partner_contrast(Found, torch.device("cpu"))

    def encoded(*rows):
        return Encoded(torch.tensor(rows), None, None)

    positions = PerModality(np.arange(3), np.arange(1))
    batch = Batch(
        PerModality(encoded([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]), encoded([0.0, 1.0])),
        positions.map(torch.from_numpy),
        positions,
        PerModality(1, 1),
    )
    # Visible images meet one infrared prototype: loss 0. The infrared image is at its partner, cosine 1 against 0:
    # log(1 + exp(-1 / 0.05)).
    assert term.loss(batch).item() == pytest.approx(math.log1p(math.exp(-20.0)), abs=1e-7)
