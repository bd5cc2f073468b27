"""ResNet-50 in the place of CLIP's image tower: its map, its weights, and what it refuses."""

import copy
from pathlib import Path

import pytest
import torch

from models.clip_files import WeightsLoadError
from models.encoder import DualStemEncoder, Head, encoder_widths
from models.imagenet import load_imagenet
from models.modality import Modality, PerModality
from models.person_heads import PersonClassifier, prepare_for_people


@pytest.fixture(scope="module")
def loaded():
    return load_imagenet("random", seed=3)


def encoder_of(loaded):
    return prepare_for_people(DualStemEncoder.from_clip(loaded, image_height=64, image_width=32))


def test_its_widths_are_known_without_an_encoder(loaded):
    assert encoder_widths(loaded) == (2048, 0)


def test_features_are_those_of_torchvisions_network_whose_last_layer_keeps_its_size(loaded):
    # In float64: in float32 the order of a convolution's sums is the processor's, and the root magnifies it.
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    encoder = encoder_of(loaded).double()
    network = copy.deepcopy(loaded.model["visual"]).double()
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
    with torch.no_grad():
        maps = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            maps = layer(maps)
        # A sixteenth of 64 x 32, not a thirty-second.
        assert maps.shape[2:] == (4, 2)
        expected = maps.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
        found = encoder.encode(images, Modality.VISIBLE, heads=frozenset({Head.POOLED})).pooled
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_both_stems_start_equal_and_are_two(loaded):
    encoder = encoder_of(loaded)
    visible, infrared = encoder.stems["visible"], encoder.stems["infrared"]
    assert torch.equal(visible.conv1.weight, infrared.conv1.weight)
    assert visible.conv1.weight.data_ptr() != infrared.conv1.weight.data_ptr()


def test_there_is_no_projection_and_a_classifier_of_the_neck_alone(loaded):
    encoder = encoder_of(loaded)
    assert encoder.projection is None and encoder.projection_width == 0
    classifier = PersonClassifier(encoder.feature_width, encoder.projection_width, 5, torch.Generator())
    assert classifier.projection is None
    scores = classifier(torch.zeros(2, encoder.feature_width), None)
    assert [one.shape for one in scores] == [(2, 5)]
    with pytest.raises(AssertionError, match="has no text tower"):
        encoder(PerModality.build(lambda _: torch.zeros(1, 3, 64, 32)), frozenset({Head.PROJECTION}))


def test_weights_come_from_a_state_dict_whole_or_not_at_all(loaded, tmp_path: Path):
    state = loaded.model["visual"].state_dict()
    torch.save(state, tmp_path / "whole.pth")
    again = load_imagenet(str(tmp_path / "whole.pth"))
    assert (again.origin.kind, again.origin.digest) == ("file", loaded.origin.digest)
    del state["fc.bias"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(WeightsLoadError, match=r"fc\.bias"):
        load_imagenet(str(tmp_path / "cut.pth"))


def test_a_path_without_a_file_says_what_there_could_be(tmp_path: Path):
    with pytest.raises(WeightsLoadError) as caught:
        load_imagenet(str(tmp_path / "nothing.pth"))
    assert "resnet50-0676ba61.pth" in caught.value.hint


def test_without_a_network_the_download_is_one_error_with_the_name_of_the_file(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_arguments: object, **_options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(WeightsLoadError, match="cannot be downloaded") as caught:
        load_imagenet("imagenet")
    assert "resnet50-0676ba61.pth" in caught.value.hint


def test_it_has_no_words(loaded):
    with pytest.raises(ValueError, match="no text tower"):
        loaded.tokenizer(["a person"])


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    load_imagenet("random", seed=9)
    assert torch.equal(torch.get_rng_state(), before)
