"""Batch norms of an encoder: exact in training on a CPU, where torch's own lose digits in channels-last maps."""

import copy

import pytest
import torch
from torch import nn

from models.clip import load_clip
from models.encoder import DualStemEncoder, Head
from models.exact_batch_norm import ExactBatchNorm2d, make_batch_norms_exact
from models.modality import Modality
from pipeline.runtime.device import cpu_threads

SHAPES = {
    "demo": (128, 16, 24, 12),
    "288 x 144": (16, 64, 72, 36),
    "odd": (7, 5, 11, 13),
    "one image": (1, 6, 40, 30),
    "one cell": (100, 3, 1, 1),
    "131 cells, a prime": (131, 3, 1, 1),
    "one channel": (10, 1, 9, 9),
}


def maps_of(shape, *, offset=2.0):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, generator=generator).relu() + offset
    return maps.to(memory_format=torch.channels_last), torch.randn(shape, generator=generator)


def passes(norm, maps, weights):
    """Output, gradients and running statistics of one training pass."""
    maps = maps.detach().requires_grad_()
    output = norm(maps)
    (output * weights).sum().backward()
    return [output.detach(), maps.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]


def new_norm(kind, channels):
    norm = kind(channels)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(channels, generator=generator) + 0.5)
        norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm.train()


def errors(found, expected):
    return [((one - other).norm() / other.norm()).item() for one, other in zip(found, expected, strict=True)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_values_gradients_and_statistics_equal_float64(shape, threads):
    maps, weights = maps_of(shape)
    expected = passes(new_norm(nn.BatchNorm2d, shape[1]).double(), maps.double(), weights.double())
    with cpu_threads(threads):
        found = passes(new_norm(ExactBatchNorm2d, shape[1]), maps, weights)
    output, *gradients, mean, variance = errors(found, expected)
    assert max(output, mean, variance) < 1e-6
    assert max(gradients) < 1e-5, "the sums of the backward pass are torch's own"
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert (found[0] - expected[0]).abs().max() < 3e-6


def test_torchs_own_errs_more():
    maps, weights = maps_of(SHAPES["demo"])
    expected = passes(new_norm(nn.BatchNorm2d, 16).double(), maps.double(), weights.double())
    with cpu_threads(1):
        output, for_maps, *_ = errors(passes(new_norm(nn.BatchNorm2d, 16), maps, weights), expected)
    assert min(output, for_maps) > 1e-5


def test_a_large_mean_costs_no_more_digits_than_its_size():
    maps, weights = maps_of(SHAPES["demo"], offset=100.0)
    expected = passes(new_norm(nn.BatchNorm2d, 16).double(), maps.double(), weights.double())
    assert max(errors(passes(new_norm(ExactBatchNorm2d, 16), maps, weights), expected)) < 100 * 1e-6


@pytest.mark.parametrize("case", ["evaluation", "channels first", "float64", "frozen", "without weights", "momentum"])
def test_everything_else_is_torchs_own(case):
    maps, _ = maps_of((4, 5, 6, 7))
    options = {"without weights": {"affine": False}, "momentum": {"momentum": None}}.get(case, {})
    own, torchs = ExactBatchNorm2d(5, **options), nn.BatchNorm2d(5, **options)
    if case == "float64":
        own, torchs, maps = own.double(), torchs.double(), maps.double()
    if case == "channels first":
        maps = maps.contiguous()
    if case == "evaluation":
        own, torchs = own.eval(), torchs.eval()
    if case == "frozen":
        own, torchs = own.requires_grad_(False), torchs.requires_grad_(False)
    assert_same = torch.testing.assert_close if case == "frozen" else assert_equal
    assert_same(own(maps), torchs(maps))
    assert all(torch.allclose(one, other) for one, other in zip(own.buffers(), torchs.buffers(), strict=True))


def assert_equal(one, other):
    assert torch.equal(one, other)


def test_a_single_value_a_channel_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ExactBatchNorm2d(3)(torch.zeros(1, 3, 1, 1).to(memory_format=torch.channels_last))


def test_a_network_keeps_its_parameters_and_names():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)), nn.BatchNorm1d(4)).eval()
    parameters, names = list(network.parameters()), list(network.state_dict())
    make_batch_norms_exact(network)
    assert [type(network[1][0]), type(network[2])] == [ExactBatchNorm2d, nn.BatchNorm1d]
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    assert list(network.state_dict()) == names and not network[1][0].training


def test_features_of_the_demo_encoder_in_training_equal_those_in_float64():
    encoder = DualStemEncoder.from_clip(load_clip("demo", "demo"), image_height=96, image_width=48).train()
    torchs = copy.deepcopy(encoder)
    for module in torchs.modules():
        if type(module) is ExactBatchNorm2d:
            module.__class__ = nn.BatchNorm2d
    images = torch.randn(64, 3, 96, 48, generator=torch.Generator().manual_seed(2))
    images = images.to(memory_format=torch.channels_last)

    def features(network, batch):
        with torch.no_grad():
            return network.encode(batch, Modality.VISIBLE, heads=frozenset({Head.NECK})).neck

    expected = features(copy.deepcopy(torchs).double(), images.double())
    with cpu_threads(1):
        own, other = errors([features(encoder, images), features(torchs, images)], [expected, expected])
    assert own < 5e-6 < other
