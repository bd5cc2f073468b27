"""Texts of people: what a step minimises, what it shows, what changes, and what is refused."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from models.clip import load_clip
from models.fusion import build_fusion
from models.modality import Modality, PerModality
from models.prompts import SENTENCES, PromptBank
from models.text_tower import TextTower
from pipeline.errors import TrainingError
from pipeline.methods.csdn import prompts as person_texts
from pipeline.methods.csdn.prompts import SHARED_SENTENCE, PersonFeatures, learn_fusion, learn_person_prompts
from pipeline.runtime.seeds import numpy_generator, torch_generator
from tests.reference import person_terms as reference
from tests.reference.schedules import CSDN_PROMPTS

PEOPLE = 3
LABELS = PerModality(
    np.array([0, 1, 2, 0, 1, -1], dtype=np.int64),
    np.array([2, 1, 0, 0, -1], dtype=np.int64),
)
# Seven different pairs of images of the same person, of people 0 1 2 0 1 0 0.
PAIRS = PerModality(np.array([0, 1, 2, 3, 4, 0, 3]), np.array([3, 1, 0, 2, 1, 2, 3]))
LEARNED_FUSIONS = ["residual_mlp", "concat", "attn2"]


@pytest.fixture(scope="module")
def tower():
    """In float64, so that nothing but the order of sums differs between twins."""
    return TextTower.from_clip(load_clip("tiny", "random")).double()


def known_people(tower, scale=1.0):
    """Images of a person lie around a point of the person's own, in both modalities."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(PEOPLE + 1, tower.embed_dim, generator=generator, dtype=torch.float64)

    def draw(labels):
        noise = torch.randn(len(labels), tower.embed_dim, generator=generator, dtype=torch.float64)
        return scale * (centres[torch.from_numpy(labels)] + 0.3 * noise)

    return PersonFeatures(LABELS.map(draw), LABELS, PEOPLE)


def first_words(modality, seed=1):
    return torch_generator(seed, "init", modality)


def order_of(epoch):
    return numpy_generator(1, "batches", epoch)


def learn(tower, known=None, **changed):
    told = {
        "template": "shared",
        "banks": "two",
        "positives": "joint",
        "num_context": 4,
        "epochs": 2,
        "batch_size": 3,
        "learning_rate": 1e-2,
        "warmup_epochs": 1,
        "weight_decay": 1e-4,
        "init_generator": first_words,
        "batch_generator": order_of,
        "pairs": lambda _: PAIRS,
    } | changed
    pairs = told.pop("pairs")
    return learn_person_prompts(known or known_people(tower), tower, pairs, **told)


def two_texts(tower):
    banks = banks_of(tower)
    with torch.no_grad():
        return banks.map(lambda bank: bank.encode(tower, torch.arange(PEOPLE)))


def fuse(tower, fusion, texts=None, known=None, positions=PAIRS, **changed):
    told = {
        "epochs": 2,
        "batch_size": 5,
        "learning_rate": 1e-2,
        "warmup_epochs": 1,
        "weight_decay": 1e-4,
        "prototype_dropout": False,
        "batch_generator": order_of,
    } | changed
    return learn_fusion(known or known_people(tower), texts or two_texts(tower), fusion, positions, **told)


def new_fusion(tower, kind="residual_mlp", dropout=0.0):
    return build_fusion(kind, tower.embed_dim, dropout, torch.Generator().manual_seed(5)).double()


def banks_of(tower, template="shared", banks="two"):
    """The banks as they are before the first step, made from the same draws."""
    made = PerModality.build(
        lambda modality: PromptBank(
            tower,
            SHARED_SENTENCE if template == "shared" else SENTENCES[modality],
            PEOPLE,
            generator=first_words(modality),
        )
    )
    return made if banks == "two" else PerModality(made.visible, made.visible)


@dataclass
class Fitting:
    """What would have been minimised, in place of minimising it."""

    told: dict = field(default_factory=dict)

    def __call__(self, parameters, epochs, batches, loss, **told):
        self.told = {"parameters": parameters, "epochs": epochs, "batches": batches, "loss": loss} | told
        return 0.0

    def __getattr__(self, name):
        return self.told[name]


@pytest.fixture
def fitting(monkeypatch):
    """Nothing is learned: the batches and the loss of a step are looked at."""
    instead = Fitting()
    monkeypatch.setattr(person_texts, "fit_texts", instead)
    return instead


def leaves_of(banks):
    return list({id(bank): bank.context for bank in banks}.values())


def assert_same_loss(found, parameters, expected, twin_parameters, tolerance=1e-10):
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=tolerance)
    gradients = torch.autograd.grad(found, parameters), torch.autograd.grad(expected, twin_parameters)
    for one, other in zip(*gradients, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=0, atol=10 * tolerance)


class TestPromptLoss:
    @pytest.mark.parametrize("banks", ["two", "one"])
    @pytest.mark.parametrize("template", ["shared", "per_modality"])
    @pytest.mark.parametrize("positives", ["joint", "per_modality"])
    def test_it_is_the_sum_over_all_pairs_with_every_text_encoded_for_itself(
        self, tower, fitting, positives, template, banks
    ):
        known = known_people(tower)
        learn(tower, known, positives=positives, template=template, banks=banks)
        twins = banks_of(tower, template, banks)
        people = torch.from_numpy(LABELS.visible[PAIRS.visible])
        images = known.features.map_with(lambda some, at: some[torch.from_numpy(at)], PAIRS)
        expected = reference.prompt_loss(images, twins.map(lambda bank: bank.encode(tower, people)), people, positives)
        assert_same_loss(fitting.loss(PAIRS), fitting.parameters, expected, leaves_of(twins))

    def test_leaving_out_positives_of_the_other_modality_changes_it(self, tower, fitting):
        losses = []
        for positives in ("joint", "per_modality"):
            learn(tower, positives=positives)
            losses.append(fitting.loss(PAIRS).item())
        assert abs(losses[0] - losses[1]) > 0.1

    def test_with_one_image_of_each_modality_a_person_has_two_positives(self, tower, fitting):
        known = known_people(tower)
        learn(tower, known)
        # Images 0 and 1 are visible and show 0 and 1, infrared images 2 and 1 show them too.
        pairs = PerModality(np.array([0, 1]), np.array([2, 1]))
        texts = two_texts(tower)
        images = torch.cat([known.features.visible[:2], known.features.infrared[[2, 1]]])
        similarities = images @ torch.cat([texts.visible[:2], texts.infrared[:2]]).T
        # Row i has positives i and its twin two places on: half of each.
        twin = [2, 3, 0, 1]
        own = torch.stack([(similarities[i, i] + similarities[i, twin[i]]) / 2 for i in range(4)])
        theirs = torch.stack([(similarities[i, i] + similarities[twin[i], i]) / 2 for i in range(4)])
        expected = (similarities.logsumexp(1) - own).mean() + (similarities.logsumexp(0) - theirs).mean()
        torch.testing.assert_close(fitting.loss(pairs).detach(), expected, rtol=0, atol=1e-10)

    def test_one_bank_has_one_set_of_words_and_gives_both_modalities_the_same_texts(self, tower, fitting):
        texts, _ = learn(tower, banks="one")
        assert len(fitting.parameters) == 1
        assert torch.equal(texts.visible, texts.infrared)
        texts, _ = learn(tower, banks="two")
        assert len(fitting.parameters) == 2
        assert not torch.equal(texts.visible, texts.infrared)

    @pytest.mark.usefixtures("fitting")
    def test_without_a_step_the_texts_are_those_of_the_first_words(self, tower):
        texts, _ = learn(tower)
        texts.map_with(lambda one, other: torch.testing.assert_close(one, other, rtol=0, atol=1e-12), two_texts(tower))


class TestSteps:
    def test_an_epoch_shows_full_batches_of_pairs_in_a_new_order_and_drops_the_rest(self, tower, fitting):
        learn(tower, batch_size=3)
        pairs = set(zip(*(at.tolist() for at in PAIRS), strict=True))
        shown = []
        for epoch in (1, 2, 1):
            batches = list(fitting.batches(epoch))
            assert [[len(at) for at in batch] for batch in batches] == [[3, 3], [3, 3]]
            shown.append([pair for batch in batches for pair in zip(*(at.tolist() for at in batch), strict=True)])
            assert len(set(shown[-1])) == 6 and set(shown[-1]) <= pairs
        assert shown[0] == shown[2] != shown[1]

    @pytest.mark.parametrize("batch_size", [7, 8, 32])
    def test_fewer_pairs_than_a_batch_make_one_smaller_batch(self, tower, fitting, batch_size):
        learn(tower, batch_size=batch_size)
        (batch,) = fitting.batches(1)
        assert sorted(batch.visible.tolist()) == sorted(PAIRS.visible.tolist())

    def test_pairs_are_asked_for_in_every_epoch(self, tower):
        asked = []

        def pairs(epoch):
            asked.append(epoch)
            return PAIRS

        learn(tower, pairs=pairs, epochs=3)
        assert asked == [1, 2, 3]

    def test_fusion_shows_full_batches_of_both_modalities_mixed_and_drops_the_rest(self, tower, fitting):
        fuse(tower, new_fusion(tower), batch_size=5)
        one, other, again = (list(fitting.batches(epoch)) for epoch in (1, 2, 1))
        # Seven visible and seven infrared features: two batches of five.
        assert [len(batch) for batch in one] == [5, 5]
        shown = np.concatenate(one)
        assert len(set(shown.tolist())) == 10 and shown.min() >= 0 and shown.max() < 14
        assert np.array_equal(shown, np.concatenate(again)) and not np.array_equal(shown, np.concatenate(other))
        fuse(tower, new_fusion(tower), batch_size=64)
        (batch,) = fitting.batches(1)
        assert sorted(batch.tolist()) == list(range(14))

    def test_sysu_mm01_has_696_steps_an_epoch_in_both_stages(self, tower, fitting):
        # One pass of the sampler: 22,258 // 32 + 1 = 696 batches of 32 pairs; twice as many features in batches of 64.
        pairs = PerModality(*(np.zeros(22_272, dtype=np.int64) for _ in Modality))
        learn(tower, pairs=lambda _: pairs, batch_size=32)
        assert sum(1 for _ in fitting.batches(1)) == 696
        fuse(tower, new_fusion(tower), positions=pairs, batch_size=64)
        assert sum(1 for _ in fitting.batches(1)) == 696

    def test_both_stages_follow_the_table_of_csdn_whose_schedule_starts_at_zero(self, tower, fitting):
        told = {"epochs": 60, "learning_rate": 3e-4, "warmup_epochs": 5}
        for start in (lambda: learn(tower, **told), lambda: fuse(tower, new_fusion(tower), **told)):
            start()
            assert fitting.epochs == 60
            rates = {epoch: fitting.rate(epoch) for epoch in CSDN_PROMPTS}
            assert rates == pytest.approx(CSDN_PROMPTS, rel=5e-7)


class TestFusion:
    @pytest.mark.parametrize("kind", LEARNED_FUSIONS)
    def test_fixed_texts_give_the_losses_and_gradients_of_texts_encoded_anew_for_every_image(
        self, tower, fitting, kind
    ):
        known, fusion, twin = known_people(tower), new_fusion(tower, kind), new_fusion(tower, kind)
        fuse(tower, fusion, known=known)
        features = torch.cat([known.features.visible[PAIRS.visible], known.features.infrared[PAIRS.infrared]])
        people = np.concatenate([LABELS.visible[PAIRS.visible], LABELS.infrared[PAIRS.infrared]])
        banks = banks_of(tower)
        for batch in (np.array([0, 8, 3, 13, 7]), np.array([2, 9]), np.arange(14)):
            rows = torch.from_numpy(people[batch])
            texts = twin(*banks.map(lambda bank, rows=rows: bank.encode(tower, rows)))
            expected = reference.both_ways(features[batch], texts, rows)
            assert_same_loss(fitting.loss(batch), fitting.parameters, expected, list(twin.parameters()), 1e-9)

    def test_steps_on_fixed_texts_lead_where_steps_that_encode_them_lead(self, tower):
        known, fusion, twin = known_people(tower), new_fusion(tower), new_fusion(tower)
        _, mean = fuse(tower, fusion, known=known, epochs=3)
        features = torch.cat([known.features.visible[PAIRS.visible], known.features.infrared[PAIRS.infrared]])
        people = torch.from_numpy(np.concatenate([LABELS.visible[PAIRS.visible], LABELS.infrared[PAIRS.infrared]]))
        banks = banks_of(tower)
        optimiser = torch.optim.Adam(twin.parameters(), weight_decay=1e-4)
        # The climb ends after one epoch: 1e-5 first, then 1e-6 + (1e-2 - 1e-6) (1 + cos(pi t / 3)) / 2 for t = 1, 2.
        for epoch, rate in ((1, 1e-5), (2, 1e-6 + 0.75 * 0.009999), (3, 1e-6 + 0.25 * 0.009999)):
            losses = []
            order = order_of(epoch).permutation(14)
            for batch in (order[:5], order[5:10]):
                optimiser.param_groups[0]["lr"] = rate
                texts = twin(*banks.map(lambda bank, batch=batch: bank.encode(tower, people[batch])))
                loss = reference.both_ways(features[batch], texts, people[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
        assert mean == pytest.approx(sum(losses) / 2, rel=1e-6)
        for one, other in zip(fusion.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("kind", LEARNED_FUSIONS)
    def test_only_the_fusion_changes_and_the_result_is_read_out_without_dropout(self, tower, kind):
        known, texts, fusion = known_people(tower), two_texts(tower), new_fusion(tower, kind, dropout=0.5)
        kept, features = texts.map(torch.clone), known.features.map(torch.clone)
        frozen = {name: value.clone() for name, value in tower.state_dict().items()}
        before = [parameter.detach().clone() for parameter in fusion.parameters()]
        fused, mean = fuse(tower, fusion, texts, known)
        assert not any(torch.equal(one, other) for one, other in zip(before, fusion.parameters(), strict=True))
        for own, copies in ((texts, kept), (known.features, features)):
            assert all(torch.equal(one, other) for one, other in zip(own, copies, strict=True))
            assert all(one.grad is None for one in own)
        assert all(torch.equal(value, frozen[name]) for name, value in tower.state_dict().items())
        assert all(parameter.grad is None for parameter in tower.parameters())
        assert torch.equal(fused, fusion.eval()(*texts)) and not fused.requires_grad
        assert fused.shape == (PEOPLE, tower.embed_dim) and mean > 0

    def test_the_sum_has_nothing_to_learn(self, tower, fitting):
        texts = two_texts(tower)
        fused, mean = fuse(tower, new_fusion(tower, "sum"), texts)
        assert torch.equal(fused, texts.visible + texts.infrared)
        assert mean == 0.0 and fitting.told == {}

    @pytest.mark.usefixtures("fitting")
    def test_dropout_takes_part_in_the_result_only_if_wanted(self, tower):
        texts, fusion = two_texts(tower), new_fusion(tower, dropout=0.5)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            whole, _ = fuse(tower, fusion, texts)
            dropped, _ = fuse(tower, fusion, texts, prototype_dropout=True)
        assert torch.equal(whole, fusion.eval()(*texts))
        assert not torch.allclose(whole, dropped)


class TestLearning:
    def test_only_the_words_change(self, tower):
        known = known_people(tower)
        features = known.features.map(torch.clone)
        frozen = {name: value.clone() for name, value in tower.state_dict().items()}
        texts, mean = learn(tower, known)
        assert all(torch.equal(value, frozen[name]) for name, value in tower.state_dict().items())
        assert all(parameter.grad is None for parameter in tower.parameters())
        assert all(torch.equal(one, other) for one, other in zip(known.features, features, strict=True))
        assert all(one.grad is None for one in known.features)
        assert not any(text.requires_grad for text in texts)
        for text, before in zip(texts, two_texts(tower), strict=True):
            assert text.shape == before.shape and not torch.allclose(text, before)
        assert mean > 0

    @pytest.mark.parametrize("banks", ["two", "one"])
    def test_texts_come_to_name_the_images_of_their_person(self, tower, banks):
        known = known_people(tower)

        def agreement(texts):
            right = []
            for text, own, labels in zip(texts, known.features, LABELS, strict=True):
                shown = labels >= 0
                right += ((own[shown] @ text.T).argmax(dim=1).numpy() == labels[shown]).tolist()
            return np.mean(right)

        texts, _ = learn(tower, known, banks=banks, epochs=25, learning_rate=3e-2)
        assert agreement(two_texts(tower)) < 1.0
        assert agreement(texts) == 1.0

    def test_images_that_are_left_out_take_no_part(self, tower):
        known, changed = known_people(tower), known_people(tower)
        changed.features.visible[5] = 100.0
        changed.features.infrared[4] = -100.0
        (one, mean), (other, other_mean) = learn(tower, known), learn(tower, changed)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)) and mean == other_mean

    def test_the_same_seeds_give_the_same_texts_and_others_others(self, tower):
        def results(seed):
            texts, mean = learn(tower, init_generator=lambda modality: first_words(modality, seed))
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                fused, fused_mean = fuse(tower, new_fusion(tower, dropout=0.5), texts)
            return [*texts, fused, torch.tensor([mean, fused_mean])]

        one, same, other = (results(seed) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    def test_a_loss_that_is_not_finite_ends_either_stage_with_the_setting_to_lower(self, tower):
        known = known_people(tower, scale=float("inf"))
        with pytest.raises(TrainingError, match="loss of texts is not finite in epoch 1") as caught:
            learn(tower, known)
        assert "prompts.learning_rate" in caught.value.hint
        with pytest.raises(TrainingError, match="loss of texts is not finite in epoch 1") as caught:
            fuse(tower, new_fusion(tower), known=known)
        assert "fusion.learning_rate" in caught.value.hint
