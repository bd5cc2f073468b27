"""A GPU finds what the CPU finds, and no step of an epoch makes the host wait for it."""

import copy
import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from models.batch_norm import synchronise_batch_norms
from models.clip import LoadedClip, load_clip
from models.encoder import DualStemEncoder, Head
from models.memory import PrototypeMemory, memory_update
from models.modality import Modality, PerModality
from models.swap import CrossModalSwap
from models.text_tower import TextTower
from pipeline.data import pixel_supply
from pipeline.data.images import gather_pixels
from pipeline.data.pixel_supply import ResidentPixels, StreamedPixels, supply_pixels
from pipeline.data.transforms.augmentation import augment, preprocess
from pipeline.errors import TrainingError
from pipeline.features import encoder_digest, extract_features
from pipeline.methods.cclnet.prompts import learn_prompts
from pipeline.runtime.device import resolve_device, resolve_precision, using_device
from pipeline.runtime.seeds import numpy_generator, torch_generator
from tests.gpu.waiting import CUDA, no_gpu, waiting_refused
from tests.pipeline.training.small_training import CPU, SIZE, random_images, small_training, unit_rows

pytestmark = no_gpu
WAYS = [StreamedPixels, ResidentPixels]
HEADS = (Head.NECK, Head.PROJECTION)


@pytest.fixture(scope="module")
def clip() -> LoadedClip:
    return load_clip("tiny", "random")


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """float32 is float32, as in a run with that precision."""
    with using_device(CUDA, "float32"):
        yield


def random_pixels(num_images: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_images, 96, 48, 3), dtype=torch.uint8, generator=generator)


def test_waiting_would_be_noticed():
    with waiting_refused(), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(2, device=CUDA).sum().item()


def test_a_gpu_is_what_auto_means_here():
    assert resolve_device("auto").type == "cuda"
    assert resolve_precision("auto", resolve_device("auto")) == "bfloat16"


class TestPixels:
    @pytest.mark.parametrize("normalisation", ["imagenet", "clip"])
    def test_preprocessing_gives_the_same_numbers(self, normalisation):
        pixels = random_pixels(6)
        found = preprocess(pixels.to(CUDA), normalisation)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.cpu(), preprocess(pixels, normalisation), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("modality", list(Modality))
    @pytest.mark.parametrize("recipe", ["cclnet_sysu", "cclnet_regdb"])
    def test_the_same_draws_change_images_alike(self, modality, recipe):
        pixels = random_pixels(16)
        expected, found = (
            augment(batch, modality, recipe=recipe, generator=torch.Generator().manual_seed(3))
            for batch in (pixels, pixels.to(CUDA))
        )
        assert found.device.type == "cuda"
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)

    def test_changing_images_does_not_wait(self):
        pixels, generator = random_pixels(16).to(CUDA), torch.Generator().manual_seed(3)
        for modality in Modality:
            augment(pixels, modality, recipe="cclnet_sysu", generator=generator)  # the statistics get there
        with waiting_refused():
            for modality in Modality:
                augment(pixels, modality, recipe="cclnet_sysu", generator=generator)


class TestSupply:
    BATCHES = ([0, 5, 5], [10, 2, 1], [], [7])

    @pytest.mark.parametrize("way", WAYS)
    def test_batches_are_those_of_the_store(self, way, monkeypatch):
        monkeypatch.setattr(pixel_supply, "_CHUNK", 4)
        images = random_images(11, Modality.VISIBLE)
        batches = [np.array(batch, dtype=np.int64) for batch in self.BATCHES]
        found = list(way(images, CUDA).batches(batches))
        assert [pixels.device for pixels in found] == [CUDA] * 4
        for pixels, batch in zip(found, batches, strict=True):
            np.testing.assert_array_equal(pixels.cpu().numpy(), gather_pixels(images, batch))

    def test_many_batches_in_flight_stay_what_they_are(self):
        # Host buffers are used again: a copy that had not ended would show the pixels of a later batch.
        images = random_images(40, Modality.INFRARED)
        generator = np.random.default_rng(0)
        batches = [generator.integers(0, 40, 32) for _ in range(60)]
        sums = [pixels.long().sum() for pixels in StreamedPixels(images, CUDA).batches(batches)]
        expected = [gather_pixels(images, batch).astype(np.int64).sum() for batch in batches]
        assert [int(total) for total in sums] == expected

    @pytest.mark.parametrize(("share", "way"), [(0.5, ResidentPixels), (0.0, StreamedPixels)])
    def test_images_that_fit_are_kept_on_the_gpu(self, share, way):
        images = PerModality.build(lambda modality: random_images(11, modality))
        supplies = supply_pixels(images, CUDA, memory_share=share)
        assert [type(supply) for supply in supplies] == [way, way]


class TestExtraction:
    def extract(self, encoder, images, device, **options):
        return extract_features(
            encoder.to(device),
            images,
            heads=HEADS,
            batch_size=8,
            device=device,
            normalisation="imagenet",
            **options,
        )

    @pytest.mark.parametrize("flip", ["none", "mean", "concat"])
    @pytest.mark.parametrize("way", WAYS)
    def test_features_in_float32_are_those_of_the_cpu(self, clip, way, flip):
        encoder, images = small_training(clip).encoder, random_images(30, Modality.INFRARED)
        expected = self.extract(encoder, images, CPU, flip=flip)
        found = self.extract(copy.deepcopy(encoder), images, CUDA, flip=flip, pixels=way(images, CUDA))
        np.testing.assert_allclose(found.vectors, expected.vectors, rtol=0, atol=1e-4)
        assert encoder_digest(encoder) == encoder_digest(copy.deepcopy(encoder).to(CPU))

    def test_features_in_bfloat16_point_the_same_way(self, clip):
        encoder, images = small_training(clip).encoder, random_images(30, Modality.VISIBLE)
        expected = self.extract(encoder, images, CPU).vectors
        found = self.extract(copy.deepcopy(encoder), images, CUDA, precision="bfloat16").vectors
        assert found.dtype == np.float32
        # Two unit rows side by side: the inner product of equal ones is 2.
        assert (found * expected).sum(axis=1).min() > 2 * 0.99

    def test_a_network_that_is_compiled_gives_the_same_features(self, clip, request):
        if importlib.util.find_spec("triton") is None:
            pytest.skip("torch.compile needs triton on a GPU")
        request.addfinalizer(torch.compiler.reset)
        encoder, images = small_training(clip, device=CUDA).encoder, random_images(16, Modality.VISIBLE)
        compiled = copy.deepcopy(encoder)
        compiled.compile_network()
        expected, found = (self.extract(net, images, CUDA).vectors for net in (encoder, compiled))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)
        assert list(compiled.state_dict()) == list(encoder.state_dict())


class TestMemories:
    @pytest.mark.parametrize(("mode", "update"), [("released", "momentum"), ("exchange", "hard")])
    def test_updates_and_swaps_are_those_of_the_cpu(self, mode, update):
        rule = memory_update(update, 0.1)
        on_cpu, on_gpu = (
            PerModality(
                PrototypeMemory(unit_rows(40, 64, seed=0).to(device)),
                PrototypeMemory(unit_rows(30, 64, seed=1).to(device)),
            )
            for device in (CPU, CUDA)
        )
        swaps = [CrossModalSwap(mode=mode, min_similarity=-1.0) for _ in range(2)]
        generator = np.random.default_rng(0)
        for step in range(6):
            labels = PerModality(*(torch.from_numpy(generator.integers(0, count, 16)) for count in (40, 30)))
            features = PerModality(unit_rows(16, 64, seed=2 * step + 2), unit_rows(16, 64, seed=2 * step + 3))
            counts = []
            for memories, swap, device in zip((on_cpu, on_gpu), swaps, (CPU, CUDA), strict=True):
                memories.map_with(lambda memory, f, y, d=device: memory.update(f.to(d), y, rule), features, labels)
                swap.prepare(memories, labels)
                counts.append(swap.settle())
            assert counts[0] == counts[1]
            assert counts[0].written > 0
            for one, other in zip(on_cpu, on_gpu, strict=True):
                torch.testing.assert_close(other.prototypes.cpu(), one.prototypes, rtol=0, atol=1e-6)
        assert swaps[0].pairing.num_solved == swaps[1].pairing.num_solved

    @pytest.mark.parametrize("update", ["momentum", "hard"])
    def test_an_update_and_a_swap_do_not_wait(self, update):
        rule = memory_update(update, 0.1)
        memories = PerModality.build(
            lambda modality: PrototypeMemory(unit_rows(40, 64, seed=list(Modality).index(modality)).to(CUDA))
        )
        swap, features = CrossModalSwap(min_similarity=-1.0), unit_rows(16, 64, seed=2).to(CUDA)
        labels = PerModality(torch.arange(16) % 5, torch.arange(16) % 7)

        def step() -> int:
            memories.map_with(lambda memory, y: memory.update(features, y, rule), labels)
            swap.prepare(memories, labels)
            return swap.settle().written

        step()
        with waiting_refused():
            assert step() > 0


class TestEpoch:
    FLAGS = pytest.mark.parametrize(
        ("with_text", "with_swap"), [(False, False), (True, True)], ids=["bare", "text and swap"]
    )

    @FLAGS
    @pytest.mark.parametrize("resident", [False, True])
    def test_losses_in_float32_are_those_of_the_cpu(self, clip, with_text, with_swap, resident):
        options = {"with_text": with_text, "with_swap": with_swap}
        expected = small_training(clip, **options).train()
        found = small_training(clip, device=CUDA, resident=resident, **options).train()
        assert found == pytest.approx(expected, rel=1e-3)

    def test_memories_in_float32_are_those_of_the_cpu(self, clip):
        expected, found = (small_training(clip, device=device, with_swap=True) for device in (CPU, CUDA))
        expected.train()
        found.train()
        for one, other in zip(expected.memories, found.memories, strict=True):
            assert functional.cosine_similarity(one.prototypes, other.prototypes.cpu()).min() > 0.999

    @FLAGS
    def test_losses_in_bfloat16_are_within_a_twentieth(self, clip, with_text, with_swap):
        options = {"with_text": with_text, "with_swap": with_swap}
        expected = small_training(clip, **options).train()
        found = small_training(clip, device=CUDA, resident=True, **options).train(precision="bfloat16")
        assert all(np.isfinite(value) for value in found.values())
        assert found == pytest.approx(expected, rel=0.05)

    def test_the_same_epoch_twice_differs_by_rounding_only(self, clip):
        one, other = (small_training(clip, device=CUDA, with_text=True, with_swap=True).train() for _ in range(2))
        assert one == pytest.approx(other, rel=1e-3)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("resident", [False, True])
    @FLAGS
    def test_no_step_waits_for_the_gpu(self, clip, with_text, with_swap, resident, precision):
        training = small_training(clip, device=CUDA, with_text=with_text, with_swap=with_swap, resident=resident)
        training.run(training.plan(), precision=precision)  # kernels are loaded, optimiser and statistics are made
        steps = training.plan()
        with waiting_refused():
            sums = training.run(steps, precision=precision)
        assert all(value.device.type == "cuda" and value.dtype == torch.float32 for value in sums.values())
        assert all(torch.isfinite(value) for value in sums.values())

    def test_an_optimiser_on_a_gpu_is_one_kernel(self, clip):
        assert small_training(clip, device=CUDA).optimiser.defaults["fused"]

    def test_a_loss_that_is_not_finite_ends_the_epoch(self, clip):
        training = small_training(clip, device=CUDA, with_text=True, with_swap=True)
        calls = []

        def spoil(images: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return images * (torch.nan if len(calls) == 1 else 1.0)

        with pytest.raises(TrainingError, match="the loss is not finite"):
            training.train(training.views(spoil))

    def test_a_batch_that_does_not_fit_names_one_that_does(self, clip, monkeypatch):
        training = small_training(clip, device=CUDA, images_per_cluster=8)
        original = training.encoder.forward

        def forward(images, heads):
            if sum(images.map(len)) > 20:  # 3 clusters of 8 images twice are 48; of 4, 24; of 2, 12
                torch.empty(2**50, dtype=torch.uint8, device=CUDA)
            return original(images, heads)

        monkeypatch.setattr(training.encoder, "forward", forward)
        with pytest.raises(TrainingError, match="cuda:0 has too little memory") as caught:
            training.train()
        assert "batches.images_per_cluster=2" in caught.value.hint


def test_prompts_learned_on_a_gpu_are_those_of_the_cpu(clip):
    labels = PerModality(np.array([0, 0, 1, 1, -1, 2, 2, 0]), np.array([1, 0, 0, 1, -1]))
    images = labels.map(lambda own: torch.randn(len(own), 32, generator=torch.Generator().manual_seed(len(own))))

    def learn(device: torch.device):
        return learn_prompts(
            images.map(lambda rows: rows.to(device)),
            labels,
            TextTower.from_clip(clip).to(device),
            num_context=4,
            epochs=3,
            batch_size=4,
            learning_rate=1e-3,
            warmup_epochs=1,
            weight_decay=1e-4,
            previous=None,
            init_generator=lambda modality: torch_generator(1, "init", modality),
            batch_generator=lambda epoch: numpy_generator(1, "batches", epoch),
        )

    expected, found = learn(CPU), learn(CUDA)
    for one, other in zip(expected, found, strict=True):
        assert other.features.device.type == other.context.device.type == "cuda"
        cosines = functional.cosine_similarity(other.features.cpu(), one.features)
        assert cosines.min().item() > 1 - 1e-4
        torch.testing.assert_close(other.context.cpu(), one.context, rtol=0, atol=1e-3)


def test_synchronised_norms_are_torchs_own_and_compute_the_same_in_a_process_alone(clip):
    encoder = DualStemEncoder.from_clip(clip, image_height=SIZE[0], image_width=SIZE[1]).to(CUDA)
    synchronised = copy.deepcopy(encoder)
    synchronise_batch_norms(synchronised, CUDA)
    assert isinstance(synchronised.neck, nn.SyncBatchNorm)
    assert isinstance(synchronised.trunk.get_submodule("layer1.0.bn1"), nn.SyncBatchNorm)
    assert list(synchronised.state_dict()) == list(encoder.state_dict())
    pixels = torch.from_numpy(gather_pixels(random_images(8, Modality.VISIBLE), np.arange(8))).to(CUDA)
    for mode in (True, False):
        one, other = (
            net.train(mode).encode(preprocess(pixels, "imagenet"), Modality.VISIBLE, heads=frozenset(HEADS))
            for net in (encoder, synchronised)
        )
        torch.testing.assert_close(other.neck, one.neck, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(other.projection, one.projection, rtol=1e-3, atol=1e-4)
