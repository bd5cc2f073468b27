"""Captions through the text tower: cut at the context, counted before that, encoded once, or with trainable weights."""

import pytest
import torch

from models.clip import count_tokens
from models.text_tower import TextTower
from tests.reference.prompts import text_features

START, END = 49406, 49407
LONG = " ".join(["coat"] * 100)
CAPTIONS = ["a man in a red coat", "a woman", LONG, "", "a man in a red coat", "a person with a bag and white shoes"]


@pytest.fixture(scope="module")
def tower(tiny_clip):
    return TextTower.from_clip(tiny_clip)


def make_tower(clip, *, trainable=False):
    return TextTower.from_clip(clip).double().requires_grad_(trainable)


@pytest.mark.parametrize(("words", "last"), [(74, 75), (75, 76), (76, 76), (100, 76)])
def test_a_caption_is_cut_at_the_context_and_still_ends_as_a_text(tower, words, last):
    # Start and end take two of 77 places, so that 75 words fit.
    (row,) = ids = tower.tokenize([" ".join(["coat"] * words)])
    assert len(row) == 77
    assert (row[0].item(), row[last].item()) == (START, END)
    assert (row[1:last] == row[1]).all() and (row[last + 1 :] == 0).all()
    assert tower.ends(ids).tolist() == [last]


def test_tokens_are_counted_with_both_ends_and_before_a_text_is_cut():
    # Start and end alone; three words; a hundred; "coat" thrice with a full stop and a clitic: coat 's coat . coat.
    assert count_tokens(["", "A red  coat", LONG, "coat's coat. coat"]).tolist() == [2, 5, 102, 7]


def test_a_count_that_fits_is_the_place_behind_the_end(tower):
    fitting = [caption for caption in CAPTIONS if caption != LONG]
    assert count_tokens(fitting).tolist() == (tower.ends(tower.tokenize(fitting)) + 1).tolist()


def test_tokens_are_cut_behind_the_longest_text(tower):
    ids = tower.tokenize(["a woman", "a man in a red coat"])
    # Six words between the ends of the longer one.
    assert torch.equal(tower.cut(ids), ids[:, :8])
    assert torch.equal(tower.from_cut_tokens(ids[:, :8]), tower.from_tokens(ids))
    assert tower.cut(ids[:0]).shape == (0, 1) and tower.from_tokens(ids[:0]).shape == (0, tower.embed_dim)


@pytest.mark.parametrize("length", [8, 20, 77])
def test_a_batch_cut_further_behind_gives_the_same_features(tower, length):
    ids = tower.tokenize(["a woman", "a man in a red coat"])
    torch.testing.assert_close(tower.from_cut_tokens(ids[:, :length]), tower.from_tokens(ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_captions_encoded_beforehand_are_those_encoded_in_a_step(tower, chunk):
    found = tower.encode_texts(CAPTIONS, chunk)
    assert not found.requires_grad
    torch.testing.assert_close(found, tower.from_tokens(tower.tokenize(CAPTIONS)), rtol=0, atol=1e-5)
    assert torch.equal(found[0], found[4])


def test_a_repeated_caption_is_encoded_once_beside_others_of_its_length(tower, monkeypatch):
    shapes = []
    original = TextTower.from_cut_tokens
    monkeypatch.setattr(
        TextTower, "from_cut_tokens", lambda self, ids: (shapes.append(tuple(ids.shape)), original(self, ids))[1]
    )
    tower.encode_texts(CAPTIONS, chunk=2)
    # Five distinct ones of 2, 4, 8, 10 and 77 tokens.
    assert shapes == [(2, 4), (2, 10), (1, 77)]


def test_without_texts_there_are_no_features(tower):
    assert tower.encode_texts([]).shape == (0, tower.embed_dim)


def test_captions_equal_all_positions_written_out(tiny_clip):
    tower = make_tower(tiny_clip)
    ids = tower.tokenize(CAPTIONS)
    expected = text_features(tower, tower.token_embedding(ids), tower.ends(ids).tolist())
    torch.testing.assert_close(tower.encode_texts(CAPTIONS), expected, rtol=0, atol=1e-10)


def test_a_frozen_tower_has_no_gradient_and_its_captions_none_to_give(tiny_clip):
    tower = make_tower(tiny_clip)
    assert not tower.from_tokens(tower.tokenize(CAPTIONS)).requires_grad
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in tower.parameters())


def test_a_trainable_tower_learns_in_every_weight_what_the_written_out_one_would(tiny_clip):
    tower, twin = (make_tower(tiny_clip, trainable=True) for _ in range(2))
    ids = tower.tokenize(CAPTIONS[:2])
    weights = torch.linspace(-1, 2, 2 * tower.embed_dim, dtype=torch.float64).view(2, -1)
    (tower.from_tokens(ids) * weights).sum().backward()
    (text_features(twin, twin.token_embedding(ids), twin.ends(ids).tolist()) * weights).sum().backward()
    for (name, parameter), other in zip(tower.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=0, atol=1e-9)
        assert parameter.grad.abs().max() > 1e-6, name
    # Only words that occur are learned: of 49,408, the two ends and the six different words of both captions.
    used = tower.token_embedding.weight.grad.abs().amax(dim=1).nonzero().flatten()
    assert used.tolist() == ids.unique()[1:].tolist()  # but for the 0 behind the ends


def test_training_a_copy_leaves_the_clip_model_alone(tiny_clip):
    tower = TextTower.from_clip(tiny_clip).requires_grad_(True)
    before = {name: value.clone() for name, value in tiny_clip.model.state_dict().items()}
    optimiser = torch.optim.SGD(tower.parameters(), lr=1.0)
    tower.from_tokens(tower.tokenize(CAPTIONS)).sum().backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in tiny_clip.model.state_dict().items())
    assert not torch.equal(tower.ln_final.weight, before["ln_final.weight"])
