"""The image stage against its plain twin: which rows a term looks at, what it weighs, and both views of an image."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.clip import load_clip
from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import Modality, PerModality
from models.person_heads import PersonClassifier, prepare_for_people
from pipeline.data.images import gather_pixels
from pipeline.data.pixel_supply import ResidentPixels, StreamedPixels
from pipeline.data.samplers.sampling import paired_identity_batches
from pipeline.data.transforms.channel_augmentation import augment_channels, channel_views
from pipeline.methods.supervised import person_terms as terms_on_people
from pipeline.methods.supervised import text_terms
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.training.loop import Compute, EpochSteps, run_epoch
from pipeline.training.objective import Batch, Objective
from pipeline.training.optimiser import build_person_optimiser
from tests.pipeline.training.small_training import CPU, SIZE, random_images
from tests.reference.person_terms import person_terms

PEOPLE = 4
WIDTHS = {"neck": 6, "projection": 5, "pooled": 6, "projection_neck": 5}
WEIGHTS = {
    "gap_weight": 1.0,
    "triplet_weight": 0.15,
    "triplet_softmax": "released",
    "visible_text_weight": 0.05,
    "infrared_text_weight": 0.1,
    "text_on_second_view": False,
}
OF_TEXTS = ("visible_text_weight", "infrared_text_weight", "text_on_second_view")
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


def batch_of(features, positions):
    """A step of 12 visible rows and then infrared ones; `positions` are those of the images, on the device."""
    encoded = PerModality(
        Encoded(**{head: rows[:12] for head, rows in features.items()}),
        Encoded(**{head: rows[12:] for head, rows in features.items()}),
    )
    num_views = PerModality(2, 1)
    rows = positions.map_with(lambda at, views: at.repeat(views), num_views)
    return Batch(encoded, rows, rows.map(lambda at: np.empty(at.shape, np.int64)), num_views)


def make_objective(weights=WEIGHTS, with_texts=True):
    """Weights of the classifiers far above their usual ones, so that people are told apart."""
    classifier = PersonClassifier(WIDTHS["neck"], WIDTHS["projection"], PEOPLE, seeded(8)).double()
    with torch.no_grad():
        for weight in classifier.parameters():
            weight.mul_(500)
    texts = PerModality(*(random_rows(PEOPLE, WIDTHS["projection"], seed) for seed in (9, 10)))
    return SmallObjective(classifier, texts if with_texts else None, LABELS, weights)


@dataclass
class SmallObjective:
    """The terms of CSDN, with the people that each step of a third shows; image `6 step + k` is the k-th of a step."""

    classifier: PersonClassifier
    texts: PerModality | None
    labels: torch.Tensor
    weights: dict

    def objective(self):
        people = PerModality(self.labels.flatten(), self.labels.flatten())
        of_people = {name: value for name, value in self.weights.items() if name not in OF_TEXTS}
        terms = terms_on_people(people, self.classifier, **of_people)
        if self.texts is not None:
            terms += text_terms(people, self.texts, **{name: self.weights[name] for name in OF_TEXTS})
        return Objective(tuple(terms))

    def terms(self, features, step):
        at = torch.arange(6, device=self.labels.device) + 6 * step
        losses = self.objective().losses(batch_of(features, PerModality(at, at)))
        losses.pop("total")
        return losses

    def moved(self, move):
        """The same one after `move` of all its tensors."""
        texts = None if self.texts is None else self.texts.map(move)
        return SmallObjective(move(self.classifier), texts, move(self.labels), self.weights)


def terms_of(features, objective=None, step=0):
    return (objective or make_objective()).terms(features, step)


@pytest.fixture(scope="module")
def clip():
    return load_clip("tiny", "random")


class TestTerms:
    @pytest.mark.parametrize("step", [0, 1])
    @pytest.mark.parametrize(("softmax", "on_second"), [("released", False), ("stable", True)])
    def test_values_and_gradients_are_those_of_the_twin(self, softmax, on_second, step):
        weights = WEIGHTS | {"triplet_softmax": softmax, "text_on_second_view": on_second}
        objective = make_objective(weights)
        classifier = objective.classifier
        given = {head: rows.requires_grad_() for head, rows in random_features().items()}
        found = terms_of(given, objective, step)
        expected = person_terms(
            given,
            classifier.neck.weight,
            classifier.projection.weight,
            objective.texts,
            LABELS[step],
            SimpleNamespace(**weights),
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

        objective = make_objective(WEIGHTS | {"text_on_second_view": on_second}).moved(away)
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
        objective = make_objective(WEIGHTS | {"text_on_second_view": True})
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
        fewer = terms_of(features, make_objective(WEIGHTS | {WEIGHT_OF[name]: 0.0}))
        assert list(fewer) == [other for other in whole if other != name]
        assert all(torch.equal(fewer[other], whole[other]) for other in fewer)

    @pytest.mark.parametrize("name", WEIGHT_OF)
    def test_a_term_is_proportional_to_its_weight(self, name):
        features = random_features()
        whole = terms_of(features)
        doubled = make_objective(WEIGHTS | {WEIGHT_OF[name]: 2 * WEIGHTS[WEIGHT_OF[name]]})
        for other, value in terms_of(features, doubled).items():
            torch.testing.assert_close(value, whole[other] * (2 if other == name else 1), rtol=1e-12, atol=0)

    def test_without_texts_there_are_no_terms_of_them(self):
        assert list(terms_of(random_features(), make_objective(with_texts=False))) == ["identity", "triplet", "gap"]

    def test_all_features_are_asked_for_and_without_projection_the_others(self):
        assert make_objective().objective().heads == frozenset(Head)
        bare = PersonClassifier(WIDTHS["neck"], 0, PEOPLE, seeded(8))
        terms = terms_on_people(
            PerModality(LABELS, LABELS), bare, **{k: v for k, v in WEIGHTS.items() if k not in OF_TEXTS}
        )
        assert Objective(tuple(terms)).heads == {Head.NECK, Head.POOLED}

    def test_three_visible_views_are_classified_and_the_gap_reads_the_first(self):
        # The third view repeats the second: identity is that of a batch in which the second views stand twice.
        features = random_features()
        thrice = {head: torch.cat([rows[:12], rows[6:12], rows[12:]]) for head, rows in features.items()}
        encoded = PerModality(
            Encoded(**{head: rows[:18] for head, rows in thrice.items()}),
            Encoded(**{head: rows[18:] for head, rows in thrice.items()}),
        )
        small, at = make_objective(), torch.arange(6)
        rows = PerModality(at.repeat(3), at)
        batch = Batch(encoded, rows, rows.map(torch.Tensor.numpy), PerModality(3, 1))
        found, before = small.objective().losses(batch), terms_of(features)
        assert torch.equal(found["gap"], before["gap"])
        scores = small.classifier(thrice["neck"], thrice["projection_neck"])
        labels = LABELS[0].repeat(4)
        expected = sum(torch.nn.functional.cross_entropy(some, labels) for some in scores)
        torch.testing.assert_close(found["identity"], expected)


@dataclass
class SmallImageStage:
    """Everything that an epoch of the image stage needs, over 11 visible and 9 infrared images of three people."""

    encoder: DualStemEncoder
    objective: SmallObjective
    people: PerModality
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
        objective = SmallObjective(
            classifier=classifier,
            texts=PerModality(*[torch.randn(3, encoder.projection_width, generator=seeded(5))] * 2),
            labels=torch.from_numpy(people.infrared[positions.infrared]),
            weights=weights,
        )
        steps = EpochSteps(
            pixels=images.map(lambda some: StreamedPixels(some, CPU)),
            positions=positions,
            views=views_of(seed=6),
            groups=PerModality(3, 3),
            setting="batches.images_per_person",
        )
        optimiser = build_person_optimiser(
            encoder, [classifier], learning_rate=1e-3, weight_decay=5e-4, head_factor=2.0
        )
        return SmallImageStage(encoder, objective, people.map(torch.from_numpy), optimiser, images, steps)

    def train(self):
        classifier, weights = self.objective.classifier, self.objective.weights
        terms = terms_on_people(self.people, classifier, **{k: v for k, v in weights.items() if k not in OF_TEXTS})
        terms += text_terms(self.people, self.objective.texts, **{name: weights[name] for name in OF_TEXTS})
        return run_epoch(self.encoder, self.optimiser, Objective(tuple(terms)), self.steps, Compute(CPU))

    def weights(self):
        return copy.deepcopy({**self.encoder.state_dict(), **self.objective.classifier.state_dict(prefix="people.")})


class TestEpoch:
    def test_the_first_step_shows_the_network_both_views_and_infrared_images_at_once(self, clip):
        stage = SmallImageStage.make(clip, num_steps=1)
        twin = SmallImageStage.make(clip, num_steps=1)
        found = stage.train()
        pixels = twin.images.map_with(
            lambda some, at: torch.from_numpy(gather_pixels(some, at[0])), twin.steps.positions
        )
        inputs = pixels.map_with(
            lambda own, views: torch.cat([view(own, len(own), slice(len(own))) for view in views]), twin.steps.views
        )
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
                SimpleNamespace(**WEIGHTS),
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
        fewer = SmallImageStage.make(clip, WEIGHTS | {WEIGHT_OF[name]: 0.0}, num_steps=1).train()
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


def views_of(seed=3, recipe="channels"):
    return channel_views(recipe=recipe, padding=4, normalisation="imagenet", generator=seeded(seed))


def inputs_of(images, positions, processes=ALONE, **options):
    """What a rank's network is given in each step, by modality; the same images of both modalities."""
    pixels = PerModality.build(lambda _: ResidentPixels(images, CPU))
    steps = EpochSteps(pixels, positions.map(np.array), views_of(**options), PerModality(1, 1), "")
    return list(steps.inputs(processes))


FIVE = PerModality([[0, 1, 2, 3, 4]], [[4, 2, 0, 1, 3]])


class TestViews:
    images = random_images(9, Modality.VISIBLE)

    def changed(self, positions, view, generator):
        pixels = torch.from_numpy(gather_pixels(self.images, np.array(positions)))
        return augment_channels(pixels, view, padding=4, normalisation="imagenet", generator=generator)

    def test_first_views_keep_their_colours_second_views_are_drawn_after_them_and_infrared_images_last(self):
        (output,) = inputs_of(self.images, FIVE)
        generator = seeded(3)
        for part, view in ((output.visible[:5], "visible_one"), (output.visible[5:], "visible_two")):
            assert torch.equal(part, self.changed(FIVE.visible[0], view, generator))
        assert torch.equal(output.infrared, self.changed(FIVE.infrared[0], "infrared", generator))
        grey = (output.visible == output.visible[:, :1]).all(dim=1).flatten(1).all(dim=1)
        assert grey.tolist() == [False] * 5 + [True] * 5

    def test_without_mixed_channels_second_views_and_infrared_images_are_changed_as_first_views_are(self):
        (output,) = inputs_of(self.images, FIVE, recipe="plain")
        generator = seeded(3)
        first, second = (self.changed(FIVE.visible[0], "visible_one", generator) for _ in range(2))
        assert torch.equal(output.visible, torch.cat([first, second]))
        assert torch.equal(output.infrared, self.changed(FIVE.infrared[0], "visible_one", generator))

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_shares_of_several_processes_put_together_are_the_whole_batch(self, count):
        # Two steps, so that every process has drawn as much as one alone; with 3 and 5 a share holds parts of both
        # views, with 2 each process has one of them.
        positions = PerModality([[0, 1, 2, 3, 4, 5, 6], [8, 7, 6, 5, 4, 3, 2]], [[0, 2, 4, 6, 8], [1, 3, 5, 7, 7]])
        alone = inputs_of(self.images, positions)
        shares = [inputs_of(self.images, positions, Processes(rank, count)) for rank in range(count)]
        for step in (0, 1):
            for modality, total in ((Modality.VISIBLE, 14), (Modality.INFRARED, 5)):
                parts = [share[step][modality] for share in shares]
                sizes = [Processes(rank, count).share(total) for rank in range(count)]
                assert [len(part) for part in parts] == [size.stop - size.start for size in sizes]
                assert torch.equal(torch.cat(parts), alone[step][modality])

    def test_another_generator_makes_other_views(self):
        one, other = (inputs_of(self.images, FIVE, seed=seed)[0].visible for seed in (1, 2))
        assert not torch.equal(one, other)
