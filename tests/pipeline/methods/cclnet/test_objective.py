"""An epoch against its plain twin, and what happens when its numbers or the memory give out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from models.clip import LoadedClip, load_clip
from models.encoder import Encoded, Head
from models.modality import Modality, PerModality
from models.precision import network_precision
from models.swap import best_assignment
from pipeline.data.images import gather_pixels
from pipeline.data.pixel_supply import ResidentPixels
from pipeline.data.transforms.augmentation import training_views
from pipeline.errors import TrainingError
from pipeline.methods.cclnet.objective import TextLoss, text_term
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.runtime.distributed import Processes
from pipeline.training import loop
from pipeline.training.loop import Compute, EpochSteps, gradients_of, joined_network, too_large
from pipeline.training.objective import Batch, Term
from tests.pipeline.training.small_training import (
    CPU,
    SmallTraining,
    random_images,
    small_training,
    weights_of,
)
from tests.reference import memory as reference


@pytest.fixture(scope="module")
def clip() -> LoadedClip:
    return load_clip("tiny", "random")


class TestPlainTwin:
    """The same epoch in one loop, in float64: memories image by image, pairs one by one, everything in its turn."""

    def cross_entropy(self, logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Minus the logarithm of the right class's share, or of all classes' with the share of `smoothing`."""
        terms = []
        for row, label in zip(logits, labels.tolist(), strict=True):
            if label == -1:
                continue
            target = torch.full_like(row, smoothing / len(row))
            target[label] += 1 - smoothing
            terms.append(-(target * (row - torch.logsumexp(row, dim=0))).sum())
        return torch.stack(terms).mean()

    def losses(self, training: SmallTraining, necks: list[Tensor], encoded: list[Encoded], labels, rows, prototypes):
        names = ("visible", "infrared")
        losses = {
            f"{name}_prototype": self.cross_entropy(neck @ own.T / 0.05, y)
            for name, neck, own, y in zip(names, necks, prototypes, labels, strict=True)
        }
        if training.text is not None:
            for name, one, y, texts in zip(names, encoded, rows, training.text.prototypes, strict=True):
                assert one.projection is not None
                losses[f"{name}_text"] = 0.5 * self.cross_entropy(one.projection @ texts.features.T, y, 0.1)
        return losses

    def epoch(self, training: SmallTraining) -> tuple[dict[str, float], list[Tensor]]:
        views, updated = training.views(), {"momentum": reference.updated, "hard": reference.updated_by_hardest}
        texts = training.labels if training.text is None else training.text.prototypes.map(lambda one: one.labels)
        prototypes = [memory.prototypes.clone() for memory in training.memories]
        sums: dict[str, float] = {}
        heads = frozenset({Head.NECK} if training.text is None else {Head.NECK, Head.PROJECTION})
        training.encoder.train()
        for positions in training.batches:
            labels = [torch.from_numpy(own[at]) for own, at in zip(training.labels, positions, strict=True)]
            rows = [torch.from_numpy(own[at]) for own, at in zip(texts, positions, strict=True)]
            pixels = training.images.map_with(lambda some, at: torch.from_numpy(gather_pixels(some, at)), positions)
            inputs = [views[modality][0](batch, len(batch), slice(len(batch))) for modality, batch in pixels.items()]
            encoded = list(training.encoder(PerModality(*inputs), heads))
            necks = [one.neck / one.neck.norm(dim=1, keepdim=True) for one in encoded]
            losses = self.losses(training, necks, encoded, labels, rows, prototypes)
            losses["total"] = torch.stack(list(losses.values())).sum()
            training.optimiser.zero_grad()
            losses["total"].backward()
            training.optimiser.step()
            prototypes = [
                updated[training.update](own, neck.detach(), y, 0.1)
                for own, neck, y in zip(prototypes, necks, labels, strict=True)
            ]
            if training.swap is not None:
                pairs = list(zip(*best_assignment((prototypes[0] @ prototypes[1].T).numpy()), strict=True))
                prototypes = list(
                    reference.swapped_as_released(*prototypes, pairs, *(y.tolist() for y in labels), scale=0.1)
                )
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() / len(training.batches)
        return sums, prototypes

    @pytest.mark.parametrize("resident", [False, True])
    @pytest.mark.parametrize(
        ("with_text", "with_swap", "update"),
        [(False, False, "momentum"), (True, False, "momentum"), (True, True, "momentum"), (False, True, "hard")],
        ids=["bare", "text", "text and swap", "hard and swap"],
    )
    def test_losses_memories_and_weights_are_those_of_the_twin(self, clip, with_text, with_swap, update, resident):
        options = {"dtype": torch.float64, "with_text": with_text, "with_swap": with_swap, "learning_rate": 1e-3}
        training = small_training(clip, resident=resident, **options)
        twin = small_training(clip, **options)
        training.update = twin.update = update
        assert len(training.batches) == 3
        found = training.train()
        expected, prototypes = self.epoch(twin)
        assert list(found) == list(expected)
        assert found == pytest.approx(expected, rel=1e-9)
        for memory, own in zip(training.memories, prototypes, strict=True):
            torch.testing.assert_close(memory.prototypes, own, rtol=0, atol=1e-9)
        other = weights_of(twin)
        for name, value in weights_of(training).items():
            torch.testing.assert_close(value, other[name], rtol=1e-7, atol=1e-9, msg=name)


class TestBookkeeping:
    def test_the_total_is_the_sum_of_the_terms_and_text_adds_two(self, clip):
        losses = small_training(clip).train()
        assert list(losses) == ["visible_prototype", "infrared_prototype", "total"]
        losses = small_training(clip, with_text=True).train()
        assert list(losses) == ["visible_prototype", "infrared_prototype", "visible_text", "infrared_text", "total"]
        assert losses.pop("total") == pytest.approx(sum(losses.values()), rel=1e-6)

    def test_the_same_epoch_twice_gives_the_same_bits(self, clip):
        one, other = (small_training(clip, with_text=True, with_swap=True) for _ in range(2))
        assert one.train() == other.train()
        assert all(torch.equal(a.prototypes, b.prototypes) for a, b in zip(one.memories, other.memories, strict=True))

    def test_images_without_a_text_take_no_part_in_the_text_loss(self, clip):
        training = small_training(clip, with_text=True)
        for prototypes in training.text.prototypes:
            prototypes.labels[:] = -1
        losses = training.train()
        assert (losses["visible_text"], losses["infrared_text"]) == (0.0, 0.0)
        assert losses["visible_prototype"] > 0

    def test_a_label_beyond_the_texts_is_refused(self, clip):
        labels = small_training(clip).labels.visible
        text = TextPrototypes(torch.zeros(3, 32), labels, torch.zeros(3, 1, 1), np.full(3, -1), np.zeros(3, np.float32))
        with pytest.raises(ValueError, match="label 4 has no text: there are 3"):
            text_term(Modality.VISIBLE, TextLoss(PerModality(text, text), 1.0, 0.1), CPU)


class TestExtraTerms:
    def toy(self, weight: float = 0.25) -> Term:
        def loss(batch: Batch) -> Tensor:
            return torch.stack([rows.square().mean() for rows in batch.rows(Head.POOLED)]).sum()

        return Term("toy", weight, frozenset({Head.POOLED}), loss)

    def test_a_loss_that_the_method_does_not_know_is_minimised_beside_the_others(self, clip):
        alone, extended = small_training(clip), small_training(clip)
        before, losses = alone.train(), extended.train(extra_terms=[self.toy()])
        assert list(losses) == ["visible_prototype", "infrared_prototype", "toy", "total"]
        assert losses["toy"] > 0
        assert losses["total"] == pytest.approx(sum(losses.values()) - losses["total"], rel=1e-6)
        assert losses["visible_prototype"] != before["visible_prototype"]  # from the second step on

    def test_a_weight_of_zero_removes_the_term_and_its_heads(self, clip):
        training = small_training(clip)
        objective, _ = training.plan(extra_terms=[self.toy(0.0)])
        assert objective.heads == {Head.NECK}
        assert training.train(extra_terms=[self.toy(0.0)]) == small_training(clip).train()

    def test_two_terms_of_one_name_are_refused(self, clip):
        with pytest.raises(AssertionError, match="different names"):
            small_training(clip).plan(extra_terms=[self.toy(), self.toy()])

    def test_a_term_that_reads_a_head_it_does_not_list_is_named(self, clip):
        careless = Term("careless", 1.0, frozenset(), self.toy().loss)
        with pytest.raises(AssertionError, match="no active term lists pooled"):
            small_training(clip).train(extra_terms=[careless])

    def test_views_are_addressed_by_modality_and_number_and_labels_follow(self, clip):
        # Two visible views, one infrared: the second view is brighter by a constant.
        training, seen = small_training(clip), []
        plain = training.views()
        brighter = small_training(clip).views(lambda images: images + 1.0)
        views = PerModality((*plain.visible, *brighter.visible), plain.infrared)
        index = training.labels.map(lambda labels: torch.arange(len(labels)))

        def loss(batch: Batch) -> Tensor:
            necks = batch.views(Head.NECK)
            assert [len(own) for own in necks] == [2, 1]
            assert [len(rows) for own in necks for rows in own] == [12, 12, 12]
            assert torch.equal(torch.cat(necks.visible), batch.rows(Head.NECK).visible)
            one, other = batch.split(batch.values(index)).visible
            assert torch.equal(one, other)
            assert not torch.equal(necks.visible[0], necks.visible[1])
            seen.append(one.numpy())
            return batch.first(batch.rows(Head.NECK)).visible.sum() * 0

        training.train(views, extra_terms=[Term("looks", 1.0, frozenset({Head.NECK}), loss)])
        assert np.array_equal(np.stack(seen), training.batches.positions.visible)


class TestGradients:
    def wanted(self, training: SmallTraining) -> dict[str, bool]:
        return {name: parameter.requires_grad for name, parameter in training.encoder.named_parameters()}

    def test_only_what_the_optimiser_trains_is_asked_for_and_all_is_restored(self, clip):
        training = small_training(clip)  # the attention pool is not trained
        before = self.wanted(training)
        with gradients_of(training.encoder, training.optimiser):
            inside = self.wanted(training)
        assert {name for name in before if before[name] != inside[name]} == {
            name for name in before if name.startswith("projection.")
        }
        assert not before["neck.bias"]  # frozen from the start: neither switched off nor on
        assert self.wanted(training) == before

    def test_nothing_is_switched_off_where_all_is_trained(self, clip):
        training = small_training(clip, with_text=True)
        before = self.wanted(training)
        with gradients_of(training.encoder, training.optimiser):
            assert self.wanted(training) == before

    def test_an_error_restores_what_was_switched_off(self, clip):
        training = small_training(clip)
        before = self.wanted(training)
        with pytest.raises(ValueError, match="stop"), gradients_of(training.encoder, training.optimiser):
            raise ValueError("stop")
        assert self.wanted(training) == before

    def test_an_epoch_leaves_untrained_weights_and_flags_as_they_were(self, clip):
        training = small_training(clip)
        flags, weights = self.wanted(training), weights_of(training)
        training.train()
        assert self.wanted(training) == flags
        changed = {name for name, value in weights_of(training).items() if not torch.equal(value, weights[name])}
        assert not any(name.startswith("projection.") for name in changed)
        assert any(name.startswith("trunk.") for name in changed)
        assert any(name.startswith("stems.infrared.") for name in changed)

    def test_a_process_alone_trains_the_encoder_itself(self, clip):
        encoder = small_training(clip).encoder
        assert joined_network(encoder, Compute(CPU)) is encoder


def limit(training: SmallTraining, monkeypatch: pytest.MonkeyPatch, room: int) -> list[tuple[int, int]]:
    """Let the encoder run out of memory with more than `room` images at once; gives what was tried."""
    original: Callable[..., PerModality[Encoded]] = training.encoder.forward
    tried: list[tuple[int, int]] = []

    def forward(images: PerModality[Tensor], heads: frozenset[Head]) -> PerModality[Encoded]:
        counts = images.map(len)
        tried.append(tuple(counts))
        if sum(counts) > room:
            raise torch.OutOfMemoryError("no room")
        return original(images, heads)

    monkeypatch.setattr(training.encoder, "forward", forward)
    return tried


class TestTooLittleMemory:
    @pytest.mark.parametrize("with_text", [False, True])
    def test_the_error_names_the_batch_that_fits(self, clip, monkeypatch, with_text):
        training = small_training(clip, images_per_cluster=8, with_text=with_text)
        # 3 clusters of 8 images, twice: 48 at once. 4 images a cluster are 24, 2 are 12.
        tried = limit(training, monkeypatch, room=20)
        with pytest.raises(TrainingError, match="cpu has too little memory to train on 24 visible and 24") as caught:
            training.train()
        assert tried == [(24, 24), (12, 12), (6, 6)]
        assert "2 instead of 8 fit" in caught.value.hint
        assert "--set batches.images_per_cluster=2" in caught.value.hint

    def test_the_batch_that_is_named_does_fit(self, clip, monkeypatch):
        training = small_training(clip, images_per_cluster=2)
        limit(training, monkeypatch, room=20)
        assert np.isfinite(training.train()["total"])

    def test_each_modality_is_tried_with_its_own_number_of_clusters(self, clip, monkeypatch):
        # 5 visible and all 4 infrared clusters of 4 images: 20 + 16; 2 images a cluster are 10 + 8.
        training = small_training(clip, clusters_per_batch=5)
        tried = limit(training, monkeypatch, room=18)
        with pytest.raises(TrainingError, match="20 visible and 16 infrared images") as caught:
            training.train()
        assert tried == [(20, 16), (10, 8)]
        assert "images_per_cluster=2" in caught.value.hint

    def test_processes_try_their_share(self, clip, monkeypatch):
        training = small_training(clip)
        tried = limit(training, monkeypatch, room=6)
        steps = EpochSteps(
            training.pixels,
            PerModality(np.zeros((1, 32), dtype=np.int64), np.zeros((1, 32), dtype=np.int64)),
            training.views(),
            PerModality(4, 4),
            "batches.images_per_cluster",
        )
        processes = Processes(rank=1, count=4, local_rank=1, local_count=4)
        heads = frozenset({Head.NECK})
        error = too_large(training.encoder.train(), heads, steps, Compute(CPU, processes=processes))
        # A quarter of 4 clusters of 4, of 2 images.
        assert tried == [(4, 4), (2, 2)]
        assert "images_per_cluster=2" in error.hint

    def test_where_not_one_image_fits_there_is_no_number_to_set(self, clip, monkeypatch):
        training = small_training(clip)
        tried = limit(training, monkeypatch, room=5)
        with pytest.raises(TrainingError, match="12 visible and 12 infrared") as caught:
            training.train()
        assert tried == [(12, 12), (6, 6), (3, 3)]
        assert caught.value.hint.startswith("batches.images_per_cluster = 1 is too much already")

    def test_a_later_step_may_be_the_one_and_nothing_is_left_behind(self, clip, monkeypatch):
        training = small_training(clip)
        flags = {name: parameter.requires_grad for name, parameter in training.encoder.named_parameters()}
        original, steps = training.optimiser.step, []

        def step() -> None:
            steps.append(1)
            if len(steps) == 2:
                raise torch.OutOfMemoryError("no room")
            original()

        def note(*_: object) -> None:
            held.append(any(parameter.grad is not None for parameter in training.encoder.parameters()))

        monkeypatch.setattr(training.optimiser, "step", step)
        held: list[bool] = []
        training.encoder.register_forward_pre_hook(note)
        with pytest.raises(TrainingError, match="too little memory") as caught:
            training.train()
        assert "images_per_cluster=2" in caught.value.hint  # half of 4, and there is room
        assert all(parameter.grad is None for parameter in training.encoder.parameters())
        assert {name: parameter.requires_grad for name, parameter in training.encoder.named_parameters()} == flags
        assert held == [False, True, False]  # the gradients of the failed step make room before smaller ones are tried
        # Its frames would hold the tensors that did not fit.
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


class TestNotFinite:
    @pytest.mark.parametrize("broken", [1, 2, 3])
    def test_a_loss_that_is_not_finite_names_its_step_and_trains_nothing(self, clip, broken):
        training = small_training(clip, with_swap=True)
        calls = []

        def spoil(images: Tensor) -> Tensor:
            calls.append(1)
            return images * (torch.nan if len(calls) == 2 * broken else 1.0)  # two batches a step

        with pytest.raises(TrainingError, match=f"not finite at step {broken};") as caught:
            training.train(training.views(spoil))
        assert "learning_rate" in caught.value.hint
        assert all(torch.isfinite(parameter).all() for parameter in training.encoder.parameters())
        assert all(torch.isfinite(memory.prototypes).all() for memory in training.memories)

    def test_where_the_steps_are_not_looked_at_the_epoch_is(self, clip, monkeypatch):
        # As on a GPU: the numbers spread through memories and swap before anybody asks.
        training = small_training(clip, with_text=True, with_swap=True)
        monkeypatch.setattr(loop.torch, "isfinite", lambda loss: torch.ones_like(loss, dtype=torch.bool))
        calls = []

        def spoil(images: Tensor) -> Tensor:
            calls.append(1)
            return images * (torch.nan if len(calls) == 1 else 1.0)

        with pytest.raises(TrainingError, match="the loss is not finite"):
            training.train(training.views(spoil))
        assert len(calls) == 2 * len(training.batches)


class TestPrecision:
    @pytest.mark.parametrize(("with_text", "with_swap"), [(False, False), (True, True)])
    def test_losses_in_bfloat16_are_within_a_twentieth_of_those_in_float32(self, clip, with_text, with_swap):
        full = small_training(clip, with_text=with_text, with_swap=with_swap).train()
        half = small_training(clip, with_text=with_text, with_swap=with_swap).train(precision="bfloat16")
        assert half == pytest.approx(full, rel=0.05)
        assert half != full

    def test_trunks_compute_in_bfloat16_and_all_that_follows_in_float32(self, clip):
        training = small_training(clip, with_text=True, with_swap=True)
        kinds: dict[str, set[torch.dtype]] = {}

        def note(name: str) -> Callable[..., None]:
            return lambda _module, _given, output: kinds.setdefault(name, set()).add(output.dtype)

        for name, part in training.encoder.named_children():
            for module in part.values() if name == "stems" else [part]:
                module.register_forward_hook(note(name))
        sums = training.run(training.plan(), precision="bfloat16")
        half, full = {torch.bfloat16}, {torch.float32}
        assert kinds == {"stems": half, "trunk": half, "pool": full, "projection": full, "neck": full}
        assert {value.dtype for value in sums.values()} == full
        assert {memory.prototypes.dtype for memory in training.memories} == full
        assert {parameter.dtype for parameter in training.encoder.parameters()} == full

    def test_float32_leaves_autocast_off(self):
        with network_precision("float32", CPU):
            assert not torch.is_autocast_enabled("cpu")
        with network_precision("bfloat16", CPU):
            assert torch.is_autocast_enabled("cpu")


class TestProcesses:
    def test_the_shares_of_processes_are_changed_as_the_whole_batch_is(self):
        images = PerModality.build(lambda modality: random_images(10, modality))
        shares = [Processes(rank=rank, count=3) for rank in range(3)]

        def change(processes: Processes) -> Tensor:
            views = training_views(
                recipe="cclnet_sysu", padding=4, normalisation="imagenet", generator=torch.Generator().manual_seed(1)
            )
            pixels = images.map(lambda some: ResidentPixels(some, CPU))
            positions = PerModality(np.arange(10)[None], np.arange(10)[None])
            (inputs,) = EpochSteps(pixels, positions, views, PerModality(5, 5), "").inputs(processes)
            return inputs.visible

        parts = [change(processes) for processes in shares]
        assert [len(part) for part in parts] == [3, 3, 4]
        assert torch.equal(torch.cat(parts), change(Processes()))


class TestEqualRanks:
    """One process plays both ranks: what `gather_rows` gives is what two of them would get."""

    def of_two(self, monkeypatch: pytest.MonkeyPatch, other: Callable[[np.ndarray], np.ndarray]) -> Processes:
        monkeypatch.setattr(Processes, "gather_rows", lambda _self, rows, _total: np.concatenate([rows, other(rows)]))
        return Processes(rank=0, count=2, local_rank=0, local_count=2)

    def test_equal_weights_pass(self, clip, monkeypatch):
        processes = self.of_two(monkeypatch, lambda rows: rows)
        loop.require_equal_ranks(small_training(clip).optimiser, processes)

    def test_one_bit_of_one_weight_on_one_rank_ends_the_run(self, clip, monkeypatch):
        one, other = small_training(clip), small_training(clip)
        found: list[np.ndarray] = []
        processes = self.of_two(monkeypatch, lambda rows: found.append(rows) or rows)
        weight = other.optimiser.param_groups[0]["params"][3]
        with torch.no_grad():
            weight.view(-1)[:2].copy_(torch.nextafter(weight.view(-1)[:2], torch.tensor([torch.inf, -torch.inf])))
        for training in (one, other):
            loop.require_equal_ranks(training.optimiser, processes)
        processes = self.of_two(monkeypatch, lambda _: found[1])
        with pytest.raises(
            TrainingError, match="1 of 67 trained tensors differ from those of rank 0 on rank 1;"
        ) as caught:
            loop.require_equal_ranks(one.optimiser, processes)
        assert "--processes 1" in caught.value.hint

    def test_a_process_alone_compares_nothing(self, clip, monkeypatch):
        monkeypatch.setattr(loop, "_checksum", None)
        loop.require_equal_ranks(small_training(clip).optimiser, Processes())
