"""Prompts are learned again where the current clusters no longer agree with theirs."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from clustering.dbscan import OUTLIER
from models.modality import PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.methods.cclnet import stages
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.schedule import agreement_with_text, prompts_due
from pipeline.methods.cclnet.state import TextPrototypes
from tests.pipeline.methods.cclnet import small_run as small

REFRESH = ("prompts.refresh_every=none", "prompts.refresh_agreement=0.9")
LINE = "prompts are learned again in round 4: their clusters agree"


def clusters() -> Clusters:
    return small.cluster(small.small_run())


def described(labels: PerModality[np.ndarray]) -> PerModality[TextPrototypes]:
    """Prompts that were learned on these labels."""

    def text(own: np.ndarray) -> TextPrototypes:
        count = int(own.max()) + 1
        rows = torch.zeros(count, 2)
        return TextPrototypes(rows, own, rows[:, None], np.full(count, -1), np.zeros(count, np.float32))

    return labels.map(text)


def renamed(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == OUTLIER, OUTLIER, labels.max() - labels)


def halved(labels: np.ndarray) -> np.ndarray:
    """Clusters in pairs; every fifth image is an outlier besides."""
    return np.where((labels == OUTLIER) | (np.arange(len(labels)) % 5 == 0), OUTLIER, labels // 2)


def swapped(labels: np.ndarray) -> np.ndarray:
    """All clustered images are outliers, and the other way round."""
    return np.where(labels == OUTLIER, 0, OUTLIER)


def due(text: PerModality[TextPrototypes], *changes: str, number: int = 4) -> bool:
    run = small.small_run(*REFRESH, *changes).at(number)
    return prompts_due(run.config, run.round, clusters(), text)


@pytest.mark.parametrize("change", [np.copy, renamed])
def test_the_same_clusters_by_other_numbers_agree_fully_and_nothing_is_due(
    change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = described(clusters().labels.map(change))
    assert agreement_with_text(text, clusters()) == pytest.approx(1.0)
    with caplog.at_level(logging.INFO):
        assert not due(text)
    assert LINE not in caplog.text


def test_other_clusters_agree_by_their_mutual_information_and_a_line_says_that_prompts_follow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = clusters()
    text = described(now.labels.map(halved))
    expected = []
    for own in now.labels:
        kept = (own != OUTLIER) & (halved(own) != OUTLIER)
        expected.append(normalized_mutual_info_score(own[kept], halved(own)[kept]))
    found = agreement_with_text(text, now)
    assert found == pytest.approx(sum(expected) / 2) and 0 < found < 0.9
    with caplog.at_level(logging.INFO):
        assert due(text)
    assert f"{LINE} {found:.2f} with the current ones, less than 0.90" in caplog.text
    assert not due(text, f"prompts.refresh_agreement={found}")
    assert not due(text, "prompts.refresh_agreement=none")


def test_clusters_without_a_common_image_do_not_agree_and_prompts_follow() -> None:
    text = described(clusters().labels.map(swapped))
    assert agreement_with_text(text, clusters()) == 0.0
    assert due(text)


def test_one_modality_without_a_common_image_halves_the_agreement() -> None:
    labels = clusters().labels
    assert agreement_with_text(described(PerModality(labels.visible, swapped(labels.infrared))), clusters()) == 0.5


@pytest.mark.parametrize(("number", "expected"), [(1, False), (2, False), (3, True)])
def test_prompts_are_first_learned_in_the_first_round_of_stage_clip(number: int, expected: bool) -> None:
    text = described(clusters().labels)
    assert due(text, number=number) == expected
    weightless = load_config("smoke", ("prompts.text_weight=0",))
    assert isinstance(weightless, CclnetConfig)
    assert not prompts_due(weightless, small.small_run().at(number).round, clusters(), text)


@pytest.mark.parametrize("refreshed", [True, False])
def test_a_round_records_the_agreement_with_the_prompts_that_it_began_with(
    refreshed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Any = small.small_run(*REFRESH, "execution.figures=false").at(4)
    now, features = small.cluster(run), small.features()
    old, new = described(now.labels.map(halved)), described(now.labels)
    recorded: dict[str, Any] = {}
    monkeypatch.setattr(stages, "complete_round", lambda *_: None)
    monkeypatch.setattr(stages, "record_round", lambda _, numbers, *__, **___: recorded.update(numbers))
    run._evaluator = SimpleNamespace(diagnose=lambda *_: {})
    run.state.method.text = old if refreshed else None
    monkeypatch.setattr(stages, "draw_text_similarity", lambda *_, **__: None)
    stages.log_round.function(run, features, now, new, {}, None)
    expected = agreement_with_text(old if refreshed else new, now)
    assert recorded["labels/agreement_with_text"] == expected
    assert (expected < 0.9) == refreshed
    assert run.state.method.text is new
