"""The heads of supervised training: the learned pooling, the classifiers' first weights, an encoder made ready."""

import copy

import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn import functional

from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import Modality, PerModality
from models.person_heads import CLASSIFIER_DEVIATION, LearnedGeneralisedMean, PersonClassifier, prepare_for_people
from tests.reference import person_heads as reference

ALL = frozenset(Head)
SIZE = (48, 32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, seed=0):
    return torch.randn(count, 3, *SIZE, generator=seeded(seed))


def plain_encoder(clip, **settings):
    return DualStemEncoder.from_clip(clip, image_height=SIZE[0], image_width=SIZE[1], **settings)


def prepared_encoder(clip, **settings):
    return prepare_for_people(plain_encoder(clip, **settings))


def features(encoded):
    return [getattr(encoded, head.value) for head in Head]


class TestLearnedPooling:
    @pytest.mark.parametrize("power", [1.0, 2.5, 3.0])
    def test_value_and_gradients_are_those_of_the_slow_twin_that_of_the_power_among_them(self, power):
        # Half of the cells lie below the floor, as most do after a ReLU.
        cells = torch.randn(2, 3, 4, 2, generator=seeded(), dtype=torch.float64)
        weights = torch.randn(2, 3, generator=seeded(1), dtype=torch.float64)
        pool = LearnedGeneralisedMean(power, floor=0.05).double()
        given, twin_given = cells.clone().requires_grad_(), cells.clone().requires_grad_()
        twin_power = torch.tensor(power, dtype=torch.float64, requires_grad=True)
        found, expected = pool(given), reference.learned_generalised_mean(twin_given, twin_power, 0.05)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(given.grad, twin_given.grad, rtol=0, atol=1e-11)
        torch.testing.assert_close(pool.power.grad[0], twin_power.grad, rtol=0, atol=1e-11)

    def test_by_hand(self):
        # Cells 1 and 2, p = 2: m = (1 + 4) / 2 = 2.5, its root 1.5811388. The slope in p is the root times
        # mean(x^p ln x) / (p m) - ln m / p^2 = (4 ln 2 / 2) / 5 - ln 2.5 / 4 = .2772589 - .2290727 = .0481862.
        pool = LearnedGeneralisedMean(2.0).double()
        pooled = pool(torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64))
        assert pooled.item() == pytest.approx(1.5811388, abs=1e-7)
        pooled.sum().backward()
        assert pool.power.grad.item() == pytest.approx(0.0761891, abs=1e-6)

    def test_what_lies_below_the_floor_counts_as_the_floor_and_gets_no_gradient(self):
        cells = torch.tensor([[[[-3.0, 0.0]], [[-3.0, 2.0]]]], requires_grad=True)
        pool = LearnedGeneralisedMean(3.0)
        pooled = pool(cells)
        # An empty channel is the floor itself; beside a 2 it does not count: (8 / 2)^(1/3).
        assert pooled[0].tolist() == pytest.approx([1e-6, 4 ** (1 / 3)], rel=1e-5)
        pooled.sum().backward()
        assert cells.grad[0, 0].tolist() == [[0.0, 0.0]] and cells.grad[0, 1, 0, 0].item() == 0.0
        assert torch.isfinite(cells.grad).all() and torch.isfinite(pool.power.grad).all()

    def test_one_power_serves_all_channels_and_starts_at_three(self):
        assert [(name, value.tolist()) for name, value in LearnedGeneralisedMean().named_parameters()] == [
            ("power", [3.0])
        ]


class TestClassifier:
    def test_first_weights_are_normal_with_deviation_a_thousandth_and_there_are_no_biases(self):
        classifier = PersonClassifier(64, 24, 300, seeded())
        assert {name: tuple(value.shape) for name, value in classifier.named_parameters()} == {
            "neck.weight": (300, 64),
            "projection.weight": (300, 24),
        }
        for weight in classifier.parameters():
            standard = weight.detach().double().flatten().numpy() / 0.001
            assert kstest(standard, "norm").pvalue > 1e-3
        assert CLASSIFIER_DEVIATION == 0.001

    def test_the_generator_alone_decides_the_weights_and_both_classifiers_draw_their_own(self):
        state = torch.get_rng_state()
        one, same, other = (PersonClassifier(8, 8, 5, seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(one.neck.weight, same.neck.weight)
        assert torch.equal(one.projection.weight, same.projection.weight)
        assert not torch.equal(one.neck.weight, other.neck.weight)
        assert not torch.equal(one.neck.weight, one.projection.weight)

    def test_each_score_is_an_inner_product_with_a_persons_weights(self):
        classifier = PersonClassifier(6, 4, 3, seeded())
        neck, projection = torch.randn(2, 6, generator=seeded(1)), torch.randn(2, 4, generator=seeded(2))
        for scores, rows, layer in zip(
            classifier(neck, projection), (neck, projection), (classifier.neck, classifier.projection), strict=True
        ):
            expected = [[sum(row * weights).item() for weights in layer.weight] for row in rows]
            assert torch.allclose(scores, torch.tensor(expected), rtol=1e-5, atol=1e-8)

    def test_two_people_are_the_fewest_there_can_be(self):
        assert PersonClassifier(4, 4, 2, seeded()).num_people == 2
        with pytest.raises(ValueError, match="at least 2 people, got 1"):
            PersonClassifier(4, 4, 1, seeded())


class TestPreparedEncoder:
    def test_it_keeps_clips_weights_learns_the_power_and_has_two_necks_with_biases(self, tiny_clip):
        plain = plain_encoder(tiny_clip).state_dict()
        encoder = prepared_encoder(tiny_clip, gem_power=2.0)
        state = encoder.state_dict()
        assert all(torch.equal(state[name], value) for name, value in plain.items())
        assert all(parameter.requires_grad for parameter in encoder.parameters())
        added = {name for name, _ in encoder.named_parameters()} - plain.keys()
        assert added == {"pool.power", "projection_neck.weight", "projection_neck.bias"}
        assert state["pool.power"].tolist() == [2.0]
        for neck, width in ((encoder.neck, encoder.feature_width), (encoder.projection_neck, encoder.projection_width)):
            assert isinstance(neck, nn.BatchNorm1d) and neck.num_features == width
            assert (neck.weight == 1).all() and (neck.bias == 0).all()
            assert (neck.running_mean == 0).all() and (neck.running_var == 1).all()
        assert not any(module.training for module in encoder.modules())

    def test_every_parameter_has_a_role_that_says_whether_it_belongs_to_a_head(self, tiny_clip):
        names = [name for name, _ in prepared_encoder(tiny_clip).named_parameters()]
        roles = {name: DualStemEncoder.parameter_role(name) for name in names}
        assert set(roles.values()) == {"stem", "trunk", "pool", "attention_pool", "neck", "projection_neck"}
        assert {name for name, role in roles.items() if role in ("pool", "neck", "projection_neck")} == {
            "pool.power", "neck.weight", "neck.bias", "projection_neck.weight", "projection_neck.bias"
        }  # fmt: skip

    def test_new_weights_follow_the_type_of_the_old_ones(self, tiny_clip):
        encoder = prepare_for_people(plain_encoder(tiny_clip).double())
        assert {value.dtype for value in encoder.parameters()} == {torch.float64}
        assert encoder.encode(images(2).double(), Modality.VISIBLE, heads=ALL).projection_neck.dtype == torch.float64

    def test_a_vision_transformer_has_no_map_to_pool(self, vit_clip):
        with pytest.raises(ValueError, match="needs a ResNet"):
            prepare_for_people(plain_encoder(vit_clip))

    def test_a_saved_one_is_restored_with_its_heads(self, tiny_clip):
        trained = prepared_encoder(tiny_clip)
        trained.train()(PerModality(images(3, 1), images(3, 2)), ALL)  # moves the statistics of the batch norms
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter.mul_(1.1).add_(0.01)
        restored = prepared_encoder(tiny_clip)
        restored.load_state_dict(copy.deepcopy(trained.state_dict()))
        with torch.no_grad():
            pairs = [
                features(encoder.eval().encode(images(2), Modality.INFRARED, heads=ALL))
                for encoder in (trained, restored)
            ]
        assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))

    def test_each_feature_comes_from_its_own_part(self, tiny_clip):
        encoder, batch = prepared_encoder(tiny_clip).double(), images(2).double()
        with torch.no_grad():
            encoder.projection_neck.bias.add_(0.5)
            feature_map = encoder.trunk(encoder.stems["visible"](batch))
            encoded = encoder.encode(batch, Modality.VISIBLE, heads=ALL)
            pooled = reference.learned_generalised_mean(feature_map, torch.tensor(3.0), 1e-6)
            torch.testing.assert_close(encoded.pooled, pooled, rtol=1e-9, atol=1e-12)
            # Untrained statistics are mean 0 and variance 1; the bias comes last.
            scale = (1 + 1e-5) ** -0.5
            torch.testing.assert_close(encoded.neck, encoded.pooled * scale)
            torch.testing.assert_close(encoded.projection_neck, encoded.projection * scale + 0.5)
            torch.testing.assert_close(encoded.projection, encoder.projection(feature_map))

    def test_only_what_is_asked_for_is_computed(self, tiny_clip):
        encoder = prepared_encoder(tiny_clip)
        for head in Head:
            encoded = encoder.encode(images(2), Modality.VISIBLE, heads=frozenset({head}))
            assert [one for one in Head if getattr(encoded, one.value) is not None] == [head]

    def test_the_descriptor_takes_the_projection_before_its_neck(self, tiny_clip):
        encoder = prepared_encoder(tiny_clip)
        heads = frozenset({Head.NECK, Head.PROJECTION})
        with torch.no_grad():
            before = encoder.encode(images(2), Modality.INFRARED, heads=heads)
            encoder.projection_neck.weight.mul_(3.0)
            encoder.projection_neck.bias.add_(1.0)
            after = encoder.encode(images(2), Modality.INFRARED, heads=heads)
        assert torch.equal(before.neck, after.neck) and torch.equal(before.projection, after.projection)
        assert before.neck.shape == (2, encoder.feature_width)
        assert before.projection.shape == (2, encoder.projection_width)

    def test_the_projections_neck_sees_the_mixture_of_both_modalities_in_training(self, tiny_clip):
        encoder = prepared_encoder(tiny_clip).double().train()
        encoded = encoder(PerModality(images(6, 1).double(), 3 * images(3, 2).double() + 1), ALL)
        assert [len(one.projection_neck) for one in encoded] == [6, 3]
        projection, neck = (
            torch.cat([getattr(one, name) for one in encoded]) for name in ("projection", "projection_neck")
        )
        expected = functional.batch_norm(projection, None, None, training=True)
        torch.testing.assert_close(neck, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(
            encoder.projection_neck.running_mean, 0.1 * projection.mean(dim=0), rtol=1e-9, atol=1e-12
        )

    def test_the_power_and_both_necks_get_gradients(self, tiny_clip):
        encoder = prepared_encoder(tiny_clip).train()
        encoded = encoder(PerModality(images(4, 1), images(2, 2)), ALL)
        weights = seeded(3)
        parts = [part for one in encoded for part in (one.neck, one.projection_neck)]
        torch.stack([(part * torch.randn(part.shape, generator=weights)).sum() for part in parts]).sum().backward()
        assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
        assert encoder.pool.power.grad.item() != 0.0


def test_a_change_reaches_every_feature_that_there_is():
    rows = torch.arange(4.0).view(2, 2)
    some = Encoded(neck=rows, projection=None, pooled=rows + 1, projection_neck=rows + 2)
    changed = some.each(lambda feature: feature[1:] * 10)
    assert changed.projection is None
    found = [feature.tolist() for feature in (changed.neck, changed.pooled, changed.projection_neck)]
    assert found == [[[20.0, 30.0]], [[30.0, 40.0]], [[40.0, 50.0]]]
