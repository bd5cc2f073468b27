"""Cluster memories against their one-by-one twins, and what swapping does to pairs of prototypes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.memory import PrototypeMemory, memory_update
from models.modality import PerModality
from models.swap import ClusterPairing, CrossModalSwap, best_assignment
from tests.reference import memory as reference


def unit_rows(rows, dim, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=generator, dtype=dtype), dim=1)


EVERY_IMAGE = memory_update("momentum", 0.1)


def memories_of(visible, infrared):
    return PerModality(PrototypeMemory(visible), PrototypeMemory(infrared))


def labels_of(visible, infrared):
    return PerModality(torch.tensor(visible, dtype=torch.int64), torch.tensor(infrared, dtype=torch.int64))


def diagonal(similarity):
    size = min(similarity.shape)
    return np.arange(size), np.arange(size)


class CountingSolver:
    def __init__(self):
        self.calls = 0

    def __call__(self, similarity):
        self.calls += 1
        return best_assignment(similarity)


def test_logits_are_cosines_over_the_temperature():
    memory = PrototypeMemory(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    # (0, 1) is at right angles to the first row and has cosine 0.8 with the second; 0.8 / 0.05 = 16.
    assert memory.logits(torch.tensor([[0.0, 1.0]]), 0.05).tolist() == [[0.0, pytest.approx(16.0)]]


def test_the_gradient_is_that_of_the_prototypes_before_the_update_even_if_the_update_comes_first():
    rows = unit_rows(5, 8, seed=0)
    memory = PrototypeMemory(rows)
    features = unit_rows(6, 8, seed=1).requires_grad_()
    labels = torch.tensor([0, 1, 2, 2, 4, 0])
    logits = memory.logits(features, 0.05)
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    memory.update(features, labels, EVERY_IMAGE)
    loss.backward()
    # d loss / d q = (softmax - one-hot) M / temperature
    expected = (logits.detach().softmax(dim=1) - functional.one_hot(labels, 5)) @ rows / 0.05
    assert torch.allclose(features.grad, expected, atol=1e-10, rtol=0)
    assert not memory.prototypes.requires_grad
    assert not torch.equal(memory.prototypes, rows)


def test_a_memory_copies_what_it_is_made_of_and_never_changes_its_arguments():
    rows, features, labels = unit_rows(3, 4, seed=0), unit_rows(4, 4, seed=1), torch.tensor([2, 0, 2, 2])
    copies = rows.clone(), features.clone(), labels.clone()
    memory = PrototypeMemory(rows)
    before = memory.prototypes
    memory.update(features, labels, EVERY_IMAGE)
    assert all(torch.equal(now, then) for now, then in zip((rows, features, labels), copies, strict=True))
    assert torch.equal(before, copies[0])


@pytest.mark.parametrize("rows", [torch.zeros(0, 4), torch.zeros(2, 4), torch.tensor([[1.0, 0.0], [1.0, 1.0]])])
def test_prototypes_that_are_missing_or_not_of_unit_length_are_refused(rows):
    with pytest.raises(ValueError, match="length 1"):
        PrototypeMemory(rows)


def test_momentum_is_the_weight_of_the_old_prototype():
    memory = PrototypeMemory(torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    memory.update(torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([0]), memory_update("momentum", 0.6))
    # 0.6 (1, 0) + 0.4 (0, 1) has length sqrt(0.36 + 0.16).
    length = math.sqrt(0.52)
    assert memory.prototypes[0].tolist() == pytest.approx([0.6 / length, 0.4 / length])
    assert memory.prototypes[1].tolist() == [0.0, 1.0]


LABELS = {
    "one image": [3],
    "one cluster": [2] * 16,
    "grouped": [0] * 4 + [1] * 4 + [5] * 4,
    "shuffled": [5, 0, 1, 1, 0, 5, 5, 1, 0, 0, 5, 1],
    "unequal": [4, 4, 0, 4, 1, 4, 4, 0, 4],
    "each once": [6, 2, 0, 5, 1, 3, 4],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.8, 1.0])
def test_updating_cluster_by_cluster_equals_updating_image_by_image_to_the_last_bit(labels, momentum):
    rows, features, labels = unit_rows(7, 33, seed=0), unit_rows(len(labels), 33, seed=1), torch.tensor(labels)
    memory = PrototypeMemory(rows)
    memory.update(features, labels, memory_update("momentum", momentum))
    assert torch.equal(memory.prototypes, reference.updated(rows, features, labels, momentum))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.floats(0.0, 1.0), st.integers(0, 1000))
def test_the_update_equals_its_twin_for_any_batch_in_float32(labels, momentum, seed):
    rows, labels = unit_rows(10, 16, seed), torch.tensor(labels, dtype=torch.int64)
    features = unit_rows(len(labels), 16, seed + 1)
    memory = PrototypeMemory(rows.float())
    memory.update(features.float(), labels, memory_update("momentum", momentum))
    expected = reference.updated(rows, features, labels, momentum)
    # Where old and new nearly cancel, rounding is magnified: float32 is compared where the mixture is not that short.
    shortest = 1.0 - 2.0 * min(momentum, 1.0 - momentum)
    tolerance = 1e-6 if shortest > 0.2 else 1e-4
    assert (memory.prototypes.double() - expected).abs().max() < tolerance


def test_the_order_matters_within_a_cluster_and_not_between_clusters():
    rows, features = unit_rows(2, 8, seed=0), unit_rows(4, 8, seed=1)
    outcome = {}
    for name, order in {"given": [0, 1, 2, 3], "clusters swapped": [2, 3, 0, 1], "turned round": [1, 0, 2, 3]}.items():
        memory = PrototypeMemory(rows)
        memory.update(features[order], torch.tensor([0, 0, 1, 1])[order], EVERY_IMAGE)
        outcome[name] = memory.prototypes
    assert torch.equal(outcome["given"], outcome["clusters swapped"])
    assert not torch.equal(outcome["given"], outcome["turned round"])


def test_the_hard_update_takes_the_image_that_is_least_similar_to_the_old_prototype():
    memory = PrototypeMemory(torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    # Cosines with (1, 0): 0.8, -0.6 and 1. The second image is the hardest; 0.5 (1, 0) + 0.5 (-0.6, 0.8) is (0.2, 0.4).
    batch = torch.tensor([[0.8, 0.6], [-0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
    memory.update(batch, torch.tensor([0, 0, 0]), memory_update("hard", 0.5))
    length = math.sqrt(0.2)
    assert memory.prototypes[0].tolist() == pytest.approx([0.2 / length, 0.4 / length])
    assert memory.prototypes[1].tolist() == [0.0, 1.0]


def test_of_equally_hard_images_the_first_is_taken():
    memory = PrototypeMemory(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    batch = torch.tensor([[0.6, 0.8], [0.6, -0.8]], dtype=torch.float64)
    memory.update(batch, torch.tensor([0, 0]), memory_update("hard", 0.0))
    assert memory.prototypes[0].tolist() == [0.6, 0.8]


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.8, 1.0])
def test_the_hard_update_equals_its_cluster_by_cluster_twin(labels, momentum):
    rows, features, labels = unit_rows(7, 33, seed=0), unit_rows(len(labels), 33, seed=1), torch.tensor(labels)
    memory = PrototypeMemory(rows)
    copies = rows.clone(), features.clone()
    memory.update(features, labels, memory_update("hard", momentum))
    torch.testing.assert_close(
        memory.prototypes, reference.updated_by_hardest(rows, features, labels, momentum), rtol=0, atol=1e-15
    )
    assert torch.equal(rows, copies[0]) and torch.equal(features, copies[1])


@pytest.mark.parametrize("momentum", [0.0, 0.3])
def test_both_updates_agree_where_every_cluster_has_one_image_and_hard_ones_ignore_their_order(momentum):
    rows, features = unit_rows(7, 33, seed=0), unit_rows(7, 33, seed=1)
    single, several = torch.tensor(LABELS["each once"]), torch.tensor([0, 0, 1, 0, 1, 1, 1])
    found = []
    for update, labels, order in (
        ("momentum", single, range(7)), ("hard", single, range(7)), ("hard", several, range(7)),
        ("hard", several, [6, 5, 4, 3, 2, 1, 0]),
    ):  # fmt: skip
        memory = PrototypeMemory(rows)
        memory.update(features[list(order)], labels[list(order)], memory_update(update, momentum))
        found.append(memory.prototypes)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])


@pytest.mark.parametrize("labels", [[-1], [0, 3]])
def test_a_label_without_a_prototype_is_refused(labels):
    memory = PrototypeMemory(unit_rows(3, 4, seed=0))
    with pytest.raises(ValueError, match="3 prototypes"):
        memory.update(unit_rows(len(labels), 4, seed=1), torch.tensor(labels), EVERY_IMAGE)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_the_assignment_has_the_largest_total_and_leaves_the_surplus_single(num_rows, num_columns, seed):
    similarity = np.random.default_rng(seed).normal(size=(num_rows, num_columns))
    rows, columns = best_assignment(similarity)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(num_rows, num_columns)
    assert similarity[rows, columns].sum() == pytest.approx(reference.largest_total(similarity))


# Two prototypes at right angles, scale 0.1: taking over the other's content gives (0.1, 0.9) / sqrt(0.82).
EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
TAKEN = [0.1 / math.sqrt(0.82), 0.9 / math.sqrt(0.82)]


@pytest.mark.parametrize(
    ("batch", "visible", "infrared", "written"),
    [
        (([0], []), TAKEN, NORTH, 1),
        (([], [0]), EAST, TAKEN[::-1], 1),
        (([], []), EAST, NORTH, 0),
    ],
    ids=["visible in batch", "infrared in batch", "neither"],
)
def test_released_writes_only_the_side_that_is_in_the_batch(batch, visible, infrared, written):
    memories = memories_of(torch.tensor([EAST], dtype=torch.float64), torch.tensor([NORTH], dtype=torch.float64))
    count = CrossModalSwap(mode="released", scale=0.1).apply(memories, labels_of(*batch))
    assert (count.paired, count.written) == (1, written)
    assert memories.visible.prototypes[0].tolist() == pytest.approx(visible, abs=1e-15)
    assert memories.infrared.prototypes[0].tolist() == pytest.approx(infrared, abs=1e-15)


@pytest.mark.parametrize(("similarity", "expected"), [(0.0, (0.994, 0.995)), (0.9, (0.999, 0.999))])
def test_released_with_both_in_the_batch_leaves_both_near_the_old_infrared_prototype(similarity, expected):
    # At similarity 0: visible becomes (0.110, 0.994); infrared 0.1 (0, 1) + 0.9 of that, (0.099, 0.994) / 0.999.
    old_infrared = torch.tensor([[similarity, math.sqrt(1 - similarity**2)]], dtype=torch.float64)
    memories = memories_of(torch.tensor([EAST], dtype=torch.float64), old_infrared)
    CrossModalSwap(mode="released", scale=0.1).apply(memories, labels_of([0], [0]))
    cosines = memories.map(lambda memory: float(memory.prototypes[0] @ old_infrared[0]))
    assert cosines.visible == pytest.approx(expected[0], abs=5e-4)
    assert cosines.infrared == pytest.approx(expected[1], abs=5e-4)


@pytest.mark.parametrize("mode", ["released", "exchange"])
def test_a_pair_below_the_similarity_floor_is_left_alone_and_one_at_the_floor_is_not(mode):
    opposite = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    memories = memories_of(torch.tensor([EAST], dtype=torch.float64), opposite)
    count = CrossModalSwap(mode=mode, min_similarity=0.0).apply(memories, labels_of([0], [0]))
    assert (count.paired, count.written) == (0, 0)
    assert memories.visible.prototypes.tolist() == [EAST]
    at_right_angles = memories_of(torch.tensor([EAST]), torch.tensor([NORTH]))
    assert CrossModalSwap(mode=mode, min_similarity=0.0).apply(at_right_angles, labels_of([0], [0])).written == 1


@pytest.mark.parametrize(
    ("mode", "trigger"), [("released", "any_member"), ("exchange", "any_member"), ("exchange", "both_members")]
)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([-1.0, 0.0]),
)
def test_swapping_equals_its_pair_by_pair_twin(mode, trigger, num_visible, num_infrared, seed, scale, floor):
    visible, infrared = unit_rows(num_visible, 9, seed), unit_rows(num_infrared, 9, seed + 1)
    generator = np.random.default_rng(seed)
    batch = generator.integers(0, num_visible, 5).tolist(), generator.integers(0, num_infrared, 5).tolist()
    memories = memories_of(visible, infrared)
    swap = CrossModalSwap(mode=mode, trigger=trigger, scale=scale, min_similarity=floor)
    swap.apply(memories, labels_of(*batch))
    similarity = (visible @ infrared.T).numpy()
    pairs = [(a, b) for a, b in zip(*best_assignment(similarity), strict=True) if similarity[a, b] >= floor]
    if mode == "released":
        expected = reference.swapped_as_released(visible, infrared, pairs, *batch, scale)
    else:
        expected = reference.exchanged(visible, infrared, pairs, *batch, scale, trigger)
    # The twin scales rows again that it does not mix, so the last bit may differ where scale is 0.
    assert torch.allclose(memories.visible.prototypes, expected[0], atol=1e-15, rtol=0)
    assert torch.allclose(memories.infrared.prototypes, expected[1], atol=1e-15, rtol=0)


def test_a_pure_exchange_moves_rows_as_they_are_and_a_second_one_brings_them_back():
    visible, infrared = unit_rows(6, 9, seed=0, dtype=torch.float32), unit_rows(4, 9, seed=1, dtype=torch.float32)
    memories = memories_of(visible, infrared)
    swap = CrossModalSwap(mode="exchange", scale=0.0, min_similarity=-1.0, assign=diagonal)
    everyone = labels_of(range(6), range(4))
    assert swap.apply(memories, everyone).written == 4
    assert torch.equal(memories.visible.prototypes, torch.cat([infrared, visible[4:]]))
    assert torch.equal(memories.infrared.prototypes, visible[:4])
    swap.apply(memories, everyone)
    assert torch.equal(memories.visible.prototypes, visible)
    assert torch.equal(memories.infrared.prototypes, infrared)


@pytest.mark.parametrize("mode", ["exchange", "released"])
def test_exchange_treats_the_modalities_alike_and_released_does_not(mode):
    first, second = unit_rows(5, 9, seed=0), unit_rows(7, 9, seed=1)
    batches = [0, 1, 2], [3, 4, 1]
    forward, backward = memories_of(first, second), memories_of(second, first)
    CrossModalSwap(mode=mode, min_similarity=-1.0).apply(forward, labels_of(*batches))
    CrossModalSwap(mode=mode, min_similarity=-1.0).apply(backward, labels_of(*batches[::-1]))
    alike = torch.allclose(forward.visible.prototypes, backward.infrared.prototypes, atol=1e-12) and torch.allclose(
        forward.infrared.prototypes, backward.visible.prototypes, atol=1e-12
    )
    assert alike == (mode == "exchange")


def look(pairing, memories):
    pairing.start_update(memories)
    return pairing.pairs()


def test_an_unchanged_memory_is_not_assigned_again_and_one_changed_row_is_enough():
    solver = CountingSolver()
    memories = memories_of(unit_rows(6, 8, seed=0), unit_rows(5, 8, seed=1))
    pairing = ClusterPairing(assign=solver)
    first = look(pairing, memories)
    again = look(pairing, memories)
    assert solver.calls == 1
    assert all(np.array_equal(then, now) for then, now in zip(first, again, strict=True))
    # Weight 1 on the old row, which has length 1 exactly: the update writes the same bits.
    memories.visible.replace(np.array([2]), memories.visible.prototypes[[2]])
    look(pairing, memories)
    assert solver.calls == 1
    memories.infrared.replace(np.array([3]), unit_rows(1, 8, seed=9))
    look(pairing, memories)
    assert solver.calls == pairing.num_solved == 2


def test_other_memories_start_the_pairing_afresh_even_between_two_looks():
    solver = CountingSolver()
    pairing = ClusterPairing(assign=solver, every=10)
    look(pairing, memories_of(unit_rows(6, 8, seed=0), unit_rows(5, 8, seed=1)))
    pairs = look(pairing, memories_of(unit_rows(3, 8, seed=2), unit_rows(5, 8, seed=3)))
    assert solver.calls == 2
    assert len(pairs.visible) == 3


def test_similarities_that_are_brought_up_to_date_equal_the_full_product():
    generator = torch.Generator().manual_seed(0)
    memories = memories_of(
        unit_rows(40, 64, seed=0, dtype=torch.float32), unit_rows(30, 64, seed=1, dtype=torch.float32)
    )
    swap = CrossModalSwap(mode="exchange", min_similarity=-1.0)
    for step in range(12):
        labels = PerModality(*(torch.randint(0, count, (8,), generator=generator) for count in (40, 30)))
        memories.map_with(lambda m, y, s=step: m.update(unit_rows(8, 64, s + 2, torch.float32), y, EVERY_IMAGE), labels)
        expected = (memories.visible.prototypes @ memories.infrared.prototypes.T).numpy()
        swap.apply(memories, labels)
        assert np.abs(swap.pairing.similarity - expected).max() < 1e-6


def test_a_pairing_looked_at_every_third_step_stands_in_between():
    solver = CountingSolver()
    memories = memories_of(unit_rows(6, 8, seed=0), unit_rows(6, 8, seed=1))
    swap = CrossModalSwap(mode="exchange", every=3, min_similarity=-1.0, assign=solver)
    for step in range(7):
        memories.visible.replace(np.array([step % 6]), unit_rows(1, 8, seed=step + 2))
        swap.apply(memories, labels_of([0], [0]))
    # Steps 0, 3 and 6.
    assert solver.calls == 3


def test_a_swap_that_was_prepared_is_written_when_it_is_settled_and_only_once():
    memories = memories_of(unit_rows(4, 8, seed=0), unit_rows(4, 8, seed=1))
    swap = CrossModalSwap(mode="exchange", scale=0.0, min_similarity=-1.0)
    before = memories.map(lambda memory: memory.prototypes.clone())
    swap.prepare(memories, labels_of([0, 1, 2, 3], []))
    assert torch.equal(memories.visible.prototypes, before.visible)
    assert swap.settle().written == 4
    pairs = swap.pairing.pairs()
    assert torch.equal(memories.visible.prototypes[pairs.visible], before.infrared[pairs.infrared])
    after = memories.map(lambda memory: memory.prototypes)
    assert swap.settle().written == 0
    assert memories.visible.prototypes is after.visible


@pytest.mark.parametrize("settings", [{"scale": -0.1}, {"scale": 1.1}, {"every": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        CrossModalSwap(**settings)


@pytest.mark.parametrize("mode", ["released", "exchange"])
def test_swapping_for_an_epoch_does_to_prototypes_what_the_method_says(mode):
    # 200 pairs with cosine 0.5, noise-free batches, 4 clusters a step; a cluster comes up 3.5 times, as on SYSU-MM01.
    num_pairs, num_steps, generator = 200, 176, np.random.default_rng(0)
    # A common part and two private ones of equal length, all at right angles: cosine 1/2.
    parts = [unit_rows(num_pairs, 512, seed) for seed in range(3)]
    visible, infrared = (functional.normalize(parts[0] + private, dim=1) for private in parts[1:])
    memories = memories_of(visible, infrared)
    swap = CrossModalSwap(mode=mode)
    for _ in range(num_steps):
        drawn = PerModality(*(torch.from_numpy(generator.choice(num_pairs, 4, replace=False)) for _ in range(2)))
        labels = drawn.map(lambda clusters: clusters.repeat_interleave(16))
        memories.map_with(lambda m, own, y: m.update(own[y], y, EVERY_IMAGE), PerModality(visible, infrared), labels)
        swap.apply(memories, labels)
    now_visible, now_infrared = memories.map(lambda memory: memory.prototypes)
    visible_holds_infrared = (now_visible * infrared).sum(1) > (now_visible * visible).sum(1)
    infrared_holds_visible = (now_infrared * visible).sum(1) > (now_infrared * infrared).sum(1)
    share = float((visible_holds_infrared & infrared_holds_visible).double().mean())
    if mode == "released":
        assert share <= 0.01
        assert float((now_visible * now_infrared).sum(1).mean()) >= 0.98
    else:
        assert 0.2 <= share <= 0.45


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=0, max_size=12), st.integers(0, 1000))
def test_mean_and_hardest_images_equal_their_twin(labels, seed):
    first, second, features = (unit_rows(n, 6, seed + n) for n in (5, 6, len(labels) + 7))
    memory, hardest = PrototypeMemory(first), PrototypeMemory(second[:5])
    batch, labels = features[: len(labels)], torch.tensor(labels, dtype=torch.int64)
    memory.update_with_hardest(hardest, batch, labels, 0.1)
    expected = reference.updated_with_hardest(first, second[:5], batch, labels, 0.1)
    assert torch.allclose(memory.prototypes, expected[0], atol=1e-12)
    assert torch.allclose(hardest.prototypes, expected[1], atol=1e-12)


def test_clusters_of_one_image_keep_both_memories_equal():
    rows = unit_rows(3, 6, 1)
    memory, hardest = PrototypeMemory(rows), PrototypeMemory(rows)
    memory.update_with_hardest(hardest, unit_rows(3, 6, 2), torch.tensor([2, 0, 1]), 0.1)
    assert torch.equal(memory.prototypes, hardest.prototypes)
