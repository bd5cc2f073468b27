"""An epoch against its plain twin, and what happens when its numbers or the memory give out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from clustering.dbscan import PseudoLabels
from models.clip import LoadedClip, load_clip
from models.encoder import Encoded, Head
from models.modality import Modality, PerModality
from models.precision import network_precision
from models.swap import best_assignment
from pipeline.data.images import gather_pixels
from pipeline.errors import TrainingError
from pipeline.methods.cclnet import objective as epoch
from pipeline.methods.cclnet.objective import build_augmentation, labelled_images
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.runtime.distributed import Processes
from pipeline.training.network import gradients_of, joined_network, too_large
from tests.pipeline.training.small_training import CPU, SIZE, SmallTraining, small_training, weights_of
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
            for name, one, y, texts in zip(names, encoded, rows, training.text.features, strict=True):
                assert one.projection is not None
                losses[f"{name}_text"] = 0.5 * self.cross_entropy(one.projection @ texts.T, y, 0.1)
        return losses

    def epoch(self, training: SmallTraining) -> tuple[dict[str, float], list[Tensor]]:
        change = training.settings()["augmentation"]
        prototypes = [memory.prototypes.clone() for memory in training.memories]
        sums: dict[str, float] = {}
        heads = frozenset({Head.NECK} if training.text is None else {Head.NECK, Head.PROJECTION})
        training.encoder.train()
        for positions in training.batches:
            labels = [torch.from_numpy(s.labels[at]) for s, at in zip(training.sources, positions, strict=True)]
            rows = [torch.from_numpy(s.text_rows[at]) for s, at in zip(training.sources, positions, strict=True)]
            pixels = training.images.map_with(lambda some, at: torch.from_numpy(gather_pixels(some, at)), positions)
            inputs = [change(batch, modality, len(batch)) for modality, batch in pixels.items()]
            encoded = list(training.encoder(PerModality(*inputs), heads))
            necks = [one.neck / one.neck.norm(dim=1, keepdim=True) for one in encoded]
            losses = self.losses(training, necks, encoded, labels, rows, prototypes)
            losses["total"] = torch.stack(list(losses.values())).sum()
            training.optimiser.zero_grad()
            losses["total"].backward()
            training.optimiser.step()
            prototypes = [
                reference.updated(own, neck.detach(), y, 0.1)
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
        ("with_text", "with_swap"), [(False, False), (True, False), (True, True)], ids=["bare", "text", "text and swap"]
    )
    def test_losses_memories_and_weights_are_those_of_the_twin(self, clip, with_text, with_swap, resident):
        options = {"dtype": torch.float64, "with_text": with_text, "with_swap": with_swap, "learning_rate": 1e-3}
        training = small_training(clip, resident=resident, **options)
        twin = small_training(clip, **options)
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
        for source in training.sources:
            source.text_rows[:] = -1
        losses = training.train()
        assert (losses["visible_text"], losses["infrared_text"]) == (0.0, 0.0)
        assert losses["visible_prototype"] > 0

    def test_a_label_beyond_the_texts_is_refused(self, clip):
        source = small_training(clip).sources.visible
        labels = PseudoLabels(labels=source.labels, core=source.labels >= 0)
        text = TextPrototypes(torch.zeros(3, 32), source.labels, torch.zeros(3, 1, 1))
        with pytest.raises(ValueError, match="label 4 has no text: there are 3"):
            labelled_images(source.pixels, labels, text)


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
        assert joined_network(encoder, CPU, Processes()) is encoder


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
        error = too_large(
            training.encoder.train(),
            frozenset({Head.NECK}),
            groups=PerModality(4, 4),
            images_per_group=8,
            setting="batches.images_per_cluster",
            precision="float32",
            device=CPU,
            processes=Processes(rank=1, count=4, local_rank=1, local_count=4),
        )
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
        change, calls = training.settings()["augmentation"], []

        def spoil(*batch) -> Tensor:
            calls.append(1)
            return change(*batch) * (torch.nan if len(calls) == 2 * broken else 1.0)  # two batches a step

        with pytest.raises(TrainingError, match=f"not finite at step {broken};") as caught:
            training.train(augmentation=spoil)
        assert "learning_rate" in caught.value.hint
        assert all(torch.isfinite(parameter).all() for parameter in training.encoder.parameters())
        assert all(torch.isfinite(memory.prototypes).all() for memory in training.memories)

    def test_where_the_steps_are_not_looked_at_the_epoch_is(self, clip, monkeypatch):
        # As on a GPU: the numbers spread through memories and swap before anybody asks.
        training = small_training(clip, with_text=True, with_swap=True)
        monkeypatch.setattr(epoch.torch, "isfinite", lambda loss: torch.ones_like(loss, dtype=torch.bool))
        change, calls = training.settings()["augmentation"], []

        def spoil(*batch) -> Tensor:
            calls.append(1)
            return change(*batch) * (torch.nan if len(calls) == 1 else 1.0)

        with pytest.raises(TrainingError, match="the loss is not finite"):
            training.train(augmentation=spoil)
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
        pixels = torch.randint(0, 256, (10, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

        def change(processes: Processes, part: Tensor) -> Tensor:
            settings = {"recipe": "cclnet_sysu", "padding": 4, "normalisation": "imagenet"}
            generator = torch.Generator().manual_seed(1)
            augmentation = build_augmentation(**settings, generator=generator, processes=processes)
            return augmentation(part, Modality.VISIBLE, 10)

        shares = [Processes(rank=rank, count=3) for rank in range(3)]
        parts = [change(processes, pixels[processes.share(10)]) for processes in shares]
        assert [len(part) for part in parts] == [3, 3, 4]
        assert torch.equal(torch.cat(parts), change(Processes(), pixels))
