"""The image stage against its plain twin: which rows a term looks at, what it weighs, and both views of an image."""

import copy
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch

from models.clip import load_clip
from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import Modality, PerModality
from models.person_heads import PersonClassifier, prepare_for_people
from pipeline.data.images import gather_pixels
from pipeline.data.pixel_supply import StreamedPixels
from pipeline.data.samplers.sampling import paired_identity_batches
from pipeline.data.transforms.channel_augmentation import augment_channels
from pipeline.methods.identity_objective import LossWeights, PersonObjective, build_view_augmentation
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.training.loop import EpochSteps, run_epoch
from pipeline.training.optimiser import build_person_optimiser
from tests.pipeline.training.small_training import CPU, SIZE, random_images
from tests.reference.person_terms import person_terms

PEOPLE = 4
WIDTHS = {"neck": 6, "projection": 5, "pooled": 6, "projection_neck": 5}
WEIGHTS = LossWeights(
    gap_weight=1.0,
    triplet_weight=0.15,
    triplet_softmax="released",
    visible_text_weight=0.05,
    infrared_text_weight=0.1,
    text_on_second_view=False,
)
# A step shows three of the four people, two images each; this is the order of every third of the batch.
LABELS = torch.tensor([[3, 3, 0, 0, 1, 1], [2, 2, 1, 1, 0, 0]])
WEIGHT_OF = {
    "gap": "gap_weight",
    "triplet": "triplet_weight",
    "visible_text": "visible_text_weight",
    "infrared_text": "infrared_text_weight",
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_rows(num_rows, width, seed):
    return torch.randn(num_rows, width, generator=seeded(seed), dtype=torch.float64)


def random_features():
    """By head: first views, second views and infrared images of a step, a third each."""
    return {head: random_rows(18, width, seed) for seed, (head, width) in enumerate(WIDTHS.items())}


def encoded_of(features):
    return PerModality(
        Encoded(**{head: rows[:12] for head, rows in features.items()}),
        Encoded(**{head: rows[12:] for head, rows in features.items()}),
    )


def make_objective(weights=WEIGHTS, with_texts=True):
    """Weights of the classifiers far above their usual ones, so that people are told apart."""
    classifier = PersonClassifier(WIDTHS["neck"], WIDTHS["projection"], PEOPLE, seeded(8)).double()
    with torch.no_grad():
        for weight in classifier.parameters():
            weight.mul_(500)
    texts = PerModality(*(random_rows(PEOPLE, WIDTHS["projection"], seed) for seed in (9, 10)))
    return PersonObjective(classifier, texts if with_texts else None, LABELS, weights)


def terms_of(features, objective=None, step=0):
    return (objective or make_objective()).terms(encoded_of(features), step)


@pytest.fixture(scope="module")
def clip():
    return load_clip("tiny", "random")


class TestTerms:
    @pytest.mark.parametrize("step", [0, 1])
    @pytest.mark.parametrize(("softmax", "on_second"), [("released", False), ("stable", True)])
    def test_values_and_gradients_are_those_of_the_twin(self, softmax, on_second, step):
        weights = replace(WEIGHTS, triplet_softmax=softmax, text_on_second_view=on_second)
        objective = make_objective(weights)
        classifier = objective.classifier
        given = {head: rows.requires_grad_() for head, rows in random_features().items()}
        found = terms_of(given, objective, step)
        expected = person_terms(
            given, classifier.neck.weight, classifier.projection.weight, objective.texts, LABELS[step], weights
        )
        assert list(found) == list(expected)
        leaves = [*given.values(), *classifier.parameters()]
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)
            # Features that a term does not read have no gradient, on either side.
            gradients = [torch.autograd.grad(loss, leaves, allow_unused=True) for loss in (found[name], value)]
            for one, other in zip(*gradients, strict=True):
                compared = [torch.zeros(1) if gradient is None else gradient for gradient in (one, other)]
                if one is None or other is None:
                    assert all((gradient == 0).all() for gradient in compared), name
                else:
                    torch.testing.assert_close(*compared, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("on_second", [False, True])
    def test_no_term_asks_for_a_number_that_a_gpu_would_have_to_be_waited_for(self, on_second):
        # Tensors of the device `meta` have a shape and no values: whatever needs one fails.
        def away(value):
            return copy.deepcopy(value).to("meta")

        near = make_objective(replace(WEIGHTS, text_on_second_view=on_second))
        objective = replace(
            near, classifier=away(near.classifier), labels=away(near.labels), texts=near.texts.map(away)
        )
        features = {head: away(rows).requires_grad_() for head, rows in random_features().items()}
        terms = terms_of(features, objective)
        torch.stack([*terms.values()]).sum().backward()
        assert set(terms) == {"identity", *WEIGHT_OF}
        with pytest.raises(RuntimeError, match="meta"):
            terms["identity"].item()

    def test_people_are_classified_in_all_three_parts_of_the_batch(self):
        features = {head: rows.requires_grad_() for head, rows in random_features().items()}
        terms_of(features)["identity"].backward()
        for head in ("neck", "projection_neck"):
            assert (features[head].grad.abs().sum(dim=1) > 0).all()
        assert features["pooled"].grad is None and features["projection"].grad is None

    def test_untrained_classifiers_give_the_logarithm_of_the_number_of_people_twice(self):
        objective = make_objective()
        with torch.no_grad():
            for weight in objective.classifier.parameters():
                weight.zero_()
        # All scores are equal, so each of the two classifiers gives everyone the probability 1/4: 2 log 4.
        assert terms_of(random_features(), objective)["identity"].item() == pytest.approx(2 * np.log(4), abs=1e-12)

    def test_a_change_of_second_views_moves_identity_and_triplet_but_neither_gap_nor_texts(self):
        features = random_features()
        moved = {head: rows.clone() for head, rows in features.items()}
        for rows in moved.values():
            rows[6:12] += 1.0 + random_rows(6, rows.shape[1], 20)
        before, after = terms_of(features), terms_of(moved)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"identity", "triplet"}
        objective = make_objective(replace(WEIGHTS, text_on_second_view=True))
        before, after = terms_of(features, objective), terms_of(moved, objective)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"identity", "triplet", "visible_text"}

    @pytest.mark.parametrize(
        ("rows", "unchanged"), [(slice(0, 6), {"infrared_text"}), (slice(12, 18), {"visible_text"})]
    )
    def test_first_views_and_infrared_images_enter_everything_but_the_texts_of_the_other(self, rows, unchanged):
        features = random_features()
        moved = {head: own.clone() for head, own in features.items()}
        for own in moved.values():
            own[rows] += 1.0 + random_rows(6, own.shape[1], 21)
        before, after = terms_of(features), terms_of(moved)
        assert {name for name in before if torch.equal(before[name], after[name])} == unchanged

    @pytest.mark.parametrize("name", WEIGHT_OF)
    def test_a_weight_of_zero_removes_its_term_and_leaves_the_others_alone(self, name):
        features = random_features()
        whole = terms_of(features)
        fewer = terms_of(features, make_objective(replace(WEIGHTS, **{WEIGHT_OF[name]: 0.0})))
        assert list(fewer) == [other for other in whole if other != name]
        assert all(torch.equal(fewer[other], whole[other]) for other in fewer)

    @pytest.mark.parametrize("name", WEIGHT_OF)
    def test_a_term_is_proportional_to_its_weight(self, name):
        features = random_features()
        whole = terms_of(features)
        doubled = make_objective(replace(WEIGHTS, **{WEIGHT_OF[name]: 2 * getattr(WEIGHTS, WEIGHT_OF[name])}))
        for other, value in terms_of(features, doubled).items():
            torch.testing.assert_close(value, whole[other] * (2 if other == name else 1), rtol=1e-12, atol=0)

    def test_without_texts_there_are_no_terms_of_them(self):
        assert list(terms_of(random_features(), make_objective(with_texts=False))) == ["identity", "triplet", "gap"]

    def test_every_weight_is_read(self):
        assert {field.name for field in fields(LossWeights)} == {
            *WEIGHT_OF.values(), "triplet_softmax", "text_on_second_view"
        }  # fmt: skip

    def test_all_features_are_asked_for(self):
        assert make_objective().heads == frozenset(Head)


@dataclass
class SmallImageStage:
    """Everything that an epoch of the image stage needs, over 11 visible and 9 infrared images of three people."""

    encoder: DualStemEncoder
    objective: PersonObjective
    optimiser: torch.optim.Optimizer
    images: PerModality
    steps: EpochSteps

    @staticmethod
    def make(clip, weights=WEIGHTS, num_steps=2):
        encoder = prepare_for_people(
            DualStemEncoder.from_clip(clip, image_height=SIZE[0], image_width=SIZE[1]),
        )
        classifier = PersonClassifier(encoder.feature_width, encoder.projection_width, 3, seeded(4))
        images = PerModality(random_images(11, Modality.VISIBLE), random_images(9, Modality.INFRARED))
        people = images.map(lambda some: np.arange(len(some)) % 3)
        drawn = paired_identity_batches(
            people,
            people_per_batch=3,
            images_per_person=2,
            replacement="always",
            generator=np.random.default_rng(2),
        )
        # 11 // (3 * 2) + 1 = 2 steps.
        assert len(drawn) == 2
        positions = drawn.positions.map(lambda at: at[:num_steps])
        objective = PersonObjective(
            classifier=classifier,
            texts=PerModality(*[torch.randn(3, encoder.projection_width, generator=seeded(5))] * 2),
            labels=torch.from_numpy(people.infrared[positions.infrared]),
            weights=weights,
        )
        steps = EpochSteps(
            pixels=images.map(lambda some: StreamedPixels(some, CPU)),
            positions=PerModality(np.concatenate([positions.visible, positions.visible], axis=1), positions.infrared),
            groups=PerModality(6, 3),
            setting="batches.images_per_person",
            processes=ALONE,
        )
        optimiser = build_person_optimiser(
            encoder, [classifier], learning_rate=1e-3, weight_decay=5e-4, head_factor=2.0
        )
        return SmallImageStage(encoder, objective, optimiser, images, steps)

    def augmentation(self):
        return build_view_augmentation(recipe="channels", padding=4, normalisation="imagenet", generator=seeded(6))

    def train(self):
        return run_epoch(
            self.encoder,
            self.optimiser,
            self.objective,
            self.steps,
            augmentation=self.augmentation(),
            device=CPU,
            precision="float32",
        )

    def weights(self):
        return copy.deepcopy({**self.encoder.state_dict(), **self.objective.classifier.state_dict(prefix="people.")})


class TestEpoch:
    def test_the_first_step_shows_the_network_both_views_and_infrared_images_at_once(self, clip):
        stage = SmallImageStage.make(clip, num_steps=1)
        twin = SmallImageStage.make(clip, num_steps=1)
        found = stage.train()
        change = twin.augmentation()
        pixels = twin.images.map_with(
            lambda some, at: torch.from_numpy(gather_pixels(some, at[0])), twin.steps.positions
        )
        inputs = PerModality.build(lambda modality: change(pixels[modality], modality, len(pixels[modality])))
        with torch.no_grad():
            encoded = twin.encoder.train()(inputs, frozenset(Head))
            features = {head: torch.cat([getattr(one, head) for one in encoded]).double() for head in WIDTHS}
            classifier = twin.objective.classifier.double()
            expected = person_terms(
                features,
                classifier.neck.weight,
                classifier.projection.weight,
                twin.objective.texts.map(torch.Tensor.double),
                twin.objective.labels[0],
                WEIGHTS,
            )
        assert {name: value.item() for name, value in expected.items()} == pytest.approx(
            {name: value for name, value in found.items() if name != "total"}, rel=1e-4, abs=1e-6
        )

    def test_the_total_is_the_sum_of_the_terms(self, clip):
        losses = SmallImageStage.make(clip).train()
        assert list(losses) == ["identity", "triplet", "gap", "visible_text", "infrared_text", "total"]
        assert losses.pop("total") == pytest.approx(sum(losses.values()), rel=1e-6)

    @pytest.mark.parametrize("name", WEIGHT_OF)
    def test_a_weight_of_zero_removes_exactly_its_term_from_the_total(self, clip, name):
        whole = SmallImageStage.make(clip, num_steps=1).train()
        fewer = SmallImageStage.make(clip, replace(WEIGHTS, **{WEIGHT_OF[name]: 0.0}), num_steps=1).train()
        assert list(fewer) == [other for other in whole if other != name]
        assert fewer["total"] == pytest.approx(whole["total"] - whole[name], rel=1e-5)

    def test_encoder_and_classifiers_are_trained_whole_and_texts_stay_to_the_last_bit(self, clip):
        stage = SmallImageStage.make(clip)
        before, texts = stage.weights(), stage.objective.texts.map(torch.Tensor.clone)
        stage.train()
        same = [name for name, value in stage.weights().items() if torch.equal(value, before[name])]
        assert same == []
        for after, text in zip(stage.objective.texts, texts, strict=True):
            assert torch.equal(after, text) and after.grad is None

    def test_the_same_epoch_twice_gives_the_same_bits(self, clip):
        one, other = SmallImageStage.make(clip), SmallImageStage.make(clip)
        assert one.train() == other.train()
        weights = other.weights()
        assert all(torch.equal(value, weights[name]) for name, value in one.weights().items())


def random_pixels(num_images, seed=0):
    return torch.randint(0, 256, (num_images, *SIZE, 3), dtype=torch.uint8, generator=seeded(seed))


def augmentation_of(processes=ALONE, seed=3, recipe="channels"):
    return build_view_augmentation(
        recipe=recipe, padding=4, normalisation="imagenet", generator=seeded(seed), processes=processes
    )


class TestViews:
    def test_first_views_keep_their_colours_second_views_are_drawn_after_them_and_lose_theirs(self):
        pixels = random_pixels(5)
        output = augmentation_of()(torch.cat([pixels, pixels]), Modality.VISIBLE, 10)
        generator = seeded(3)
        for part, view in ((output[:5], "visible_one"), (output[5:], "visible_two")):
            expected = augment_channels(pixels, view, padding=4, normalisation="imagenet", generator=generator)
            assert torch.equal(part, expected)
        grey = (output == output[:, :1]).all(dim=1).flatten(1).all(dim=1)
        assert grey.tolist() == [False] * 5 + [True] * 5

    def test_infrared_images_have_one_view(self):
        pixels = random_pixels(6)
        expected = augment_channels(pixels, "infrared", padding=4, normalisation="imagenet", generator=seeded(3))
        assert torch.equal(augmentation_of()(pixels, Modality.INFRARED, 6), expected)

    def test_without_mixed_channels_second_views_and_infrared_images_are_changed_as_first_views_are(self):
        pixels = random_pixels(5)
        visible = augmentation_of(recipe="plain")(torch.cat([pixels, pixels]), Modality.VISIBLE, 10)
        infrared = augmentation_of(recipe="plain")(pixels, Modality.INFRARED, 5)
        generator = seeded(3)
        first, second = (
            augment_channels(pixels, "visible_one", padding=4, normalisation="imagenet", generator=generator)
            for _ in range(2)
        )
        assert torch.equal(visible, torch.cat([first, second])) and torch.equal(infrared, first)

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_shares_of_several_processes_put_together_are_the_whole_batch(self, count):
        # Two steps, so that every process has drawn as much as one alone; with 3 and 5 a share holds parts of both
        # views, with 2 each process has one of them.
        batches = [
            (random_pixels(12, seed=1), Modality.VISIBLE),
            (random_pixels(7, seed=2), Modality.INFRARED),
            (random_pixels(14, seed=3), Modality.VISIBLE),
            (random_pixels(6, seed=4), Modality.INFRARED),
        ]
        alone = augmentation_of()
        groups = [Processes(rank, count) for rank in range(count)]
        changes = [augmentation_of(processes) for processes in groups]
        for pixels, modality in batches:
            total = len(pixels)
            parts = [
                change(pixels[processes.share(total)], modality, total)
                for change, processes in zip(changes, groups, strict=True)
            ]
            assert [len(part) for part in parts] == [len(pixels[processes.share(total)]) for processes in groups]
            assert torch.equal(torch.cat(parts), alone(pixels, modality, total))

    def test_another_generator_makes_other_views(self):
        pixels = random_pixels(8)
        one, other = (augmentation_of(seed=seed)(pixels, Modality.VISIBLE, 8) for seed in (1, 2))
        assert not torch.equal(one, other)
