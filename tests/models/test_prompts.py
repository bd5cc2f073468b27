import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.clip import LoadedClip
from models.prompts import SENTENCES, PromptBank, warm_start
from models.text_tower import TextTower
from pipeline.config.cclnet import PromptsConfig
from pipeline.config.csdn import PersonPromptsConfig
from pipeline.methods.csdn.prompts import SHARED_SENTENCE
from tests.reference.prompts import text_features, warm_start_sources

PLAIN = "A photo of a {} person."
START, END = 49406, 49407


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tower(tiny_clip: LoadedClip) -> TextTower:
    return TextTower.from_clip(tiny_clip)


@pytest.fixture(scope="module")
def exact_tower(tiny_clip: LoadedClip) -> TextTower:
    return TextTower.from_clip(tiny_clip).double()


@pytest.mark.parametrize(
    ("sentence", "template", "first", "eot"),
    [
        (SENTENCES.visible, "A visible photo of a X X X X person.", 6, 12),
        (SENTENCES.infrared, "An infrared photo of a X X X X person.", 6, 12),
        (PLAIN, "A photo of a X X X X person.", 5, 11),
    ],
)
def test_layout_of_a_prompt(tower: TextTower, sentence: str, template: str, first: int, eot: int) -> None:
    # Start of text, five words (four without a modality), four learned vectors, "person", the full stop, end of text.
    bank = PromptBank(tower, sentence, 3, generator=generator())
    assert (bank.eot, bank.num_rows) == (eot, 3)
    assert (len(bank.prefix), len(bank.suffix)) == (first, eot + 1 - first - 4)
    ids = tower.tokenize([template])
    assert ids.shape == (1, 77)
    assert ids[0, [0, eot]].tolist() == [START, END]
    words = tower.token_embedding(ids)[0]
    prompt = bank.embeddings(torch.tensor([2]))[0]
    assert torch.equal(prompt[:first], words[:first])
    assert torch.equal(prompt[first : first + 4], bank.context[2])
    assert torch.equal(prompt[first + 4 :], words[first + 4 : eot + 1])


def test_learned_vectors_start_normal_with_deviation_two_hundredths(tower: TextTower) -> None:
    context = PromptBank(tower, PLAIN, 100, generator=generator()).context
    assert context.shape == (100, 4, 64)
    # 25,600 draws: the deviation of the mean is 0.02 / 160 = 0.000125, that of the deviation about 0.00009.
    assert abs(context.mean().item()) < 0.0006
    assert context.std().item() == pytest.approx(0.02, abs=0.0005)
    assert torch.equal(context, PromptBank(tower, PLAIN, 100, generator=generator()).context)
    assert not torch.equal(context, PromptBank(tower, PLAIN, 100, generator=generator(1)).context)


def test_only_the_learned_vectors_are_saved(tower: TextTower) -> None:
    bank = PromptBank(tower, PLAIN, 2, generator=generator())
    assert list(bank.state_dict()) == ["context"]
    assert [name for name, _ in bank.named_parameters()] == ["context"]


@pytest.mark.parametrize("sentence", ["A photo of a person.", "A X photo of {} people."])
def test_a_sentence_without_one_place_for_learned_vectors_is_refused(tower: TextTower, sentence: str) -> None:
    with pytest.raises(ValueError, match="cannot hold 4 learned vectors"):
        PromptBank(tower, sentence, 2, generator=generator())


@pytest.mark.parametrize("sentence", [*SENTENCES, SHARED_SENTENCE])
def test_every_number_of_learned_vectors_that_settings_accept_has_room(tower: TextTower, sentence: str) -> None:
    for num_context in range(1, 17):
        bank = PromptBank(tower, sentence, 2, num_context=num_context, generator=generator())
        assert bank.context.shape == (2, num_context, 64)
        assert bank.encode(tower, torch.arange(2)).shape == (2, tower.embed_dim)
    for config in (PromptsConfig, PersonPromptsConfig):
        bounds = config.model_json_schema()["properties"]["num_context"]
        assert (bounds["minimum"], bounds["maximum"]) == (1, 16)


def test_a_prompt_longer_than_the_context_is_refused(tower: TextTower) -> None:
    # Start of text, four words, the vectors, "person", the full stop, end of text: 69 vectors fill 77 tokens.
    assert PromptBank(tower, PLAIN, 2, num_context=69, generator=generator()).eot == 76
    for num_context in (0, 70, 71, 72, 100):
        with pytest.raises(ValueError, match=f"cannot hold {num_context} learned vectors in 77 tokens"):
            PromptBank(tower, PLAIN, 2, num_context=num_context, generator=generator())


def test_a_bank_without_clusters_is_refused(tower: TextTower) -> None:
    with pytest.raises(ValueError, match="at least one cluster"):
        PromptBank(tower, PLAIN, 0, generator=generator())


@pytest.mark.parametrize(("exact", "tolerance"), [(True, 1e-10), (False, 1e-4)])
def test_a_prompt_cut_at_its_end_equals_the_full_run(
    tower: TextTower, exact_tower: TextTower, exact: bool, tolerance: float
) -> None:
    dtype = torch.float64 if exact else torch.float32
    bank = PromptBank(exact_tower if exact else tower, SENTENCES.visible, 2, generator=generator()).to(dtype)
    theirs = bank.context.detach().double().requires_grad_()
    rows = torch.tensor([1, 0])
    weights = torch.randn(2, 32, generator=generator(), dtype=torch.float64)

    features = bank.encode(exact_tower if exact else tower, rows)
    padding = exact_tower.token_embedding(torch.zeros(2, 77 - 13, dtype=torch.int64))
    fixed = [words.double().expand(2, -1, -1) for words in (bank.prefix, bank.suffix)]
    full = torch.cat([fixed[0], theirs[rows], fixed[1], padding], dim=1)
    expected = text_features(exact_tower, full, [12, 12])
    torch.testing.assert_close(features.double(), expected, rtol=0, atol=tolerance)

    (features.double() * weights).sum().backward()
    (expected * weights).sum().backward()
    assert bank.context.grad is not None
    torch.testing.assert_close(bank.context.grad.double(), theirs.grad, rtol=0, atol=10 * tolerance)


def test_what_follows_the_end_of_a_text_changes_nothing(tower: TextTower) -> None:
    ids = tower.tokenize(["a visible photo of a person."])
    eot = int(tower.ends(ids)[0])
    embeddings = tower.token_embedding(ids)
    after = torch.arange(eot + 1, 77).flip(0)
    permuted = embeddings[:, [*range(eot + 1), *after.tolist()]] + 0
    permuted[:, eot + 1 :] *= 3
    assert torch.equal(tower.from_embeddings(permuted, eot), tower.from_embeddings(embeddings, eot))
    assert torch.equal(tower.from_embeddings(embeddings[:, : eot + 1], eot), tower.from_embeddings(embeddings, eot))


@pytest.mark.parametrize(("length", "eot"), [(12, 12), (80, 78)])
def test_a_text_that_ends_beyond_its_embeddings_or_the_tower_is_refused(
    tower: TextTower, length: int, eot: int
) -> None:
    with pytest.raises(ValueError, match=f"ends at position {eot} .* {length} embeddings .* 77 positions"):
        tower.from_embeddings(torch.zeros(1, length, 64), eot)


@pytest.mark.parametrize("name", ["tiny_clip", "vit_clip", "mean_vit_clip"])
def test_texts_of_any_length_agree_with_open_clip(name: str, request: pytest.FixtureRequest) -> None:
    clip: LoadedClip = request.getfixturevalue(name)
    tower = TextTower.from_clip(clip)
    ids = tower.tokenize(["a person", "an infrared photo of a person with a very long description, and a bag", ""])
    with torch.no_grad():
        expected = clip.model.encode_text(ids)  # type: ignore[operator]
        torch.testing.assert_close(tower.from_tokens(ids), expected, rtol=0, atol=1e-5)
    assert tower.embed_dim == expected.shape[1]


def test_prompts_and_tokens_share_one_body(tower: TextTower) -> None:
    ids = tower.tokenize(["a red coat", "a red coat"])
    from_ids = tower.from_tokens(ids)
    torch.testing.assert_close(tower.from_embeddings(tower.token_embedding(ids), 4), from_ids, rtol=0, atol=1e-6)


def test_only_the_learned_vectors_change_in_a_step(tower: TextTower) -> None:
    bank = PromptBank(tower, SENTENCES.infrared, 5, generator=generator())
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    context = bank.context.detach().clone()
    optimiser = torch.optim.SGD([*bank.parameters(), *tower.parameters()], lr=1.0)
    bank.encode(tower, torch.tensor([0, 3])).sum().backward()
    optimiser.step()
    assert all(parameter.grad is None for parameter in tower.parameters())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.state_dict().items())
    changed = (bank.context != context).flatten(1).any(dim=1)
    assert changed.tolist() == [True, False, False, True, False]  # and only those of the encoded clusters


def test_the_clip_model_keeps_its_own_trainable_tower(tiny_clip: LoadedClip, tower: TextTower) -> None:
    assert all(parameter.requires_grad for parameter in tiny_clip.model.parameters())
    assert tower.token_embedding.weight.data_ptr() != tiny_clip.model.get_parameter("token_embedding.weight").data_ptr()


def test_chunks_change_no_feature_and_no_gradient(exact_tower: TextTower) -> None:
    bank = PromptBank(exact_tower, PLAIN, 5, generator=generator()).double()
    rows = torch.tensor([4, 0, 2, 1, 3])
    results = []
    for chunk in (1, 2, 5):
        features = bank.encode(exact_tower, rows, chunk)
        (gradient,) = torch.autograd.grad(features.square().sum(), bank.context)
        results.append((features.detach(), gradient))
    for features, gradient in results[1:]:
        torch.testing.assert_close(features, results[0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=1e-12)


def test_a_repeated_cluster_gets_the_same_gradient_as_one_that_is_gathered(exact_tower: TextTower) -> None:
    bank = PromptBank(exact_tower, PLAIN, 3, generator=generator()).double()
    weights = torch.randn(4, 32, generator=generator(), dtype=torch.float64)
    repeated = (bank.encode(exact_tower, torch.tensor([2, 0, 2, 2])) * weights).sum()
    gathered = (bank.encode(exact_tower, torch.tensor([0, 2]))[[1, 0, 1, 1]] * weights).sum()
    (one,) = torch.autograd.grad(repeated, bank.context)
    (other,) = torch.autograd.grad(gathered, bank.context)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_tower_that_reads_the_whole_text_at_once_is_refused(vit_clip: LoadedClip) -> None:
    class BothWays(torch.nn.Module):
        attn_mask = None

    with pytest.raises(ValueError, match="causal"):
        TextTower(BothWays(), None, vit_clip.tokenizer)


def test_warm_start_of_a_split_a_merge_a_new_cluster_and_a_tie() -> None:
    # image    0  1  2  3  4  5  6  7  8  9
    old = np.array([0, 0, 0, 0, 1, 1, 2, -1, -1, 1])
    new = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, -1])
    # new 0: two images of old 0 (split). new 1: the other two (split). new 2: two of old 1, one of old 2 (merge).
    # new 3: outliers only (new). With image 6 moved, new 2 holds one of old 1 and one of old 2 (tie, the smaller wins).
    context = torch.arange(3.0).view(3, 1, 1).expand(3, 4, 8).clone()
    started = warm_start(context, new, old, 4, generator())
    assert started[:3, 0, 0].tolist() == [0, 0, 1]
    assert 0 < started[3].abs().max().item() < 0.1  # drawn with deviation 0.02
    new[4] = 3
    tied = warm_start(context, new, old, 4, generator())
    assert tied[2:, 0, 0].tolist() == [1, 1]
    assert torch.equal(context[:, 0, 0], torch.arange(3.0))


@pytest.mark.parametrize(
    ("new", "old", "message"), [([3], [0], "new label 3 with 3"), ([0], [2], "old label 2 with 2")]
)
def test_warm_start_refuses_a_label_without_a_prompt(new: list[int], old: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warm_start(torch.zeros(2, 4, 8), np.array(new), np.array(old), 3, generator())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 3)), max_size=30))
def test_warm_start_agrees_with_counting(images: list[tuple[int, int]]) -> None:
    new = np.array([new for new, _ in images], dtype=np.int64)
    old = np.array([old for _, old in images], dtype=np.int64)
    context = torch.arange(1.0, 5.0).view(4, 1, 1).expand(4, 2, 3).clone().requires_grad_()
    started = warm_start(context, new, old, 5, generator())
    assert not started.requires_grad
    for row, source in zip(started, warm_start_sources(new.tolist(), old.tolist(), 5, 4), strict=True):
        if source is None:
            assert (row.abs() < 0.2).all()
        else:
            assert (row == 1 + source).all()
