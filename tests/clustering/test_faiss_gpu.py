"""Faiss searches on a GPU where it can, and says once why it cannot."""

import logging

import faiss
import numpy as np
import pytest
import torch

from clustering import neighbours_torch
from clustering.neighbours import nearest_neighbours
from clustering.neighbours_torch import search_with_faiss
from tests.reference.feature_sets import copied_features, identity_features

CUDA = torch.device("cuda", 0)
FEATURES = identity_features(200, 5, 32)


@pytest.fixture
def gpu(monkeypatch):
    """A faiss that sees one GPU, whose search is the CPU's."""

    def knn_gpu(resources, queries, rows, k, *, metric, device):
        return faiss.knn(queries, rows, k, metric=metric)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: None, raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu)
    monkeypatch.setattr(neighbours_torch, "TRIAL", "")
    neighbours_torch._works.cache_clear()
    yield monkeypatch
    neighbours_torch._works.cache_clear()


@pytest.mark.parametrize("features", [FEATURES, copied_features(4, 40, 16)])
def test_lists_are_those_of_the_cpu(gpu, features):
    assert np.array_equal(search_with_faiss(features, 10, CUDA), nearest_neighbours(features, 10).ranks)


def test_without_a_gpu_that_faiss_sees_nothing_is_tried_or_said(monkeypatch, caplog):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert search_with_faiss(FEATURES, 10, CUDA) is None
    monkeypatch.delattr(faiss, "get_num_gpus")
    assert search_with_faiss(FEATURES, 10, CUDA) is None
    assert not caplog.records


def test_other_devices_and_lists_too_long_for_a_gpu_are_left_alone(gpu):
    assert search_with_faiss(FEATURES, 10, torch.device("cpu")) is None
    assert search_with_faiss(FEATURES, 10, torch.device("cuda", 1)) is None
    assert search_with_faiss(FEATURES, 2_048, CUDA) is None


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        # What a faiss without code for the card does: words on stderr, then an end that no `except` catches.
        (
            "import os; os.write(2, b'CUDA error 209 no kernel image is available'); os.kill(os.getpid(), 9)",
            "it is not built for this card",
        ),
        ("import sys; sys.exit(3)", "exit 3"),
    ],
)
def test_a_faiss_that_cannot_search_here_is_said_once_and_left_alone(gpu, caplog, trial, reason):
    gpu.setattr(neighbours_torch, "TRIAL", trial)
    with caplog.at_level(logging.WARNING):
        assert search_with_faiss(FEATURES, 10, CUDA) is None
        assert search_with_faiss(FEATURES, 10, CUDA) is None
    assert [record.message for record in caplog.records] == [
        f"faiss cannot search on cuda:0 ({reason}): torch does, with the same result"
    ]


def test_a_trial_that_does_not_end_is_given_up(gpu, caplog):
    gpu.setattr(neighbours_torch, "TRIAL", "while True: pass")
    gpu.setattr(neighbours_torch, "TRIAL_SECONDS", 0.2)
    assert search_with_faiss(FEATURES, 10, CUDA) is None
    assert "no answer in 0.2 s" in caplog.text


def test_a_search_that_fails_is_said_and_left_alone(gpu, caplog):
    def fails(*_, **__):
        raise RuntimeError("alloc fail\nat somewhere.cpp:1")

    gpu.setattr(faiss, "knn_gpu", fails)
    assert search_with_faiss(FEATURES, 10, CUDA) is None
    assert "faiss did not search on cuda:0 (alloc fail): torch does" in caplog.text


def test_similarities_coarser_than_float32_are_not_taken(gpu, caplog):
    def coarse(resources, queries, rows, k, *, metric, device):
        similarities, found = faiss.knn(queries, rows, k, metric=metric)
        return similarities.astype(np.float16).astype(np.float32), found

    gpu.setattr(faiss, "knn_gpu", coarse)
    assert search_with_faiss(FEATURES, 10, CUDA) is None
    assert "less precise than float32" in caplog.text
