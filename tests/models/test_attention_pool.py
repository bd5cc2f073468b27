import pytest
import torch
from torch import Tensor, nn

from models.clip import LoadedClip
from models.trunks import AttentionPool, resize_grid
from tests.reference.attention_pool import all_tokens, stretch


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype)


def copied_pool(clip: LoadedClip, grid: tuple[int, int], dtype: torch.dtype) -> AttentionPool:
    return AttentionPool(clip.model.get_submodule("visual.attnpool"), grid).to(dtype)


def test_a_grid_of_the_same_size_is_bit_identical() -> None:
    positions = random(50, 6, dtype=torch.float32)
    assert torch.equal(resize_grid(positions, (7, 7), (7, 7)), positions)


def test_a_constant_grid_stays_constant() -> None:
    positions = torch.cat([torch.full((1, 6), 5.0), torch.full((49, 6), 0.25)])
    resized = resize_grid(positions, (7, 7), (18, 9))
    assert resized.shape == (163, 6)
    assert torch.equal(resized[0], positions[0])
    torch.testing.assert_close(resized[1:], torch.full((162, 6), 0.25), rtol=0, atol=1e-7)


def test_a_grid_is_stretched_between_the_centres_of_its_cells() -> None:
    # One row of two cells with values 0 and 4, stretched to four: the new centres lie at -0.25, 0.25, 0.75 and 1.25 of
    # the old scale, where the outermost are held at the border: 0, 1, 3, 4.
    positions = torch.tensor([[9.0], [0.0], [4.0]])
    assert resize_grid(positions, (1, 2), (1, 4))[:, 0].tolist() == [9, 0, 1, 3, 4]


@pytest.mark.parametrize(("old", "new"), [((7, 7), (18, 9)), ((4, 4), (6, 3)), ((3, 5), (2, 2)), ((2, 2), (1, 1))])
def test_a_stretched_grid_agrees_with_the_loop(old: tuple[int, int], new: tuple[int, int]) -> None:
    positions = random(1 + old[0] * old[1], 3)
    torch.testing.assert_close(resize_grid(positions, old, new), stretch(positions, old, new), rtol=0, atol=1e-12)


def test_a_grid_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="49 positional rows do not fit a grid of 7 x 7"):
        resize_grid(torch.zeros(49, 2), (7, 7), (18, 9))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_pool_is_the_first_token_of_the_full_pool(
    tiny_clip: LoadedClip, dtype: torch.dtype, tolerance: float
) -> None:
    pool = copied_pool(tiny_clip, (3, 2), dtype)
    exact = copied_pool(tiny_clip, (3, 2), torch.float64)
    feature_map = random(2, 256, 3, 2).relu()
    weights = random(2, 32)  # any direction of the loss
    mine, theirs = (feature_map.to(kind, copy=True).requires_grad_() for kind in (dtype, torch.float64))

    output = pool(mine)
    expected = all_tokens(exact, exact.positional_embedding, theirs)[:, 0]
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=tolerance)

    (output.double() * weights).sum().backward()
    (expected * weights).sum().backward()
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=0, atol=10 * tolerance)
    for (name, parameter), other in zip(pool.named_parameters(), exact.parameters(), strict=True):
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.double(), other.grad, rtol=0, atol=10 * tolerance, msg=name)


def test_the_pool_agrees_with_open_clips_own(tiny_clip: LoadedClip) -> None:
    theirs: nn.Module = tiny_clip.model.get_submodule("visual.attnpool")  # built for a grid of 2 x 2
    feature_map = random(4, 256, 2, 2, dtype=torch.float32).relu()
    with torch.no_grad():
        torch.testing.assert_close(
            copied_pool(tiny_clip, (2, 2), torch.float32)(feature_map), theirs(feature_map), rtol=0, atol=1e-5
        )


def test_the_memory_layout_of_the_map_does_not_matter(tiny_clip: LoadedClip) -> None:
    pool = copied_pool(tiny_clip, (3, 2), torch.float64)
    feature_map = random(2, 256, 3, 2)
    moved = feature_map.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pool(moved), pool(feature_map), rtol=0, atol=1e-12)
