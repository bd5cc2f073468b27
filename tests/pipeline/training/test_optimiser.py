"""Learning rates against the published tables, and which parameter gets which of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.clip import load_clip
from models.encoder import DualStemEncoder
from models.person_heads import PersonClassifier, prepare_for_people
from pipeline.training.optimiser import (
    build_image_optimiser,
    build_person_optimiser,
    cosine_warmup,
    image_learning_rate,
    multistep_warmup,
    optimiser_restarts,
    person_learning_rate,
    set_learning_rate,
)
from tests.reference import schedules as reference

CCLNET = {
    "learning_rate": 3.5e-4,
    "warmup_rounds": 10,
    "warmup_factor": 0.01,
    "milestones": (30, 50),
    "gamma": 0.1,
    "swap_start": 61,
}


def test_image_stages_follow_the_table_of_cclnet():
    rates = {epoch: image_learning_rate(epoch, **CCLNET) for epoch in range(1, 121)}
    assert rates == pytest.approx(reference.CCLNET_IMAGES, abs=1e-12)


def test_prompts_follow_the_table_of_cclnet():
    table = reference.CCLNET_PROMPTS
    rates = {epoch: cosine_warmup(epoch, base=3.5e-4, total_epochs=60, warmup_epochs=5) for epoch in table}
    # The table gives seven digits.
    assert rates == pytest.approx(table, rel=5e-7)


def test_image_stages_follow_the_table_of_csdn_whose_schedule_starts_at_zero():
    schedule = {"base": 3e-4, "warmup": 10, "factor": 0.01, "milestones": (40, 70), "gamma": 0.1}
    rates = {epoch: multistep_warmup(epoch - 1, **schedule) for epoch in range(1, 121)}
    assert rates == pytest.approx(reference.CSDN_IMAGES, abs=1e-12)


def test_prompts_follow_the_table_of_csdn_whose_schedule_starts_at_zero():
    table = reference.CSDN_PROMPTS
    rates = {epoch: cosine_warmup(epoch - 1, base=3e-4, total_epochs=60, warmup_epochs=5) for epoch in table}
    assert rates == pytest.approx(table, rel=5e-7)


CSDN = {"learning_rate": 3e-4, "warmup_rounds": 10, "warmup_factor": 0.01, "milestones": (40, 70), "gamma": 0.1}


def test_rounds_on_images_of_known_people_follow_the_table_of_csdn():
    rates = {epoch: person_learning_rate(epoch, **CSDN) for epoch in range(1, 121)}
    assert rates == pytest.approx(reference.CSDN_IMAGES, abs=1e-12)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    # The first is a hundredth of 3e-4; 40 and 70 are the last before a milestone, which is counted from 0.
    [(1, 3e-6), (2, 3.27e-5), (10, 2.703e-4), (11, 3e-4), (40, 3e-4), (41, 3e-5), (70, 3e-5), (71, 3e-6), (120, 3e-6)],
)
def test_csdn_reads_its_schedule_one_epoch_earlier_than_cclnet(epoch, expected):
    assert person_learning_rate(epoch, **CSDN) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 12),
    st.floats(0.001, 1.0),
    st.lists(st.integers(1, 40), max_size=3, unique=True).map(sorted),
    st.floats(0.05, 1.0),
)
def test_steps_equal_a_walk_from_epoch_to_epoch(warmup, factor, milestones, gamma):
    rates = [
        multistep_warmup(epoch, base=1e-3, warmup=warmup, factor=factor, milestones=milestones, gamma=gamma)
        for epoch in range(1, 41)
    ]
    expected = reference.walk_multistep(40, 1e-3, warmup, factor, milestones, gamma)
    assert rates == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 12))
def test_the_cosine_equals_a_walk_from_epoch_to_epoch(total, warmup):
    rates = [cosine_warmup(epoch, base=1e-3, total_epochs=total, warmup_epochs=warmup) for epoch in range(1, 46)]
    assert rates == pytest.approx(reference.walk_cosine(45, 1e-3, total, warmup, 1e-5, 1e-6), abs=1e-15)


AT_SWAP = {
    # Epoch 61 is epoch 1 of the restarted schedule, 70 is 10, 90 is 30 and 110 is 50.
    "continue": {1: 3.815e-5, 10: 3.5e-4, 30: 3.5e-5, 50: 3.5e-6, 60: 3.5e-6, 61: 3.5e-6, 120: 3.5e-6},
    "restart": {1: 3.815e-5, 10: 3.5e-4, 30: 3.5e-5, 50: 3.5e-6, 60: 3.5e-6, 61: 3.815e-5, 69: 3.1535e-4}
    | {70: 3.5e-4, 89: 3.5e-4, 90: 3.5e-5, 109: 3.5e-5, 110: 3.5e-6, 120: 3.5e-6},
    "fixed": {1: 3.815e-5, 10: 3.5e-4, 30: 3.5e-5, 50: 3.5e-6, 60: 3.5e-6, 61: 3.5e-5, 120: 3.5e-5},
}


@pytest.mark.parametrize("at_swap", AT_SWAP)
def test_the_rate_goes_on_restarts_or_is_fixed_when_swapping_starts(at_swap):
    fixed = 3.5e-5 if at_swap == "fixed" else None
    for epoch, expected in AT_SWAP[at_swap].items():
        rate = image_learning_rate(epoch, at_swap=at_swap, fixed_swap_learning_rate=fixed, **CCLNET)
        assert rate == pytest.approx(expected, abs=1e-12), f"epoch {epoch}"


def test_a_short_schedule_without_warm_up_starts_at_its_base():
    rates = [
        image_learning_rate(
            epoch, learning_rate=1.0, warmup_rounds=0, warmup_factor=0.01, milestones=(3,), gamma=0.5, swap_start=5
        )
        for epoch in range(1, 6)
    ]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.5]


def test_the_optimiser_restarts_in_the_first_swapping_epoch_and_only_with_the_schedule():
    assert [optimiser_restarts(epoch, swap_start=3, at_swap="restart") for epoch in range(1, 6)] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert not any(optimiser_restarts(3, swap_start=3, at_swap=at_swap) for at_swap in ("continue", "fixed"))


class Encoder(nn.Module):
    """The parts of an encoder in miniature: every role, a fused attention bias, and a frozen neck bias."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 1)
        self.trunk = nn.ModuleDict({"norm": nn.BatchNorm2d(4), "attention": nn.MultiheadAttention(4, 2)})
        self.attention_pool = nn.Linear(4, 4)
        self.neck = nn.BatchNorm1d(4)
        self.neck.bias.requires_grad_(False)

    def parameter_role(self, name):
        return name.split(".", maxsplit=1)[0]


def build(encoder, roles=("stem", "trunk", "neck"), **options):
    settings = {"learning_rate": 0.01, "weight_decay": 5e-4, "bias_factor": 2.0}
    return build_image_optimiser(encoder, roles=roles, **(settings | options))


def names_in(encoder, group):
    return {name for name, parameter in encoder.named_parameters() if any(parameter is p for p in group["params"])}


def give_gradients(encoder, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_groups_hold_the_wanted_roles_split_into_weights_and_biases_without_the_frozen_neck_bias():
    encoder = Encoder()
    weights, biases = build(encoder).param_groups
    assert names_in(encoder, weights) == {
        "stem.weight",
        "trunk.norm.weight",
        "trunk.attention.in_proj_weight",
        "trunk.attention.out_proj.weight",
        "neck.weight",
    }
    assert names_in(encoder, biases) == {
        "stem.bias",
        "trunk.norm.bias",
        "trunk.attention.in_proj_bias",
        "trunk.attention.out_proj.bias",
    }
    assert (weights["lr"], biases["lr"]) == (0.01, 0.02)
    assert weights["weight_decay"] == biases["weight_decay"] == 5e-4


def test_the_first_step_moves_a_weight_by_the_rate_and_a_bias_by_twice_that():
    # Adam's first step is rate * g / (|g| + 1e-8), whatever the size of g (here with decay's share in it).
    encoder = Encoder()
    optimiser = build(encoder)
    set_learning_rate(optimiser, 0.001)
    before = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
    give_gradients(encoder)
    optimiser.step()
    moved = {name: (p.detach() - before[name]).abs() for name, p in encoder.named_parameters()}
    assert torch.allclose(moved["stem.weight"], torch.tensor(0.001), rtol=1e-3)
    assert torch.allclose(moved["stem.bias"], torch.tensor(0.002), rtol=1e-3)


def test_parts_that_are_left_out_keep_every_bit():
    encoder = Encoder()
    optimiser = build(encoder)
    before = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
    for step in range(3):
        give_gradients(encoder, step)
        optimiser.step()
    for name, parameter in encoder.named_parameters():
        unchanged = torch.equal(parameter, before[name])
        assert unchanged == (name.startswith("attention_pool") or name == "neck.bias"), name


def test_decay_is_added_to_the_gradient_and_scales_decay_too():
    # Without a gradient of its own, a scale of 1 has the gradient 5e-4; Adam's first step is then the whole rate.
    encoder = Encoder()
    for parameter in encoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build(encoder).step()
    assert torch.allclose(encoder.trunk["norm"].weight, torch.tensor(0.99), atol=1e-6)


def test_a_role_that_nothing_trainable_has_is_our_mistake():
    with pytest.raises(AssertionError, match="classifier"):
        build(Encoder(), roles=("stem", "classifier"))


def test_the_same_steps_give_the_same_bits():
    encoders = [Encoder(), Encoder()]
    for encoder in encoders:
        optimiser = build(encoder)
        for step in range(3):
            give_gradients(encoder, step)
            optimiser.step()
    for one, two in zip(*(encoder.parameters() for encoder in encoders), strict=True):
        assert torch.equal(one, two)


def test_a_stored_optimiser_goes_on_where_it_was_with_its_factors(tmp_path):
    straight, stored = Encoder(), Encoder()
    optimisers = [build(straight), build(stored)]
    for encoder, optimiser in zip((straight, stored), optimisers, strict=True):
        give_gradients(encoder)
        optimiser.step()
    torch.save(optimisers[1].state_dict(), tmp_path / "optimiser.pt")
    resumed = build(stored, learning_rate=1.0)
    resumed.load_state_dict(torch.load(tmp_path / "optimiser.pt", weights_only=True))
    for encoder, optimiser in ((straight, optimisers[0]), (stored, resumed)):
        set_learning_rate(optimiser, 0.003)
        give_gradients(encoder, 1)
        optimiser.step()
    for one, two in zip(straight.parameters(), stored.parameters(), strict=True):
        assert torch.equal(one, two)


HEADS_OF_PEOPLE = {
    "pool.power", "neck.weight", "neck.bias", "projection_neck.weight", "projection_neck.bias",
    "people.neck.weight", "people.projection.weight",
}  # fmt: skip


@pytest.fixture(scope="module")
def people_network():
    """An encoder ready for people, with who classifies them; no test changes it."""
    clip = load_clip("tiny", "random")
    encoder = prepare_for_people(DualStemEncoder.from_clip(clip, image_height=48, image_width=32))
    classifier = PersonClassifier(encoder.feature_width, encoder.projection_width, 5, torch.Generator().manual_seed(0))
    return nn.ModuleDict({"encoder": encoder, "people": classifier})


def build_for_people(network, **options):
    settings = {"learning_rate": 0.01, "weight_decay": 5e-4, "head_factor": 2.0}
    return build_person_optimiser(network["encoder"], [network["people"]], **(settings | options))


def people_names_in(network, group):
    members = {id(parameter) for parameter in group["params"]}
    return {name.removeprefix("encoder.") for name, value in network.named_parameters() if id(value) in members}


def test_pooling_necks_and_classifiers_make_one_group_and_all_the_rest_another(people_network):
    rest, heads = build_for_people(people_network).param_groups
    names = {name.removeprefix("encoder.") for name, _ in people_network.named_parameters()}
    assert people_names_in(people_network, heads) == HEADS_OF_PEOPLE
    assert people_names_in(people_network, rest) == names - HEADS_OF_PEOPLE
    assert rest["weight_decay"] == heads["weight_decay"] == 5e-4


def test_every_parameter_is_in_exactly_one_group(people_network):
    given = [id(p) for group in build_for_people(people_network).param_groups for p in group["params"]]
    assert len(given) == len(set(given))
    assert set(given) == {id(parameter) for parameter in people_network.parameters()}


def test_heads_learn_exactly_twice_as_fast_in_every_epoch_of_the_table(people_network):
    optimiser = build_for_people(people_network, learning_rate=3e-4)
    rest, heads = optimiser.param_groups
    assert (rest["lr"], heads["lr"]) == (3e-4, 6e-4)
    for epoch in range(1, 121):
        rate = person_learning_rate(epoch, **CSDN)
        set_learning_rate(optimiser, rate)
        assert (rest["lr"], heads["lr"]) == (rate, 2 * rate)


def test_the_factor_of_the_heads_is_that_of_the_caller(people_network):
    rest, heads = build_for_people(people_network, head_factor=1.0).param_groups
    assert rest["lr"] == heads["lr"] == 0.01
