"""A torch device finds the lists, weights and pairs that the CPU finds, to the last bit."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering import arithmetic_torch, joined_torch, neighbours_torch
from clustering.arithmetic_torch import full_precision, in_device_blocks
from clustering.jaccard import neighbourhood_weights
from clustering.jaccard_torch import weights_on_device
from clustering.joined_torch import join_on_device, torch_device
from clustering.labelling import join_on_cpu, label_images
from clustering.neighbours import nearest_neighbours
from clustering.neighbours_torch import ranks_on_device
from tests.reference.feature_sets import (
    blob_features,
    copied_features,
    gaussian_features,
    identity_features,
    unit,
    untrained_features,
)

CPU = torch.device("cpu")
CUDA = pytest.param(
    torch.device("cuda"),
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")],
)
SETS = {
    "people": identity_features(600, 14, 130),
    "no structure": gaussian_features(300, 16),
    "untrained network": untrained_features(300, 32),
    "one blob": blob_features(300, 32),
    "more copies than k1": copied_features(6, 50, 16),
    "all images equal": copied_features(1, 60, 16),
    "only right angles": np.eye(60, dtype=np.float32),
    "fewer images than k1": identity_features(20, 2, 32),
    "two images": np.eye(2, dtype=np.float32),
    "one image": np.eye(1, 8, dtype=np.float32),
}


def arguments(features, k1, k2, *, k1_counts_self=True):
    images = len(features)
    return {
        "k1": min(k1, images), "k2": min(k2, images), "eps": 0.6, "wider": (0.7,), "k1_counts_self": k1_counts_self,
        "neighbour_method": "exact",
    }  # fmt: skip


def assert_same_pairs(found, expected):
    """The CPU lists the pairs of an image in the order in which it meets them, a device in ascending order."""
    order = np.lexsort((expected.target, expected.source))
    for field in ("source", "target", "overlap"):
        assert np.array_equal(getattr(found, field), getattr(expected, field)[order]), field
    assert (found.num_images, found.scale, found.eps) == (expected.num_images, expected.scale, expected.eps)


def assert_same_on_device(features, device, k1, k2, *, k1_counts_self=True):
    options = arguments(features, k1, k2, k1_counts_self=k1_counts_self)
    expected, found = join_on_cpu(features, **options), join_on_device(features, device=device, **options)
    assert_same_pairs(found.graph, expected.graph)
    assert found.distance_quantiles == expected.distance_quantiles
    assert found.max_in_degree == expected.max_in_degree
    assert found.recall is None


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
@pytest.mark.parametrize(("k1", "k2", "k1_counts_self"), [(30, 6, True), (10, 6, False), (30, 1, True)])
def test_pairs_and_overlaps_are_those_of_the_cpu(device, features, k1, k2, k1_counts_self):
    assert_same_on_device(features, device, k1, k2, k1_counts_self=k1_counts_self)


@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 40),
    different=st.integers(1, 12),
    k1=st.integers(1, 12),
    k2=st.integers(1, 6),
)
@settings(max_examples=60)
def test_rows_with_many_ties_give_the_same_pairs(seed, images, different, k1, k2):
    # Few rows of few small integers, many times: similarities tie within and between lists, and at their ends.
    generator = np.random.default_rng(seed)
    rows = generator.integers(-1, 2, size=(different, 5)) + np.array([0.0, 0.0, 0.0, 0.0, 3.0])
    features = unit(rows[generator.integers(different, size=images)])
    assert_same_on_device(features, CPU, k1, min(k1, k2))


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
def test_lists_are_those_of_the_cpu(device, features):
    k = min(12, len(features))
    with full_precision(device):
        found = ranks_on_device(torch.tensor(features, device=device), k)
    assert np.array_equal(found.cpu().numpy(), nearest_neighbours(features, k).ranks)


def test_weights_are_those_of_the_cpu():
    features = SETS["people"]
    neighbours = nearest_neighbours(features, 30)
    expected = neighbourhood_weights(features, neighbours, k1=30, k2=6)
    ranks = torch.tensor(neighbours.ranks).long()
    found = weights_on_device(torch.tensor(features), ranks, k1=30, k2=6, k1_counts_self=True)
    assert np.array_equal(found.starts.numpy(), expected.starts)
    assert found.scale == expected.scale
    images = np.repeat(np.arange(len(features)), np.diff(expected.starts))
    order = np.lexsort((expected.columns, images))  # the CPU keeps members in the order in which it meets them
    assert np.array_equal(found.columns.numpy(), expected.columns[order])
    assert np.array_equal(found.weights.numpy(), expected.weights[order])


@pytest.mark.parametrize("size", [1 << 10, 1 << 17])
def test_the_size_of_blocks_does_not_change_the_pairs(size, monkeypatch):
    monkeypatch.setitem(arithmetic_torch.BLOCK_BYTES, "cpu", size)
    assert_same_on_device(SETS["more copies than k1"][:100], CPU, 10, 6)
    assert_same_on_device(SETS["people"][:100], CPU, 10, 6)


@pytest.mark.parametrize("method", ["dbscan", "components", "louvain"])
def test_labels_are_those_of_the_cpu(method, monkeypatch):
    features = SETS["people"]
    expected = label_images(features, method=method)
    monkeypatch.setattr(joined_torch, "torch_device", lambda _: CPU)
    found = label_images(features, method=method, device="cuda")
    assert np.array_equal(found.clustering.labels, expected.clustering.labels)
    assert np.array_equal(found.clustering.core, expected.clustering.core)
    assert (found.num_edges, found.curve, found.k1) == (expected.num_edges, expected.curve, expected.k1)
    assert (found.search, expected.search) == ("torch cpu", "faiss-cpu exact")
    assert set(found.seconds) == set(expected.seconds)


def test_no_images_give_no_labels_on_any_device():
    assert len(label_images(np.empty((0, 8), np.float32), device="cuda").clustering.labels) == 0


def test_approximate_lists_go_to_the_device_with_their_recall():
    features = identity_features(1_200, 30, 32)
    options = {**arguments(features, 10, 6), "neighbour_method": "ivf"}
    expected, found = join_on_cpu(features, **options), join_on_device(features, device=CPU, **options)
    assert_same_pairs(found.graph, expected.graph)
    assert found.recall == expected.recall is not None
    assert found.search == expected.search


def test_read_only_features_in_any_layout_are_taken_as_they_are():
    features = np.asfortranarray(SETS["people"][:100])
    features.setflags(write=False)
    assert_same_on_device(features, CPU, 10, 6)


def test_bad_rows_are_named():
    rows = SETS["people"].copy()
    rows[7] *= 2.0
    with pytest.raises(ValueError, match="row 7 has length 2, not 1"):
        join_on_device(rows, device=CPU, **arguments(rows, 10, 6))


def test_products_coarser_than_float32_are_refused(monkeypatch):
    # What TensorFloat-32 would do: ten bits of mantissa.
    exact = neighbours_torch._similarities
    monkeypatch.setattr(neighbours_torch, "_similarities", lambda rows, *others: exact(rows.half().float(), *others))
    with pytest.raises(ValueError, match="coarser than float32"):
        ranks_on_device(torch.tensor(SETS["people"]), 10)


def test_the_precision_that_training_set_is_off_during_the_work_and_back_afterwards():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    rows = torch.tensor(SETS["people"])
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (rows @ rows.T).dtype == torch.bfloat16
            with full_precision(CPU):
                assert torch.get_float32_matmul_precision() == "highest"
                assert (rows @ rows.T).dtype == torch.float32
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_blocks_that_do_not_fit_are_halved_and_that_is_said_once(caplog):
    tried = []

    def task(start, stop):
        tried.append((start, stop))
        if stop - start > 3:
            raise torch.OutOfMemoryError
        return list(range(start, stop))

    with caplog.at_level(logging.WARNING):
        blocks = in_device_blocks(task, 10, 16)
    # 10 rows fail, 5 fail, then two at a time.
    assert tried == [(0, 10), (0, 5), (0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    assert [row for block in blocks for row in block] == list(range(10))
    assert [record.message for record in caplog.records] == [
        "the device's memory is too small: continuing with blocks of at most 5 rows"
    ]


def test_a_single_row_that_does_not_fit_is_an_error():
    def task(start, stop):
        raise torch.OutOfMemoryError

    with pytest.raises(ValueError, match="too small for one image's work: use the CPU"):
        in_device_blocks(task, 10, 4)


def test_features_that_do_not_fit_are_an_error_with_their_size(monkeypatch):
    def transfer(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "tensor", transfer)
    with pytest.raises(ValueError, match="memory of cpu is too small for 600 x 130 features and their lists"):
        join_on_device(SETS["people"], device=CPU, **arguments(SETS["people"], 10, 6))


@pytest.mark.parametrize(
    "short", ["neighbours_torch._similarities", "jaccard_torch._overlaps", "jaccard_torch._expanded"]
)
def test_memory_that_runs_out_in_any_stage_changes_no_pair(short, monkeypatch):
    features = SETS["people"][:300]
    module, _, name = f"clustering.{short}".rpartition(".")
    whole = getattr(__import__(module, fromlist=[name]), name)

    def rows_of(arguments):
        return len(arguments[1]) if name == "_similarities" else arguments[-1] - arguments[-2]

    def fails_when_large(*arguments):
        if rows_of(arguments) > 70:
            raise torch.OutOfMemoryError
        return whole(*arguments)

    monkeypatch.setattr(f"{module}.{name}", fails_when_large)
    assert_same_on_device(features, CPU, 10, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gpu", "'gpu' is not a device"), ("meta", "does not run on 'meta'"), ("cuda:99", "GPUs here")],
)
def test_devices_that_are_not_there_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        label_images(SETS["people"], device=name)


def test_devices_have_their_number():
    assert torch_device("cpu") == CPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_the_labels_of_the_cpu():
    features = identity_features(5_000, 117, 512)
    expected, found = label_images(features), label_images(features, device="cuda")
    assert np.array_equal(found.clustering.labels, expected.clustering.labels)
    assert found.num_edges == expected.num_edges
    assert found.search.endswith("cuda:0")
