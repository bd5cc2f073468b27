"""Feature extraction: order, one pass an image, unit rows, mirrored images, and an encoder left as it was."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import Modality, PerModality
from pipeline import features
from pipeline.data.images import TestImages, TrainingImages
from pipeline.data.transforms.augmentation import preprocess
from pipeline.errors import TrainingError
from pipeline.features import encoder_digest, extract_features
from pipeline.runtime.distributed import Processes

CPU = torch.device("cpu")


class FakeEncoder(nn.Module):
    """Features are the means of the left and of the right half of the first channel; it notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.norm = nn.BatchNorm1d(2)
        self.frozen = nn.Dropout(0.5)
        self.calls: list[tuple[int, Modality, frozenset[Head]]] = []

    def encode(self, images: torch.Tensor, modality: Modality, *, heads: frozenset[Head]) -> Encoded:
        self.calls.append((len(images), modality, heads))
        half = images.shape[3] // 2
        means = torch.stack([images[:, 0, :, :half].mean((1, 2)), images[:, 0, :, half:].mean((1, 2))], dim=1)
        means = self.frozen(self.norm(means * self.scale))
        return Encoded(
            neck=means if Head.NECK in heads else None,
            projection=means if Head.PROJECTION in heads else None,
            pooled=None,
        )


def some_images(num_images: int = 10, *, seed: int = 0) -> TrainingImages:
    """Random pixels of 4 x 6, more rows than images, in a random order."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (num_images + 3, 4, 6, 3), dtype=np.uint8)
    rows = generator.permutation(num_images + 3)[:num_images]
    return TrainingImages(pixels, rows, np.ones(num_images, dtype=np.int64), Modality.INFRARED)


def half_means(images: TrainingImages) -> np.ndarray:
    """What the fake encoder sees of each image, in float64 and one image at a time."""
    means = []
    for row in images.rows:
        red = (images.pixels[row, :, :, 0].astype(np.float64) / 255 - 0.485) / 0.229  # ImageNet's red channel
        means.append([red[:, :3].mean(), red[:, 3:].mean()])
    return np.array(means) / math.sqrt(1 + 1e-5)  # batch norm with mean 0, variance 1


def extract(
    encoder: nn.Module, images, *, heads: tuple[Head, ...] = (Head.PROJECTION,), batch_size: int = 4, flip="none"
):
    return extract_features(
        encoder,
        images,
        heads=heads,
        batch_size=batch_size,
        device=CPU,
        normalisation="imagenet",
        flip=flip,
        description="encode",
    )


class TestValues:
    def test_features_come_in_the_order_of_the_images(self):
        images = some_images()
        bank = extract(FakeEncoder(), images)
        np.testing.assert_allclose(bank.vectors, half_means(images), atol=1e-5)
        assert bank.modality is Modality.INFRARED
        assert bank.vectors.dtype == np.float32

    def test_neck_features_are_unit_rows_and_projections_are_raw(self):
        images = some_images()
        raw = half_means(images)
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(extract(FakeEncoder(), images, heads=(Head.NECK,)).vectors, unit, atol=1e-5)
        assert not np.allclose(np.linalg.norm(raw, axis=1), 1)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 1000))
    def test_the_batch_size_changes_nothing(self, num_images, batch_size, seed):
        images = some_images(num_images, seed=seed)
        bank = extract(FakeEncoder(), images, batch_size=batch_size)
        np.testing.assert_allclose(bank.vectors, half_means(images), atol=1e-5)

    def test_test_images_keep_the_rows_of_their_table(self):
        pixels = some_images().pixels
        rows = np.arange(len(pixels))
        images = TestImages(pixels, rows, np.ones(len(pixels), dtype=np.int64), Modality.VISIBLE)
        same = TrainingImages(pixels, rows, images.cameras, Modality.VISIBLE)
        np.testing.assert_allclose(extract(FakeEncoder(), images).vectors, half_means(same), atol=1e-5)

    def test_features_held_back_are_all_copied(self, monkeypatch):
        monkeypatch.setattr(features, "HELD_BYTES", 1)
        images = some_images()
        np.testing.assert_allclose(extract(FakeEncoder(), images).vectors, half_means(images), atol=1e-5)


def test_several_heads_stand_side_by_side_each_of_unit_length():
    images = some_images()
    both = extract(FakeEncoder(), images, heads=(Head.NECK, Head.PROJECTION))
    # The fake encoder gives both heads the same numbers, so both halves are the same unit rows.
    expected = half_means(images)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(both.vectors, np.hstack([expected, expected]), atol=1e-5)


def test_mirrored_features_of_several_heads_follow_after_all_heads():
    images = some_images(3)
    heads = (Head.NECK, Head.PROJECTION)
    both = extract(FakeEncoder(), images, heads=heads, flip="concat").vectors
    plain = extract(FakeEncoder(), images, heads=heads).vectors
    assert both.shape == (3, 8)
    np.testing.assert_allclose(both[:, :4], plain, atol=1e-6)
    # Mirroring exchanges left and right half, hence the two components of each head.
    np.testing.assert_allclose(both[:, 4:], plain[:, [1, 0, 3, 2]], atol=1e-5)


class TestFlip:
    def one_image(self) -> TestImages:
        """Left half red 40, right half red 200."""
        pixels = np.zeros((1, 4, 6, 3), dtype=np.uint8)
        pixels[0, :, :3, 0], pixels[0, :, 3:, 0] = 40, 200
        return TestImages(pixels, np.array([0]), np.array([1]), Modality.VISIBLE)

    def test_mean_averages_the_image_with_its_mirror_image(self):
        left, right = half_means(self.one_image())[0]
        projection = extract(FakeEncoder(), self.one_image(), flip="mean").vectors
        # Mirroring exchanges the halves: the mean of (l, r) and (r, l).
        np.testing.assert_allclose(projection, [[(left + right) / 2] * 2], atol=1e-5)
        neck = extract(FakeEncoder(), self.one_image(), heads=(Head.NECK,), flip="mean").vectors
        # Both components are equal: a unit row has 1 / sqrt 2 in each, with the sign of the sum (l = -1.4, r = 1.3).
        np.testing.assert_allclose(neck, [[math.copysign(math.sqrt(0.5), left + right)] * 2], atol=1e-4)

    def test_concat_puts_both_side_by_side(self):
        left, right = half_means(self.one_image())[0]
        projection = extract(FakeEncoder(), self.one_image(), flip="concat").vectors
        np.testing.assert_allclose(projection, [[left, right, right, left]], atol=1e-5)
        neck = extract(FakeEncoder(), self.one_image(), heads=(Head.NECK,), flip="concat").vectors
        # Two unit rows side by side have length sqrt 2.
        unit = np.array([left, right, right, left]) / math.hypot(left, right) / math.sqrt(2)
        np.testing.assert_allclose(neck, [unit], atol=1e-5)


class TestEncoderUse:
    def test_each_image_is_encoded_once_and_only_the_head_asked_for(self):
        encoder = FakeEncoder()
        extract(encoder, some_images(10), batch_size=4, heads=(Head.NECK,))
        expected = [(size, Modality.INFRARED, frozenset({Head.NECK})) for size in (4, 4, 2)]
        assert encoder.calls == expected

    def test_the_encoder_comes_back_as_it_was_part_by_part(self):
        encoder = FakeEncoder().train()
        encoder.frozen.eval()
        before = copy.deepcopy(encoder.state_dict())
        extract(encoder, some_images())
        assert (encoder.training, encoder.norm.training, encoder.frozen.training) == (True, True, False)
        assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
        assert encoder.scale.requires_grad
        assert torch.is_grad_enabled()

    def test_the_encoder_comes_back_as_it_was_after_an_error(self, monkeypatch):
        encoder = FakeEncoder().train()

        def fail(*args, **kwargs):
            raise ValueError("wrong size")

        monkeypatch.setattr(encoder, "encode", fail)
        with pytest.raises(ValueError, match="wrong size"):
            extract(encoder, some_images())
        assert encoder.norm.training
        assert torch.is_grad_enabled()

    def test_features_that_are_not_finite_name_the_first_row(self):
        encoder, images = FakeEncoder(), some_images()
        original = encoder.encode
        broken = {float(half_means(images)[row, 0]) for row in (7, 3)}

        def encode(batch, modality, *, heads):
            encoded = original(batch, modality, heads=heads)
            for index, vector in enumerate(encoded.projection):
                if any(abs(vector[0].item() - value) < 1e-5 for value in broken):
                    encoded.projection[index, 1] = float("nan")
            return encoded

        encoder.encode = encode
        with pytest.raises(TrainingError, match="2 of 10 infrared features are not finite, first: row 3"):
            extract(encoder, images)

    @pytest.mark.parametrize(
        ("largest", "hint"), [(1, "1 fit: --set execution.extraction_batch_size=1"), (0, "not even one fits")]
    )
    def test_too_little_memory_is_an_error_that_names_the_batch_that_fits(self, largest, hint):
        encoder = FakeEncoder()
        real = encoder.encode

        def encode(batch, modality, *, heads):
            if len(batch) > largest:
                raise torch.OutOfMemoryError("no room")
            return real(batch, modality, heads=heads)

        encoder.encode = encode
        with pytest.raises(TrainingError, match="encode 4 images at once") as caught:
            extract(encoder, some_images())
        assert caught.value.hint.startswith(hint)

    def test_fewer_images_than_processes_are_refused(self):
        with pytest.raises(TrainingError, match="2 infrared images cannot be shared by 3 processes"):
            extract_features(
                FakeEncoder(), some_images(2), heads=(Head.NECK,), batch_size=4, device=CPU, normalisation="imagenet",
                processes=Processes(0, 3),
            )  # fmt: skip

    def test_the_projects_own_encoder_is_one(self):
        stem = nn.Conv2d(3, 5, 3)
        encoder = DualStemEncoder(
            PerModality(copy.deepcopy(stem), copy.deepcopy(stem)),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Identity(),
            nn.Linear(5, 2),
            nn.BatchNorm1d(5),
            (4, 6),
        )
        nn.init.normal_(encoder.stems["infrared"].weight, generator=torch.Generator().manual_seed(1))
        images = some_images(3)
        bank = extract(encoder, images, heads=(Head.NECK,))
        with torch.no_grad():
            inputs = preprocess(torch.from_numpy(images.pixels[images.rows]), "imagenet")
            neck = encoder.eval().encode(inputs, Modality.INFRARED, heads=frozenset({Head.NECK})).neck
        np.testing.assert_allclose(bank.vectors, nn.functional.normalize(neck), atol=1e-6)


class TestDigest:
    def test_it_names_the_weights_that_made_the_features(self):
        encoder = FakeEncoder()
        before = encoder_digest(encoder)
        extract(encoder, some_images())
        assert before == encoder_digest(encoder) == encoder_digest(copy.deepcopy(encoder).eval())
        assert len(before) == 16

    def test_extraction_does_not_compute_it(self, monkeypatch):
        monkeypatch.setattr("hashlib.sha256", None)
        assert len(extract(FakeEncoder(), some_images()).vectors) == 10

    def test_a_parameter_or_a_buffer_changes_it(self):
        encoder = FakeEncoder()
        digests = [encoder_digest(encoder)]
        with torch.no_grad():
            encoder.scale[1] += 1e-6
        digests.append(encoder_digest(encoder))
        encoder.norm.num_batches_tracked += 1
        digests.append(encoder_digest(encoder))
        assert len(set(digests)) == 3

    def test_the_order_of_values_in_memory_does_not_change_it(self):
        encoder = FakeEncoder()
        encoder.convolution = nn.Conv2d(3, 4, 3)
        expected = encoder_digest(encoder)
        encoder.convolution.to(memory_format=torch.channels_last)
        assert not encoder.convolution.weight.is_contiguous()
        assert encoder_digest(encoder) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("held_bytes", [1, 2**20])
def test_a_gpu_gives_the_same_features(monkeypatch, held_bytes):
    monkeypatch.setattr(features, "HELD_BYTES", held_bytes)
    images = some_images(50)
    on_gpu = extract_features(
        FakeEncoder().cuda(),
        images,
        heads=(Head.PROJECTION,),
        batch_size=8,
        device=torch.device("cuda"),
        normalisation="imagenet",
    )
    np.testing.assert_allclose(on_gpu.vectors, half_means(images), atol=1e-4)
