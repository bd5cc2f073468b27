"""EEES's objective against its plain twin: which rows meet captions, which terms there are, and who gets gradients."""

import copy
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import nn

from models.clip import load_clip
from models.encoder import DualStemEncoder, Head
from models.fusion import build_view_fusion
from models.modality import PerModality
from models.person_heads import PersonClassifier, prepare_for_people
from models.text_tower import TextTower
from pipeline.config.eees import CaptionTermsConfig
from pipeline.data.pixel_supply import StreamedPixels
from pipeline.data.transforms.channel_augmentation import channel_views
from pipeline.methods.eees.objective import (
    CaptionLosses,
    fixed_captions,
    learned_captions,
    normalised_by_batch,
)
from pipeline.methods.supervised import person_terms
from pipeline.training.loop import Compute, EpochSteps, run_epoch
from pipeline.training.objective import Objective
from tests.pipeline.methods.test_supervised import batch_of
from tests.pipeline.training.small_training import CPU, SIZE, random_images
from tests.reference.caption_terms import caption_terms

PEOPLE, IMAGES, EMBED, NECK, ATTENTION_HEADS = 4, 3, 6, 7, 2
WIDTHS = {"neck": NECK, "projection": EMBED, "pooled": NECK, "projection_neck": EMBED}
BASE = {"gap_weight": 1.0, "triplet_weight": 0.0, "triplet_softmax": "stable"}
WEIGHTS = CaptionTermsConfig(
    alignment_weight=0.9,
    alignment_target="identity",
    alignment_similarity="cosine",
    temperature=0.1,
    alignment_feature="projection",
    views_weight=0.8,
    distillation="both",
    distillation_weight=0.7,
    distillation_detach=True,
    fused_identity=True,
    purification_weight=0.6,
    purification="msel",
    purification_level="single",
    purification_distance="euclid",
    purification_detach="none",
)


def varied(**changes):
    return WEIGHTS.model_copy(update=changes)


# A step shows two of the four people, three images each, in this order in every third of the batch.
LABELS = torch.tensor([[3, 3, 3, 0, 0, 0], [2, 2, 2, 1, 1, 1]])
# Of 12 visible and 11 infrared images. In the first step a visible image is drawn twice, and one thrice.
POSITIONS = PerModality(
    torch.tensor([[0, 1, 1, 5, 5, 5], [9, 10, 11, 2, 3, 4]]), torch.tensor([[2, 1, 0, 10, 9, 3], [4, 5, 6, 7, 8, 9]])
)
TERMS = ["alignment", "views", "distillation", "fused_identity", "purification"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(count, width, seed):
    return torch.randn(count, width, generator=seeded(seed), dtype=torch.float64)


def random_features():
    """By head: first views, second views and infrared images of a step, a third each; copies look like their image."""
    features = {head: rows(18, width, seed) for seed, (head, width) in enumerate(WIDTHS.items())}
    for own in features.values():
        own[:6] = own[[0, 1, 1, 3, 3, 3]]
    return features


def make_objective(weights=WEIGHTS, kind="separate", captions=None, labels=LABELS):
    classifier = PersonClassifier(NECK, EMBED, PEOPLE, seeded(8)).double()
    with torch.no_grad():
        for weight in classifier.parameters():
            weight.mul_(500)
    neck = nn.BatchNorm1d(EMBED).double()
    nn.init.uniform_(neck.weight, 0.5, 1.5, generator=seeded(9))
    nn.init.uniform_(neck.bias, -0.5, 0.5, generator=seeded(10))
    # The captions of image k of a step are those of `positions`; the people follow `labels`, whichever image it is.
    return SmallObjective(
        labels=labels,
        positions=POSITIONS,
        classifier=classifier,
        captions=(captions or caption_features()).map(fixed_captions),
        images_per_person=IMAGES,
        fusion=build_view_fusion(kind, EMBED, heads=ATTENTION_HEADS, zero_init=False, generator=seeded(11)).double(),
        fused_neck=Neck(neck),
        pooled_map=pooled_map(),
        weights=weights,
    )


@dataclass
class SmallObjective:
    """The terms of EEES, and the people and images of each step."""

    labels: torch.Tensor
    positions: PerModality
    classifier: PersonClassifier
    captions: PerModality
    images_per_person: int
    fusion: nn.Module
    fused_neck: nn.Module
    pooled_map: nn.Module
    weights: CaptionTermsConfig

    def objective(self, step=0):
        device = self.labels.device
        people = self.positions.map(
            lambda at: torch.full((12,), -1, device=device).index_put((at[step],), self.labels[step])
        )
        own = {field.name: getattr(self, field.name) for field in fields(CaptionLosses) if field.name != "people"}
        terms = person_terms(people, self.classifier, **BASE)
        return Objective((*terms, *CaptionLosses(people=people, **own).terms()))


class Neck(nn.Module):
    """Something that owns the neck, so that tests find its weights."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, fused):
        return normalised_by_batch(self.norm)(fused)


def pooled_map():
    layer = nn.utils.skip_init(nn.Linear, NECK, EMBED, dtype=torch.float64)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=seeded(12))
    return layer


def caption_features():
    """Of 12 visible and 11 infrared images."""
    return PerModality(rows(12, EMBED, 20), rows(11, EMBED, 21))


def terms_of(objective, features, step=0):
    positions = objective.positions.map(lambda at: at[step])
    losses = objective.objective(step).losses(batch_of(features, positions))
    losses.pop("total")
    return losses


def gradients(value, leaves):
    found = torch.autograd.grad(value, leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]


def by_name(module):
    return dict(module.named_parameters())


VARIANTS = {
    "defaults": {},
    "instance, raw": {"alignment_target": "instance", "alignment_similarity": "raw"},
    "pooled": {"alignment_feature": "pooled"},
    "features taught, teacher moves": {"distillation": "feature", "distillation_detach": False},
    "relations taught, teacher moves": {"distillation": "relation", "distillation_detach": False},
    "nothing taught, no fused identity": {"distillation": "off", "fused_identity": False},
    "cosines, intra for granted": {"purification_distance": "one_minus_cos", "purification_detach": "intra"},
    "fused purification": {"purification_level": "fused"},
    "association": {"purification": "csia"},
    "fused association": {"purification": "csia", "purification_level": "fused"},
    "no purification": {"purification": "off"},
}


class TestTerms:
    @pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
    @pytest.mark.parametrize(("kind", "step"), [("separate", 0), ("shared", 1), ("text_only", 0)])
    def test_values_and_gradients_are_those_of_the_twin(self, changes, kind, step):
        weights = varied(**changes)
        captions = caption_features().map(torch.Tensor.requires_grad_)
        objective = make_objective(weights, kind, captions)
        features = {head: own.requires_grad_() for head, own in random_features().items()}
        found = {name: value for name, value in terms_of(objective, features, step).items() if name in TERMS}
        source = features[weights.alignment_feature]
        if weights.alignment_feature == "pooled":
            source = objective.pooled_map(source)
        fusion, norm = objective.fusion, objective.fused_neck.norm
        parameters = {"texts": by_name(fusion.texts), "images": by_name(fusion.images) if fusion.images else None}
        expected = caption_terms(
            [source[:6], source[12:]],
            [own[at[step]] for own, at in zip(captions, POSITIONS, strict=True)],
            [at[step] for at in POSITIONS],
            LABELS[step],
            weights,
            (kind, parameters, ATTENTION_HEADS),
            (norm.weight, norm.bias),
            objective.classifier.projection.weight,
            IMAGES,
        )
        assert list(found) == list(expected)
        modules = (fusion, norm, objective.classifier, objective.pooled_map)
        leaves = [*features.values(), *captions, *(own for module in modules for own in module.parameters())]
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)
            for one, other in zip(gradients(found[name], leaves), gradients(value, leaves), strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-9)

    def test_terms_on_people_come_first_and_stay_to_the_last_bit(self):
        objective, features = make_objective(), random_features()
        found = terms_of(objective, features)
        others = {"alignment_weight": 0.0, "views_weight": 0.0, "purification_weight": 0.0}
        people = terms_of(replace(objective, weights=varied(**others)), features)
        assert list(found) == [*people, *TERMS] == ["identity", "gap", *TERMS]
        assert all(torch.equal(found[name], people[name]) for name in people)

    def test_second_views_never_meet_a_caption(self):
        features = random_features()
        moved = {head: own.clone() for head, own in features.items()}
        for own in moved.values():
            own[6:12] += 1.0 + rows(6, own.shape[1], 30)
        for changes in VARIANTS.values():
            objective = make_objective(varied(**changes))
            before, after = terms_of(objective, features), terms_of(objective, moved)
            # The gap leaves them out, too; people are classified on them.
            assert [name for name in before if not torch.equal(before[name], after[name])] == ["identity"]

    @pytest.mark.parametrize("part", [slice(0, 6), slice(12, 18)], ids=["first views", "infrared"])
    def test_first_views_and_infrared_images_enter_every_term(self, part):
        features, objective = random_features(), make_objective()
        moved = {head: own.clone() for head, own in features.items()}
        for own in moved.values():
            own[part] += 1.0 + rows(6, own.shape[1], 31)
        before, after = terms_of(objective, features), terms_of(objective, moved)
        assert not any(torch.equal(before[name], after[name]) for name in before)

    def test_every_step_reads_the_captions_of_its_own_images(self):
        features, objective = random_features(), make_objective()
        captions = caption_features()
        # The first image of either modality is shown in the first step only.
        for own in captions:
            own[0] += 1.0
        other = make_objective(captions=captions)
        first, second = ([terms_of(one, features, step) for one in (objective, other)] for step in (0, 1))
        assert all(torch.equal(second[0][name], second[1][name]) for name in second[0])
        assert not any(torch.equal(first[0][name], first[1][name]) for name in ("alignment", "views", "purification"))

    @pytest.mark.parametrize(
        ("changes", "gone"),
        [
            ({"alignment_weight": 0.0}, ["alignment"]),
            ({"views_weight": 0.0}, ["views", "distillation", "fused_identity"]),
            ({"distillation_weight": 0.0}, ["distillation"]),
            ({"distillation": "off"}, ["distillation"]),
            ({"fused_identity": False}, ["fused_identity"]),
            ({"purification_weight": 0.0}, ["purification"]),
            ({"purification": "off"}, ["purification"]),
        ],
        ids=str,
    )
    def test_a_weight_of_zero_removes_its_terms_and_leaves_the_others_alone(self, changes, gone):
        features = random_features()
        whole = terms_of(make_objective(), features)
        fewer = terms_of(make_objective(varied(**changes)), features)
        assert list(fewer) == [name for name in whole if name not in gone]
        assert all(torch.equal(fewer[name], whole[name]) for name in fewer)

    @pytest.mark.parametrize(
        ("weight", "scaled"),
        [
            ("alignment_weight", {"alignment"}),
            ("views_weight", {"views", "distillation", "fused_identity"}),
            ("distillation_weight", {"distillation"}),
            ("purification_weight", {"purification"}),
        ],
    )
    def test_terms_are_proportional_to_their_weight(self, weight, scaled):
        features = random_features()
        whole = terms_of(make_objective(), features)
        doubled = make_objective(varied(**{weight: 2 * getattr(WEIGHTS, weight)}))
        for name, value in terms_of(doubled, features).items():
            torch.testing.assert_close(value, whole[name] * (2 if name in scaled else 1), rtol=1e-12, atol=0)

    @pytest.mark.parametrize(
        ("changes", "captions", "fusion"),
        [
            ({"alignment_weight": 0.0, "views_weight": 0.0, "purification": "off"}, False, False),
            ({"views_weight": 0.0}, True, False),
            ({"views_weight": 0.0, "purification_level": "fused"}, True, True),
            ({"views_weight": 0.0, "purification_level": "fused", "purification_weight": 0.0}, True, False),
            ({"alignment_weight": 0.0, "purification": "off"}, True, True),
        ],
        ids=["people alone", "no views", "fused purification", "of weight zero", "views alone"],
    )
    def test_what_no_term_needs_is_not_computed(self, changes, captions, fusion):
        called = set()
        objective = make_objective(varied(**changes))

        def read(positions):
            called.add("captions")
            return caption_features().visible[positions % 11]

        objective.fusion.register_forward_hook(lambda *_: called.add("fusion"))
        objective = replace(objective, captions=PerModality(read, read))
        terms_of(objective, random_features())
        assert called == {name for name, wanted in (("captions", captions), ("fusion", fusion)) if wanted}

    def test_people_with_a_single_image_are_taught_nothing(self):
        # Every person shows one image thrice, in either modality: fusion gives all back.
        objective = make_objective()
        thrice = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]])
        objective = replace(objective, positions=PerModality(thrice, thrice))
        features = {head: own.requires_grad_() for head, own in random_features().items()}
        terms = terms_of(objective, features)
        assert terms["distillation"].item() == 0.0
        leaves = [features["projection"], *objective.fusion.parameters()]
        assert all(gradient.count_nonzero() == 0 for gradient in gradients(terms["distillation"], leaves))

    def test_one_image_a_person_is_its_own_fused_view(self):
        labels = torch.tensor([[0, 1, 2, 3, 1, 2], [0, 1, 2, 3, 1, 2]])
        objective = replace(make_objective(labels=labels), images_per_person=1)
        terms = terms_of(objective, random_features())
        assert terms["distillation"].item() == 0.0
        # Weights of 0.8 and 0.9 on the same contrast.
        assert terms["views"].item() / 0.8 == pytest.approx(terms["alignment"].item() / 0.9, rel=1e-12)

    @pytest.mark.parametrize("detach", [True, False])
    @pytest.mark.parametrize("kind", ["feature", "relation", "both"])
    def test_what_teaches_learns_from_distillation_only_where_it_may_move(self, detach, kind):
        objective = make_objective(varied(distillation=kind, distillation_detach=detach))
        features = {head: own.requires_grad_() for head, own in random_features().items()}
        loss = terms_of(objective, features)["distillation"]
        assert gradients(loss, [features["projection"]])[0].count_nonzero() > 0
        found = gradients(loss, [*objective.fusion.parameters()])
        if detach:
            assert all(gradient.count_nonzero() == 0 for gradient in found)
        else:
            # Images teach by their directions, texts in relations only.
            taught_by = objective.fusion.images if kind == "feature" else objective.fusion
            assert all(gradient.count_nonzero() > 0 for gradient in gradients(loss, [*taught_by.parameters()]))

    def test_fused_views_that_were_given_back_teach_nothing(self):
        objective = make_objective()
        with torch.no_grad():
            for fusion in (objective.fusion.images, objective.fusion.texts):
                nn.init.zeros_(fusion.output.weight)
                nn.init.zeros_(fusion.output.bias)
        assert terms_of(objective, random_features())["distillation"].item() == 0.0

    def test_every_weight_is_read(self):
        changed = {"temperature": 0.2}
        seen = {name for change in VARIANTS.values() for name in change} | set(changed)
        scaled = {"alignment_weight", "views_weight", "distillation_weight", "purification_weight"}
        assert set(CaptionTermsConfig.model_fields) == seen | scaled
        features = random_features()
        before, after = (terms_of(make_objective(weights), features) for weights in (WEIGHTS, varied(**changed)))
        assert {name for name in before if not torch.equal(before[name], after[name])} == {"alignment", "views"}

    def test_all_features_are_asked_for(self):
        assert make_objective().objective().heads == frozenset(Head)

    def test_no_term_asks_for_a_number_that_a_gpu_would_have_to_be_waited_for(self):
        # Tensors of the device `meta` have a shape and no values: whatever needs one fails.
        def away(value):
            return copy.deepcopy(value).to("meta")

        objective = make_objective()
        objective = replace(
            objective,
            classifier=away(objective.classifier),
            labels=away(objective.labels),
            captions=caption_features().map(lambda own: fixed_captions(away(own))),
            positions=objective.positions.map(away),
            fusion=away(objective.fusion),
            fused_neck=away(objective.fused_neck),
        )
        features = {head: away(own).requires_grad_() for head, own in random_features().items()}
        for purification, level in (("msel", "single"), ("csia", "fused")):
            weights = varied(purification=purification, purification_level=level)
            terms = terms_of(replace(objective, weights=weights), features)
            torch.stack([*terms.values()]).sum().backward()
        with pytest.raises(RuntimeError, match="meta"):
            terms["views"].item()


def test_a_neck_for_fused_images_leaves_the_running_statistics_alone():
    norm = nn.BatchNorm1d(EMBED).double()
    before = copy.deepcopy(norm.state_dict())
    found = normalised_by_batch(norm)(rows(8, EMBED, 1))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert torch.equal(found, norm(rows(8, EMBED, 1)))
    assert norm.num_batches_tracked.item() == 1  # the norm itself does count


@pytest.fixture(scope="module")
def clip():
    return load_clip("tiny", "random")


CAPTIONS = PerModality(
    [f"a person with {count} bags and a coat" for count in range(9)], ["a person in the dark", *["someone"] * 8]
)


class TestCaptions:
    def test_frozen_and_learned_captions_are_the_same_as_long_as_nothing_was_learned(self, clip):
        tower = TextTower.from_clip(clip)
        positions = torch.tensor([3, 3, 0, 8])
        fixed = fixed_captions(tower.encode_texts(CAPTIONS.visible))(positions)
        learned = learned_captions(tower, tower.cut(tower.tokenize(CAPTIONS.visible)))(positions)
        torch.testing.assert_close(fixed, learned, rtol=0, atol=1e-5)

    def test_learned_captions_ask_for_no_number_in_a_step(self, clip):
        tower = TextTower.from_clip(clip).requires_grad_(True)
        ids = tower.cut(tower.tokenize(CAPTIONS.visible))
        captioned = learned_captions(tower.to("meta"), ids.to("meta"))
        captioned(torch.tensor([3, 3, 0, 8], device="meta")).sum().backward()
        with pytest.raises(RuntimeError, match="meta"):
            tower.from_tokens(ids.to("meta"))  # which looks for the longest


class SmallCaptionStage:
    """An epoch of two steps over 9 images of three people in each modality, with a tower that learns."""

    def __init__(self, clip, learned):
        self.encoder = prepare_for_people(DualStemEncoder.from_clip(clip, image_height=SIZE[0], image_width=SIZE[1]))
        width = self.encoder.projection_width
        self.tower = TextTower.from_clip(clip).requires_grad_(learned)
        self.classifier = PersonClassifier(self.encoder.feature_width, width, 3, seeded(4))
        self.fusion = build_view_fusion("separate", width, heads=4, zero_init=False, generator=seeded(5))
        # Image 3k + p shows person p; two of three people in a step, with all of their images.
        shown = torch.tensor([[0, 3, 6, 1, 4, 7], [8, 5, 2, 6, 3, 0]])
        self.positions = PerModality(shown, (shown + 3) % 9)
        captions = CAPTIONS.map(
            lambda texts: (
                learned_captions(self.tower, self.tower.cut(self.tower.tokenize(texts)))
                if learned
                else fixed_captions(self.tower.encode_texts(texts))
            )
        )
        people = PerModality(torch.arange(9) % 3, torch.arange(9) % 3)
        losses = CaptionLosses(
            people=people,
            classifier=self.classifier,
            captions=captions,
            images_per_person=3,
            fusion=self.fusion,
            fused_neck=normalised_by_batch(self.encoder.projection_neck),
            pooled_map=None,
            weights=WEIGHTS,
        )
        self.objective = Objective((*person_terms(people, self.classifier, **BASE), *losses.terms()))

    def train(self):
        images = PerModality.build(lambda modality: random_images(9, modality))
        parts = [self.encoder, self.classifier, self.fusion, self.tower]
        trained = [own for part in parts for own in part.parameters() if own.requires_grad]
        steps = EpochSteps(
            pixels=images.map(lambda some: StreamedPixels(some, CPU)),
            positions=self.positions.map(torch.Tensor.numpy),
            views=channel_views(recipe="channels", padding=4, normalisation="imagenet", generator=seeded(6)),
            groups=PerModality(2, 2),
            setting="batches.images_per_person",
        )
        return run_epoch(self.encoder, torch.optim.Adam(trained, lr=1e-3), self.objective, steps, Compute(CPU))

    def weights(self):
        parts = {"encoder": self.encoder, "people": self.classifier, "fusion": self.fusion, "tower": self.tower}
        return {
            f"{name}.{key}": value.clone() for name, part in parts.items() for key, value in part.state_dict().items()
        }


class TestEpoch:
    @pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
    def test_everything_is_trained_and_the_tower_only_where_it_is_to_learn(self, clip, learned):
        stage = SmallCaptionStage(clip, learned)
        before = stage.weights()
        losses = stage.train()
        assert list(losses) == ["identity", "gap", *TERMS, "total"]
        assert losses.pop("total") == pytest.approx(sum(losses.values()), rel=1e-6)
        same = {name for name, value in stage.weights().items() if torch.equal(value, before[name])}
        assert {name for name in same if not name.startswith("tower.")} == set()
        towers = {name for name in before if name.startswith("tower.")}
        assert (towers & same) == (set() if learned else towers)
        if not learned:
            assert all(parameter.grad is None for parameter in stage.tower.parameters())

    def test_the_same_epoch_twice_gives_the_same_bits(self, clip):
        one, other = SmallCaptionStage(clip, True), SmallCaptionStage(clip, True)
        assert one.train() == other.train()
        weights = other.weights()
        assert all(torch.equal(value, weights[name]) for name, value in one.weights().items())
