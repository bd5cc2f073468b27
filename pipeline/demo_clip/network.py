"""The demo CLIP's shape, and the two encoders as pre-training runs them: cropped grid, truncated text."""

import math
from typing import Any, Final

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from models.torchvision_operators import define_missing_operators

IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)
IMAGE_SIZE: Final = 128
_STRIDE: Final = 32

MODEL_CONFIG: Final[dict[str, Any]] = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 2, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3},
}


def new_network(seed: int) -> nn.Module:
    """A demo CLIP with random weights. Touches torch's global generator inside a fork of it only."""
    define_missing_operators()
    from open_clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = CLIP(**MODEL_CONFIG)
    return network


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [n, h, w, 3] to normalised float32 [n, 3, h, w] in channels-last memory."""
    images = pixels.permute(0, 3, 1, 2).float().div_(255.0)
    mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return images.sub_(mean).div_(std)


def encode_images(network: Any, images: Tensor, column: int) -> Tensor:
    """Unit image vectors of upright images; see `project_images`."""
    return functional.normalize(project_images(network, images, column), dim=-1)


def project_images(network: Any, images: Tensor, column: int) -> Tensor:
    """Image vectors of upright images, as if each lay at a column of a square that is otherwise masked.

    Source: ours. A square of 128 x 128 with a person of 128 x 64 in it is half padding; leaving the padded cells out of
    the attention pool trains every position of the square grid at half the cost.

    Args:
        network: An open_clip `CLIP` with a ResNet tower.
        images: [n, 3, 128, 64], normalised.
        column: Grid column that the image's left edge lies at.
    """
    visual = network.visual
    maps = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        maps = layer(maps)
    rows, columns = maps.shape[2:]
    side = IMAGE_SIZE // _STRIDE
    cells = torch.arange(side * side).view(side, side)[:rows, column : column + columns].reshape(-1) + 1
    positions = visual.attnpool.positional_embedding[torch.cat([torch.zeros(1, dtype=torch.long), cells])]
    return attention_pool(visual.attnpool, maps, positions)


def attention_pool(pool: Any, maps: Tensor, positions: Tensor) -> Tensor:
    """open_clip's attention pool, with the position vectors given: [n, e] of maps [n, c, h, w]."""
    cells = maps.flatten(2).permute(2, 0, 1)
    cells = torch.cat([cells.mean(dim=0, keepdim=True), cells]) + positions[:, None, :]
    pooled, _ = functional.multi_head_attention_forward(
        query=cells[:1],
        key=cells,
        value=cells,
        embed_dim_to_check=cells.shape[-1],
        num_heads=pool.num_heads,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        training=pool.training,
        need_weights=False,
    )
    return pooled[0]


def encode_captions(network: Any, tokens: Tensor) -> Tensor:
    """Unit text vectors of token ids [n, length]; see `project_captions`."""
    return functional.normalize(project_captions(network, tokens), dim=-1)


def project_captions(network: Any, tokens: Tensor) -> Tensor:
    """Text vectors of token ids [n, length]; nothing is computed beyond `length`."""
    length = tokens.shape[1]
    words = network.token_embedding(tokens) + network.positional_embedding[:length]
    words = network.transformer(words, attn_mask=network.attn_mask[:length, :length])
    ends = network.ln_final(words[torch.arange(len(tokens)), tokens.argmax(dim=1)])
    projected: Tensor = ends @ network.text_projection
    return projected


@torch.no_grad()
def equalise_lengths(network: Any, images: Tensor, tokens: Tensor) -> float:
    """Scale the image tower's last map so that image vectors are about as long as text vectors.

    Pre-training compares unit vectors, so it leaves lengths to chance; the methods of this project use products and
    distances of vectors as they are, and one tower ten times as long as the other would saturate every softmax. The
    factor is a power of two, which changes no digit of a value, and so no direction.

    Args:
        network: Changed in place.
        images: [n, 3, 128, 64], normalised.
        tokens: Token ids of captions [m, length].

    Returns:
        The factor.
    """
    training = network.training
    network.eval()
    lengths = [vectors.norm(dim=1).median().item() for vectors in (
        project_captions(network, tokens), project_images(network, images, column=1)
    )]  # fmt: skip
    network.train(training)
    factor = 2.0 ** round(math.log2(lengths[0] / lengths[1]))
    pool = network.visual.attnpool
    pool.c_proj.weight.mul_(factor)
    pool.c_proj.bias.mul_(factor)
    return factor
