"""Fusions against attention written out person by person, in value and gradient; their first weights; their dropout."""

import math

import pytest
import torch
from torch import nn

from models.fusion import AttentionFusion, ConcatFusion, ResidualFusion, SumFusion, build_fusion
from tests.reference import fusion as reference

WIDTH = 6
KINDS = ["residual_mlp", "sum", "concat", "attn2"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make(kind, seed=0, dropout=0.0, width=WIDTH):
    return build_fusion(kind, width, dropout, seeded(seed)).double()


def texts(seed, people=4, width=WIDTH):
    return torch.randn(people, width, generator=seeded(seed), dtype=torch.float64)


def output_and_gradients(fuse, visible, infrared, parameters):
    """Of a loss that weighs every number of the output differently."""
    visible, infrared = visible.clone().requires_grad_(), infrared.clone().requires_grad_()
    fused = fuse(visible, infrared)
    loss = (fused * torch.linspace(-1.0, 2.0, fused.numel(), dtype=fused.dtype).view_as(fused)).sum()
    return fused.detach(), torch.autograd.grad(loss, [visible, infrared, *parameters])


def leaves_of(fusion):
    return {name: value.detach().clone().requires_grad_() for name, value in fusion.named_parameters()}


def assert_same(fusion, written_out):
    visible, infrared = texts(1), texts(2)
    fused, gradients = output_and_gradients(fusion, visible, infrared, list(fusion.parameters()))
    leaves = leaves_of(fusion)
    expected, expected_gradients = output_and_gradients(
        lambda v, r: written_out(leaves, v, r), visible, infrared, list(leaves.values())
    )
    assert torch.allclose(fused, expected, atol=1e-12, rtol=0)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(gradient, other, atol=1e-11, rtol=0)


@pytest.mark.parametrize(
    ("kind", "made"),
    [("residual_mlp", ResidualFusion), ("sum", SumFusion), ("concat", ConcatFusion), ("attn2", AttentionFusion)],
)
def test_each_name_makes_its_fusion_of_one_text_a_person(kind, made):
    fusion = build_fusion(kind, WIDTH, 0.1, seeded(0))
    assert type(fusion) is made and fusion.training
    assert fusion(texts(1).float(), texts(2).float()).shape == (4, WIDTH)


def test_residual_mlp_equals_attention_over_a_sequence_of_one():
    fusion = make("residual_mlp")
    others = make("attn2", seed=9)  # any weights will do for queries and keys
    visible, infrared = texts(1), texts(2)
    leaves = leaves_of(others) | leaves_of(fusion)
    names = [*(name for name, _ in fusion.named_parameters()), "query.weight", "query.bias", "key.weight", "key.bias"]
    fused, gradients = output_and_gradients(fusion, visible, infrared, list(fusion.parameters()))
    expected, expected_gradients = output_and_gradients(
        lambda v, r: reference.attention_over_the_infrared_text(leaves, v, r),
        visible,
        infrared,
        [leaves[name] for name in names],
    )
    assert torch.allclose(fused, expected, atol=1e-12, rtol=0)
    for gradient, other in zip(gradients, expected_gradients[: len(gradients)], strict=True):
        assert torch.allclose(gradient, other, atol=1e-11, rtol=0)
    # The weight of an only key is 1 whatever it is: queries and keys have nothing to learn from.
    unused = expected_gradients[len(gradients) :]
    assert len(unused) == 4 and all(gradient.abs().max() < 1e-15 for gradient in unused)


def test_attn2_equals_attention_written_out_over_both_texts():
    assert_same(make("attn2"), reference.attention_over_both_texts)


def test_concat_equals_its_map_written_out():
    assert_same(make("concat"), reference.linear_map_of_both_texts)


def test_the_sum_adds_each_persons_texts():
    visible, infrared = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    assert make("sum")(visible, infrared).tolist() == [[11.0, 22.0], [33.0, 44.0]]


def test_attn2_is_no_residual_mlp_and_learns_what_to_look_for():
    fusion, residual = make("attn2"), make("residual_mlp")
    residual.load_state_dict({name: fusion.state_dict()[name] for name in residual.state_dict()})
    visible, infrared = texts(1), texts(2)
    fused, gradients = output_and_gradients(fusion, visible, infrared, list(fusion.query.parameters()))
    assert (fused - residual(visible, infrared)).abs().max() > 1e-3
    assert gradients[2].abs().max() > 1e-3  # the query's weight, after the two texts


def test_two_equal_texts_are_read_half_and_half():
    visible = texts(1)
    shares = make("attn2").attention(visible, visible)
    assert torch.allclose(shares, torch.full_like(shares, 0.5), atol=1e-12, rtol=0)


def test_attention_prefers_the_text_that_is_looked_for():
    # Width 1: query tanh(10) = 1, keys tanh(10) = 1 and tanh(-10) = -1, so the scores are 1 and -1 and the first text
    # is read with exp(1) / (exp(1) + exp(-1)) = 1 / (1 + exp(-2)).
    fusion = make("attn2", width=1)
    for part in (fusion.query, fusion.key):
        nn.init.ones_(part.weight)
        nn.init.zeros_(part.bias)
    ten = torch.full((1, 1), 10.0, dtype=torch.float64)
    share = 1 / (1 + math.exp(-2))
    assert fusion.attention(ten, -ten)[0].tolist() == pytest.approx([share, 1 - share], abs=1e-6)


@pytest.mark.parametrize(("kind", "numbers"), [("residual_mlp", 84), ("sum", 0), ("concat", 78), ("attn2", 168)])
def test_no_weight_exists_that_does_nothing(kind, numbers):
    # A square map of width 6 has 36 + 6 numbers: two, none, one from twice the width (72 + 6), and four.
    fusion = make(kind)
    assert sum(parameter.numel() for parameter in fusion.parameters()) == numbers
    if numbers:
        parameters = list(fusion.parameters())
        _, gradients = output_and_gradients(fusion, texts(1), texts(2), parameters)
        assert all(gradient.abs().max() > 1e-6 for gradient in gradients)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [("residual_mlp", [(6, 6)] * 2), ("concat", [(12, 6)]), ("attn2", [(6, 6)] * 4)],
)
def test_first_weights_are_those_of_torchs_linear_layers_drawn_from_the_generator(kind, layers):
    before = torch.random.get_rng_state()
    fusion = build_fusion(kind, WIDTH, 0.1, seeded(7))
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(7)
        expected = [parameter for size in layers for parameter in nn.Linear(*size).parameters()]
    for parameter, other in zip(fusion.parameters(), expected, strict=True):
        assert torch.allclose(parameter, other, atol=1e-7, rtol=0) and parameter.requires_grad


@pytest.mark.parametrize("kind", ["residual_mlp", "concat", "attn2"])
def test_the_generator_decides_the_weights(kind):
    first, again, other = (next(make(kind, seed=seed).parameters()) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def with_bare_output(kind, dropout):
    """A fusion whose last layer changes nothing, so that what is added to the visible text can be looked at."""
    fusion = make(kind, dropout=dropout)
    nn.init.eye_(fusion.output.weight)
    nn.init.zeros_(fusion.output.bias)
    return fusion


def test_dropout_of_residual_mlp_clears_hidden_values_and_scales_the_rest():
    fusion = with_bare_output("residual_mlp", 0.25)
    visible, infrared = texts(1, people=200), texts(2, people=200)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        added = fusion(visible, infrared) - visible
    share = added / torch.tanh(fusion.value(infrared))
    is_kept = (share - 1 / 0.75).abs() < 1e-6
    assert bool((is_kept | (share.abs() < 1e-6)).all())
    # 1200 values, each kept with 3/4: 0.75 with a deviation of 0.0125.
    assert is_kept.double().mean().item() == pytest.approx(0.75, abs=0.05)


def test_dropout_of_attn2_clears_single_values_and_leaves_the_attention_whole():
    # Two equal texts are read half and half and have equal values. Of each value's two copies 0, 1 or 2 are kept: what
    # is added is 0, 1/2 or 1 times value / (1 - 0.25), with probabilities 1/16, 6/16 and 9/16.
    fusion = with_bare_output("attn2", 0.25)
    same = texts(1, people=200)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        added = fusion(same, same) - same
    copies = 2 * 0.75 * added / torch.tanh(fusion.value(same))
    assert torch.allclose(copies, copies.round(), atol=1e-6)
    counts = [(copies.round() == n).double().mean().item() for n in (0, 1, 2)]
    assert counts == pytest.approx([1 / 16, 6 / 16, 9 / 16], abs=0.06)
    infrared = texts(2, people=200)
    assert torch.equal(fusion.attention(same, infrared), fusion.attention(same, infrared))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_dropped_outside_of_training(kind):
    visible, infrared = texts(1), texts(2)
    dropping, whole = make(kind, dropout=0.5), make(kind)
    assert torch.equal(dropping.eval()(visible, infrared), whole(visible, infrared))


@pytest.mark.parametrize("kind", KINDS)
def test_a_persons_text_depends_on_that_person_alone(kind):
    visible, infrared = texts(1), texts(2)
    fusion = make(kind)
    alone = torch.cat([fusion(visible[i : i + 1], infrared[i : i + 1]) for i in range(4)])
    assert torch.allclose(fusion(visible, infrared), alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["residual_mlp", "attn2"])
@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_outside_of_its_range_is_refused(kind, dropout):
    with pytest.raises(ValueError, match="dropout must be in"):
        build_fusion(kind, WIDTH, dropout, seeded(0))
