"""Prompt learning: what changes, what does not, and what it refuses."""

import numpy as np
import pytest
import torch

from clustering.dbscan import OUTLIER
from models.clip import load_clip
from models.losses import prompt_contrast
from models.modality import PerModality
from models.prompts import SENTENCES, PromptBank
from models.rows import normalise_rows
from models.text_tower import TextTower
from pipeline.errors import DegenerateClustering, TrainingError
from pipeline.methods.cclnet.prompts import _prompt_loss, learn_prompts
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.runtime.seeds import numpy_generator, torch_generator

LABELS = PerModality(
    np.array([0, 0, 1, 1, OUTLIER, 2, 2, 0], dtype=np.int64), np.array([1, 0, 0, 1, OUTLIER], dtype=np.int64)
)
PAIRS = PerModality(np.array([2, 0]), np.array([0, 1]))


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return TextTower.from_clip(load_clip("tiny", "random"))


def features(tower: TextTower, scale: float = 1.0) -> PerModality[torch.Tensor]:
    """Images of a cluster lie around a point of the cluster's own."""
    generator = torch.Generator().manual_seed(3)

    def draw(labels: np.ndarray) -> torch.Tensor:
        centres = torch.randn(4, tower.embed_dim, generator=generator)
        return scale * (centres[labels] + 0.1 * torch.randn(len(labels), tower.embed_dim, generator=generator))

    return LABELS.map(draw)


def learn(
    tower: TextTower,
    images: PerModality[torch.Tensor],
    labels: PerModality[np.ndarray] = LABELS,
    epochs: int = 3,
    rate: float = 1e-2,
    previous: PerModality[TextPrototypes] | None = None,
    shared: bool = False,
    scale: float | None = None,
) -> PerModality[TextPrototypes]:
    return learn_prompts(
        images,
        labels,
        tower,
        pairs=PAIRS,
        shared=shared,
        scale=scale,
        num_context=4,
        epochs=epochs,
        batch_size=4,
        learning_rate=rate,
        warmup_epochs=1,
        weight_decay=1e-4,
        previous=previous,
        init_generator=lambda modality: torch_generator(1, "init", modality),
        batch_generator=lambda epoch: numpy_generator(1, "batches", epoch),
    )


def agreement(texts: PerModality[TextPrototypes], images: PerModality[torch.Tensor]) -> float:
    """Share of clustered images whose most fitting text is their own cluster's."""
    right, total = 0, 0
    for text, own, labels in zip(texts, images, LABELS, strict=True):
        kept = labels != OUTLIER
        best = (own[kept] @ text.features.T).argmax(dim=1).numpy()
        right += int((best == labels[kept]).sum())
        total += int(kept.sum())
    return right / total


def test_texts_come_to_name_the_images_of_their_cluster(tower: TextTower) -> None:
    images = features(tower)
    before, after = (agreement(learn(tower, images, epochs=epochs, rate=3e-2), images) for epochs in (1, 40))
    assert after > before
    assert after == 1.0


def test_there_is_one_text_a_cluster_of_each_modality_and_the_labels_are_kept(tower: TextTower) -> None:
    texts = learn(tower, features(tower))
    assert texts.visible.features.shape == (3, tower.embed_dim)
    assert texts.infrared.features.shape == (2, tower.embed_dim)
    assert texts.visible.context.shape == (3, 4, tower.width)
    assert np.array_equal(texts.visible.labels, LABELS.visible)


def test_nothing_but_the_words_changes(tower: TextTower) -> None:
    images = features(tower)
    frozen = {name: value.clone() for name, value in tower.state_dict().items()}
    pixels = images.map(torch.clone)
    learn(tower, images)
    assert all(torch.equal(value, frozen[name]) for name, value in tower.state_dict().items())
    assert all(parameter.grad is None for parameter in tower.parameters())
    assert torch.equal(images.visible, pixels.visible) and torch.equal(images.infrared, pixels.infrared)


def test_outliers_take_no_part(tower: TextTower) -> None:
    images = features(tower)
    changed = images.map(torch.clone)
    changed.visible[4] = 100.0
    changed.infrared[4] = -100.0
    first, second = learn(tower, images), learn(tower, changed)
    assert torch.equal(first.visible.features, second.visible.features)
    assert torch.equal(first.infrared.features, second.infrared.features)


def test_a_warm_start_begins_with_the_words_of_the_old_cluster(tower: TextTower) -> None:
    images = features(tower)
    old = learn(tower, images)
    # A rate of almost nothing leaves the first words as they were; visible clusters 0 and 1 have changed numbers.
    renamed = PerModality(np.array([1, 1, 0, 0, OUTLIER, 2, 2, 1], dtype=np.int64), LABELS.infrared)
    new = learn(tower, images, renamed, epochs=1, rate=1e-12, previous=old)
    order = [1, 0, 2]
    assert torch.allclose(new.visible.context, old.visible.context[order], atol=1e-4)
    assert torch.allclose(new.infrared.context, old.infrared.context, atol=1e-4)


def test_outliers_alone_cannot_be_described(tower: TextTower) -> None:
    nothing = PerModality(LABELS.visible, np.full(5, OUTLIER, dtype=np.int64))
    with pytest.raises(DegenerateClustering, match="all 5 infrared images are outliers"):
        learn(tower, features(tower), nothing)


def test_a_loss_that_is_not_finite_ends_the_stage(tower: TextTower) -> None:
    with pytest.raises(TrainingError, match="loss of texts is not finite in epoch 1"):
        learn(tower, features(tower, scale=float("inf")))


def test_clusters_of_a_pair_share_their_context_tokens_in_two_sentences(tower: TextTower) -> None:
    alone, shared = (learn(tower, features(tower), shared=one) for one in (False, True))
    for visible, infrared in zip(PAIRS.visible, PAIRS.infrared, strict=True):
        assert torch.equal(shared.visible.context[visible], shared.infrared.context[infrared])
        assert not torch.equal(alone.visible.context[visible], alone.infrared.context[infrared])
        assert not torch.equal(shared.visible.features[visible], shared.infrared.features[infrared])
    assert shared.visible.partners.tolist() == [1, -1, 0]
    assert shared.infrared.partners.tolist() == [2, 0]


def test_infrared_images_teach_shared_tokens(tower: TextTower) -> None:
    images = features(tower)
    changed = PerModality(images.visible, images.infrared.flip(0))
    first, second = (learn(tower, some, shared=True).visible.context for some in (images, changed))
    assert not torch.equal(first[0], second[0])
    assert torch.equal(*(learn(tower, some).visible.context for some in (images, changed)))


def test_cosine_logits_do_not_depend_on_the_length_of_features(tower: TextTower) -> None:
    short, long = (learn(tower, features(tower, length), scale=20.0) for length in (1.0, 7.0))
    assert torch.allclose(short.visible.features, long.visible.features, atol=1e-5)
    plain = learn(tower, features(tower))
    assert not torch.allclose(short.visible.features, plain.visible.features, atol=1e-3)


def test_a_prompt_step_with_cosines_is_the_contrast_of_unit_rows(tower: TextTower) -> None:
    bank = PromptBank(tower, SENTENCES.visible, 3, generator=torch.Generator().manual_seed(1))
    rows, labels = np.arange(4), LABELS.visible[:4]
    unit = normalise_rows(features(tower).visible[:4])
    texts = 20.0 * normalise_rows(bank.encode(tower, torch.tensor([0, 1])))
    expected = prompt_contrast(unit, texts, torch.from_numpy(labels))
    assert torch.allclose(_prompt_loss(tower, 20.0, rows, unit, labels, bank), expected)
