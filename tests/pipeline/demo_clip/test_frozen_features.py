"""Is there something to learn with the shipped weights: neither nothing, nor everything already there?"""

import numpy as np
import pytest

from models.clip import load_clip
from models.encoder import DualStemEncoder
from models.modality import PerModality
from pipeline.data.synthetic.knobs import PRESETS
from pipeline.demo_clip.evaluation import GATE, FrozenFigures, generate_demo, measure_frozen, pairs_right

# 40 people, about 3.6 visible cameras each: some 145 gallery images with 3.4 right ones. In a random order the mean
# average precision is a little above 3.4 / 145 = .023, and simulation gives .045.
CHANCE = 0.045


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, FrozenFigures]]:
    encoder = DualStemEncoder.from_clip(load_clip("demo", "demo"), image_height=96, image_width=48)
    drawn = {difficulty: generate_demo(knobs, seed=1, per_camera=2) for difficulty, knobs in PRESETS.items()}
    return {
        difficulty: {figures.feature: figures for figures in measure_frozen(encoder, images, 96, 48)}
        for difficulty, images in drawn.items()
    }


@pytest.mark.slow
def test_difficulties_are_ordered_by_what_frozen_features_find(measured):
    for feature in ("raw pooled", "centred pooled", "centred projection"):
        precision = [measured[difficulty][feature].map for difficulty in ("easy", "moderate", "default", "hard")]
        assert precision == sorted(precision, reverse=True)
        assert len(set(precision)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("difficulty", ["moderate", "default"])
def test_frozen_features_know_something_and_not_everything(measured, difficulty):
    for figures in measured[difficulty].values():
        assert 2 * CHANCE < figures.map < 0.5


@pytest.mark.slow
def test_the_demonstration_passes_the_gate(measured):
    assert measured["moderate"]["raw pooled"].pairs >= GATE


def test_people_whom_only_one_modality_saw_are_not_paired():
    rows, names = np.eye(4, dtype=np.float32), np.arange(4)

    # Persons 0 and 1 are in both; persons 2 and 3 would be paired wrongly and do not count.
    right = pairs_right(PerModality(rows, rows[[0, 1]]), PerModality(names, names[:2]))

    assert right == 1.0


def test_exchanged_prototypes_are_wrong_pairs():
    rows, names = np.eye(3, dtype=np.float32), np.arange(3)

    # Persons 1 and 2 have each other's features in infrared: one pair of three is right.
    assert pairs_right(PerModality(rows, rows[[0, 2, 1]]), PerModality(names, names)) == pytest.approx(1 / 3)
