"""Batch norm over several processes: in a process alone it is torch's own, and nothing that is saved changes."""

import copy

import pytest
import torch
from torch import nn

from models.batch_norm import SharedBatchNorm, synchronise_batch_norms
from models.clip import load_clip
from models.encoder import DualStemEncoder, Head
from models.modality import Modality

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPES = {"rows": (6, 5), "two rows": (2, 5), "sequences": (4, 5, 7), "maps": (3, 5, 4, 6), "one map": (1, 5, 4, 6)}
TORCHS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def random_like(shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(shape, **options):
    """Torch's batch norm with random weights and statistics in float64, and the shared one with the same."""
    norm = TORCHS[len(shape)](shape[1], dtype=torch.float64, **options)
    with torch.no_grad():
        for seed, parameter in enumerate(norm.parameters()):
            parameter.copy_(random_like((shape[1],), seed))
        norm.running_mean.copy_(random_like((shape[1],), 8))
        norm.running_var.copy_(random_like((shape[1],), 9).square() + 0.5)
    shared = nn.Sequential(copy.deepcopy(norm))
    synchronise_batch_norms(shared, CPU)
    assert type(shared[0]) is SharedBatchNorm
    return norm, shared[0]


def passes(norm, shape, num_passes):
    """Outputs and gradients of a few passes over shifted and stretched numbers; the loss treats all outputs alike."""
    found = []
    for seed in range(num_passes):
        values = (random_like(shape, seed + 20) * 3 + 100).requires_grad_()
        output = norm(values)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        (output.square() * weights).sum().backward()
        found += [output.detach(), values.grad]
    return found + [parameter.grad for parameter in norm.parameters()]


def assert_all_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        # Far from zero (100) torch's own one-pass variance is good to about ten digits.
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": 0.3, "eps": 1e-2}], ids=str)
def test_training_gives_the_values_gradients_and_statistics_of_torchs_own(shape, options):
    norm, shared = pair(shape, **options)
    assert_all_close(passes(shared, shape, 3), passes(norm, shape, 3))
    assert shared.state_dict().keys() == norm.state_dict().keys()
    assert_all_close(list(shared.state_dict().values()), list(norm.state_dict().values()))
    assert shared.num_batches_tracked.item() == 3


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_evaluation_uses_and_keeps_the_running_statistics(shape):
    norm, shared = (one.eval() for one in pair(shape))
    before = copy.deepcopy(shared.state_dict())
    assert_all_close(passes(shared, shape, 2), passes(norm, shape, 2))
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())


def test_mean_and_variance_by_hand():
    norm = nn.Sequential(nn.BatchNorm1d(1, eps=0.0, dtype=torch.float64))
    synchronise_batch_norms(norm, CPU)
    output = norm(torch.tensor([[1.0], [2.0], [6.0]], dtype=torch.float64))
    # Mean 3, squares 4 + 1 + 9 = 14: variance 14 / 3 in the pass, 14 / 2 in the running statistics, a tenth of each.
    scale = (3 / 14) ** 0.5
    assert output.ravel().tolist() == pytest.approx([-2 * scale, -scale, 3 * scale])
    assert norm[0].running_mean.item() == pytest.approx(0.3)
    assert norm[0].running_var.item() == pytest.approx(0.9 * 1 + 0.1 * 7)


def test_second_derivatives_are_not_needed_and_first_ones_pass_a_numerical_check():
    _, shared = pair((4, 5))
    values = random_like((4, 5), 0).requires_grad_()
    assert torch.autograd.gradcheck(shared, (values,))


def network():
    """Norms at several depths, one frozen, one in evaluation mode, one without weights, beside other parts."""
    parts = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sequential(nn.BatchNorm2d(4, affine=False)), nn.ReLU()),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.BatchNorm1d(4 * 2 * 2),
    ).train()
    parts[1].eval()
    parts[5].bias.requires_grad_(False)
    return parts


@pytest.mark.parametrize(("device", "kind"), [(CPU, SharedBatchNorm), (CUDA, nn.SyncBatchNorm)], ids=["cpu", "cuda"])
def test_parameters_names_and_flags_stay(device, kind):
    parts = network()  # stays on the CPU: nothing is computed here
    parameters, buffers = dict(parts.named_parameters()), dict(parts.named_buffers())
    names = list(parts.state_dict())
    modes = {name: module.training for name, module in parts.named_modules()}
    wanted = {name: parameter.requires_grad for name, parameter in parts.named_parameters()}
    others = {
        name: module
        for name, module in parts.named_modules()
        if not isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    synchronise_batch_norms(parts, device)
    assert [type(parts.get_submodule(name)) for name in ("1", "2.1.0", "5")] == [kind] * 3
    assert list(parts.state_dict()) == names
    assert {name: module.training for name, module in parts.named_modules()} == modes
    assert {name: parameter.requires_grad for name, parameter in parts.named_parameters()} == wanted
    assert wanted["5.bias"] is False
    assert all(parameter is parameters[name] for name, parameter in parts.named_parameters())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in parts.named_buffers())
    assert all(parts.get_submodule(name) is module for name, module in others.items())


def test_doing_it_twice_changes_nothing():
    parts = network()
    synchronise_batch_norms(parts, CPU)
    names, weight = list(parts.state_dict()), parts[1].weight
    synchronise_batch_norms(parts, CPU)
    assert list(parts.state_dict()) == names
    assert parts[1].weight is weight
    assert type(parts[1]) is SharedBatchNorm


def test_an_optimiser_that_was_made_before_trains_the_same_parameters():
    parts = network()
    optimiser = torch.optim.SGD([parameter for parameter in parts.parameters() if parameter.requires_grad], lr=0.1)
    synchronise_batch_norms(parts, CPU)
    before = parts[5].weight.detach().clone()
    parts(torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    parts[5].weight.grad = torch.ones_like(before)
    optimiser.step()
    torch.testing.assert_close(parts[5].weight, before - 0.1)


def test_an_encoder_computes_the_same_with_shared_norms_and_loads_its_old_weights():
    clip = load_clip("tiny", "random")
    encoder = DualStemEncoder.from_clip(clip, image_height=48, image_width=32).double()
    shared = copy.deepcopy(encoder)
    synchronise_batch_norms(shared, CPU)
    assert not any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in shared.modules())
    shared.load_state_dict(encoder.state_dict())
    images = random_like((4, 3, 48, 32), 0)
    for mode in (True, False):
        one, other = (
            net.train(mode).encode(images, Modality.VISIBLE, heads=frozenset({Head.NECK})).neck
            for net in (encoder, shared)
        )
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    found, expected = shared.state_dict(), encoder.state_dict()
    assert all(torch.allclose(found[name].double(), value.double(), atol=1e-12) for name, value in expected.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_torchs_own_synchronised_norm_computes_the_same_in_a_process_alone():
    parts = network().cuda()
    synchronised = copy.deepcopy(parts)
    synchronise_batch_norms(synchronised, CUDA)
    images = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)).cuda()
    for mode in (True, False):
        torch.testing.assert_close(synchronised.train(mode)(images), parts.train(mode)(images), rtol=1e-4, atol=1e-5)
    found, expected = synchronised.state_dict(), parts.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
