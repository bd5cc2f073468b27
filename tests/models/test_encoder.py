import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.clip import LoadedClip, WeightsOrigin, open_clip_module
from models.clip_files import state_digest
from models.encoder import DualStemEncoder, Encoded, Head, encoder_widths
from models.modality import Modality, PerModality
from models.trunks import GeneralisedMean, resnet_grid

ALL = frozenset(Head)
NECK = frozenset({Head.NECK})
SIZE = (48, 32)
CLIPS = ["tiny_clip", "vit_clip", "mean_vit_clip"]


@pytest.fixture(params=CLIPS)
def any_clip(request: pytest.FixtureRequest) -> LoadedClip:
    clip: LoadedClip = request.getfixturevalue(request.param)
    return clip


def make_encoder(clip: LoadedClip, size: tuple[int, int] = SIZE, **settings: float) -> DualStemEncoder:
    return DualStemEncoder.from_clip(clip, image_height=size[0], image_width=size[1], **settings)


def images(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def exact(clip: LoadedClip) -> LoadedClip:
    """A copy in float64: there the order of a convolution's sums, which is the processor's, does not show."""
    return dataclasses.replace(clip, model=copy.deepcopy(clip.model).double())


def features(encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    assert encoded.neck is not None
    assert encoded.projection is not None
    assert encoded.pooled is not None
    return encoded.neck, encoded.projection, encoded.pooled


def test_widths_are_known_without_an_encoder(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip)
    assert encoder_widths(any_clip) == (encoder.feature_width, encoder.projection_width)


def test_every_weight_of_rn50_has_its_place_and_the_last_map_is_18_by_9() -> None:
    open_clip = open_clip_module()
    with torch.device("meta"):  # shapes without numbers: nothing is computed
        model = open_clip.CLIP(**open_clip.get_model_config("RN50-quickgelu")).eval()
        encoder = make_encoder(
            LoadedClip(model, WeightsOrigin("random", "RN50", ""), lambda _: torch.zeros(1)), (288, 144)
        )
        stem = encoder.stems["infrared"](torch.zeros(2, 3, 288, 144))
        assert stem.shape == (2, 64, 72, 36)
        last = encoder.trunk(stem)
        assert last.shape == (2, 2048, 18, 9)
        assert encoder.projection(last).shape == (2, 1024)
        assert encoder.pool(last).shape == (2, 2048)
    assert (encoder.feature_width, encoder.projection_width) == (2048, 1024)
    mine = {
        **encoder.stems["visible"].state_dict(),
        **encoder.trunk.state_dict(),
        **{f"attnpool.{name}": tensor for name, tensor in encoder.projection.state_dict().items()},
    }
    theirs = model.visual.state_dict()
    assert mine.keys() == theirs.keys()
    different = [name for name in mine if mine[name].shape != theirs[name].shape]
    assert different == ["attnpool.positional_embedding"]
    assert mine[different[0]].shape == (163, 2048)  # 18 x 9 cells and the pooled token


def test_the_last_layer_computes_what_open_clips_does_without_its_pooling(tiny_clip: LoadedClip) -> None:
    clip, batch = exact(tiny_clip), images(2).double()
    visual: Any = clip.model.get_submodule("visual")
    encoder = make_encoder(clip).double()
    with torch.no_grad():
        given = visual.layer3(visual.layer2(visual.layer1(visual.stem(batch))))
        block = visual.layer4[0]
        branch = block.act1(block.bn1(block.conv1(given)))
        branch = block.bn3(block.conv3(block.act2(block.bn2(block.conv2(branch)))))
        expected = torch.relu(branch + block.downsample[2](block.downsample[1](given)))
        mine = encoder.trunk(encoder.stems["visible"](batch))
    assert mine.shape == (2, 256, 3, 2)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["vit_clip", "mean_vit_clip"])
def test_a_vision_transformer_agrees_with_open_clip_at_its_own_size(name: str, request: pytest.FixtureRequest) -> None:
    clip = exact(request.getfixturevalue(name))
    visual: Any = clip.model.get_submodule("visual")
    batch = images(3, (32, 32)).double()
    encoder = make_encoder(clip, (32, 32)).double()
    with torch.no_grad():
        _, projection, pooled = features(encoder.encode(batch, Modality.INFRARED, heads=ALL))
        torch.testing.assert_close(projection, visual(batch), rtol=0, atol=1e-12)
        torch.testing.assert_close(pooled @ visual.proj, visual(batch), rtol=0, atol=1e-12)


def test_an_attentional_pooler_agrees_with_open_clip() -> None:
    with torch.random.fork_rng(devices=()):
        visual: Any = open_clip_module().CLIP(
            embed_dim=16,
            vision_cfg={
                "image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1,
                "attentional_pool": True, "attn_pooler_queries": 3, "attn_pooler_heads": 4,
            },
            text_cfg={"vocab_size": 10, "width": 8, "heads": 1, "layers": 1},
        ).visual.double().eval()  # fmt: skip
    holder = nn.Module()
    holder.visual = visual
    clip = LoadedClip(holder, WeightsOrigin("random", "coca", ""), lambda _: torch.zeros(1))
    encoder = make_encoder(clip, (32, 32)).double()
    assert (encoder.feature_width, encoder.projection_width) == (16, 16)
    batch = images(2, (32, 32)).double()
    with torch.no_grad():
        projection = encoder.encode(batch, Modality.VISIBLE, heads=ALL).projection
        torch.testing.assert_close(projection, visual(batch), rtol=0, atol=1e-12)


def test_only_what_is_asked_for_is_computed(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip)
    for head in Head:
        encoded = encoder.encode(images(2), Modality.VISIBLE, heads=frozenset({head}))
        assert [name.value for name in Head if getattr(encoded, name.value) is not None] == [head.value]


def test_widths_come_from_the_model(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip)
    neck, projection, pooled = features(encoder.encode(images(2), Modality.VISIBLE, heads=ALL))
    assert neck.shape == pooled.shape == (2, encoder.feature_width)
    assert projection.shape == (2, encoder.projection_width)


def test_a_new_neck_is_the_identity_but_for_the_epsilon_of_batch_norm(any_clip: LoadedClip) -> None:
    neck, _, pooled = features(make_encoder(any_clip).encode(images(2), Modality.VISIBLE, heads=ALL))
    # Mean 0 and variance 1 before any training: pooled / sqrt(1 + 1e-5).
    torch.testing.assert_close(neck, pooled / (1 + 1e-5) ** 0.5, rtol=1e-6, atol=1e-7)


def test_the_neck_scales_and_never_shifts(tiny_clip: LoadedClip) -> None:
    neck = make_encoder(tiny_clip).neck
    assert (neck.weight == 1).all()
    assert (neck.bias == 0).all()
    assert neck.weight.requires_grad
    assert not neck.bias.requires_grad


def test_the_generalised_mean_by_hand() -> None:
    feature_map = torch.tensor([1.0, 2.0, 0.0, 1.0]).view(1, 1, 2, 2)
    # Power 3: (1 + 8 + 0 + 1) / 4 = 2.5, its cube root 1.357209. Power 1: the mean, 1.
    assert GeneralisedMean(3.0)(feature_map).item() == pytest.approx(1.3572088, abs=1e-6)
    assert GeneralisedMean(1.0)(feature_map).item() == pytest.approx(1.0)
    # An empty channel: the cube root of 1e-12.
    empty = torch.zeros(1, 1, 2, 2, requires_grad=True)
    pooled = GeneralisedMean(3.0)(empty)
    assert pooled.item() == pytest.approx(1e-4, rel=1e-5)
    pooled.sum().backward()
    assert empty.grad is not None
    assert (empty.grad == 0).all()


def test_the_power_of_the_pool_is_that_of_the_caller(tiny_clip: LoadedClip) -> None:
    encoder, batch = make_encoder(tiny_clip, gem_power=1.0).double(), images(2).double()
    with torch.no_grad():
        # The pool's floor of 1e-12 is added to what is less.
        mean = encoder.trunk(encoder.stems["visible"](batch)).mean(dim=(2, 3))
        pooled = encoder.encode(batch, Modality.VISIBLE, heads=ALL).pooled
    torch.testing.assert_close(pooled, mean, rtol=1e-9, atol=1e-11)


def test_both_stems_start_equal(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip)
    visible, infrared = (encoder.encode(images(2), modality, heads=ALL) for modality in Modality)
    for one, other in zip(features(visible), features(infrared), strict=True):
        assert torch.equal(one, other)


def test_a_visible_step_leaves_the_infrared_stem_alone(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip).train()
    before = copy.deepcopy(encoder.state_dict())
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.01)
    neck = encoder.encode(images(4), Modality.VISIBLE, heads=NECK).neck
    assert neck is not None
    (neck * images(1)[0, 0, 0, 0]).square().sum().backward()
    optimiser.step()
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("stems.infrared.") for name in changed)
    assert any(name.startswith("stems.visible.") for name in changed)
    assert any(name.startswith("trunk.") for name in changed)
    assert not any(name.startswith("projection.") for name in changed)


def test_the_clip_model_stays_untouched(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip).train()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
        encoder.encode(images(2), Modality.VISIBLE, heads=NECK)  # batch norms take new statistics
    assert state_digest(any_clip.model) == any_clip.origin.digest
    assert not any(module.training for module in any_clip.model.modules())


def test_both_modalities_in_one_pass_equal_two_passes_in_evaluation(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip).double()
    with torch.no_grad():
        encoder.stems["infrared"].get_parameter(next(iter(dict(encoder.stems["infrared"].named_parameters())))).mul_(2)
        batches = PerModality(images(3, seed=1).double(), images(2, seed=2).double())
        together = encoder(batches, ALL)
        for modality, batch in batches.items():
            alone = encoder.encode(batch, modality, heads=ALL)
            for one, other in zip(features(together[modality]), features(alone), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert len(features(together.visible)[0]) == 3
    assert len(features(together.infrared)[0]) == 2


def test_shared_batch_norms_see_the_mixture_in_training(tiny_clip: LoadedClip) -> None:
    batches = PerModality(images(4, seed=1).double(), 3 * images(4, seed=2).double() + 1)
    encoder = make_encoder(tiny_clip).double().train()
    encoded = encoder(batches, ALL)
    pooled = torch.cat([features(part)[2] for part in encoded])
    neck = torch.cat([features(part)[0] for part in encoded])
    # The neck normalises by mean and variance of all eight images, not of four and four.
    expected = (pooled - pooled.mean(dim=0)) / (pooled.var(dim=0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(neck, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(encoder.neck.running_mean, 0.1 * pooled.mean(dim=0), rtol=1e-9, atol=1e-12)
    first: Any = encoder.trunk.get_submodule("layer1.0.bn1")
    stems = torch.cat([encoder.stems[modality.value].eval()(batches[modality]) for modality in Modality])
    assert first.num_batches_tracked == 1  # one pass, not one a modality
    assert len(stems) == 8


def test_every_parameter_has_a_role_and_only_the_projection_needs_its_own(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip).train()
    batches = PerModality(images(3, seed=1), images(3, seed=2))

    def without_gradient(heads: frozenset[Head]) -> set[str]:
        encoder.zero_grad(set_to_none=True)
        weights = torch.Generator().manual_seed(0)
        total = torch.zeros(())
        for part in encoder(batches, heads):
            for x in (part.neck, part.projection):
                total = total + (0 if x is None else (x * torch.randn(x.shape, generator=weights)).sum())
        total.backward()
        return {name for name, parameter in encoder.named_parameters() if parameter.grad is None}

    names = {name for name, _ in encoder.named_parameters()}
    roles = {name: encoder.parameter_role(name) for name in names}
    assert set(roles.values()) == {"stem", "trunk", "attention_pool", "neck"}
    projection = {name for name in names if roles[name] == "attention_pool"}
    assert without_gradient(NECK) == projection | {"neck.bias"}
    assert without_gradient(frozenset({Head.NECK, Head.PROJECTION})) == {"neck.bias"}


def test_heads_compute_in_full_precision_under_autocast(any_clip: LoadedClip) -> None:
    encoder = make_encoder(any_clip)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = features(encoder.encode(images(2), Modality.VISIBLE, heads=ALL))
    with torch.no_grad():
        full = features(encoder.encode(images(2), Modality.VISIBLE, heads=ALL))
    for one, other in zip(half, full, strict=True):
        assert one.dtype == torch.float32
        assert functional.cosine_similarity(one, other).min().item() > 0.99


def test_images_of_another_size_are_refused(any_clip: LoadedClip) -> None:
    with pytest.raises(ValueError, match="infrared images of 32 x 48 pixels for an encoder of 48 x 32"):
        make_encoder(any_clip).encode(images(1, (32, 48)), Modality.INFRARED, heads=NECK)


def test_images_too_small_for_one_cell_are_refused(any_clip: LoadedClip) -> None:
    with pytest.raises(ValueError, match="4 x 32 pixels are too small"):
        make_encoder(any_clip, (4, 32))


def test_another_kind_of_image_tower_is_refused() -> None:
    holder = nn.Module()
    holder.visual = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="an image tower of type Linear"):
        make_encoder(LoadedClip(holder, WeightsOrigin("file", "other", ""), lambda _: torch.zeros(1)))


@pytest.mark.parametrize("size", [(16, 16), (31, 33), (50, 30), (47, 65), (96, 48)])
def test_the_grid_of_any_image_size_is_that_of_the_last_map(tiny_clip: LoadedClip, size: tuple[int, int]) -> None:
    encoder = make_encoder(tiny_clip, size)
    with torch.no_grad():
        last = encoder.trunk(encoder.stems["visible"](images(1, size)))
        assert encoder.encode(images(1, size), Modality.VISIBLE, heads=ALL).projection is not None
    assert last.shape[2:] == resnet_grid(*size)


def test_patches_that_do_not_fit_are_left_out(vit_clip: LoadedClip) -> None:
    # 20 x 31 pixels hold 2 x 3 whole patches of 8 x 8: what lies beyond row 16 and column 24 is not seen.
    encoder = make_encoder(vit_clip, (20, 31))
    batch = images(1, (20, 31))
    changed = batch.clone()
    changed[:, :, 16:] = 0
    changed[:, :, :, 24:] = 0
    with torch.no_grad():
        one, other = (features(encoder.encode(x, Modality.VISIBLE, heads=ALL)) for x in (batch, changed))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_saved_encoder_is_restored(any_clip: LoadedClip) -> None:
    trained = make_encoder(any_clip)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    restored = make_encoder(any_clip)
    restored.load_state_dict(trained.state_dict())
    with torch.no_grad():
        one, other = (features(e.encode(images(2), Modality.VISIBLE, heads=ALL)) for e in (trained, restored))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
