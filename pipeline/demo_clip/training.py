"""The demo CLIP's network, and its pre-training on synthetic people that are generated at every step."""

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as functional
from safetensors.torch import save_file
from torch import Tensor, nn

from models.torchvision_operators import define_missing_operators
from pipeline.data.synthetic.captions import ATTRIBUTES
from pipeline.demo_clip.pairs import PairBatch, PairSettings, attribute_prompts, generated_batches, tokenize
from pipeline.runtime.device import cpu_threads
from pipeline.runtime.seeds import derive_seed

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
logger = logging.getLogger(__name__)
WEIGHTS_NAME = "open_clip_model.safetensors"
CONFIG_NAME = "open_clip_config.json"
_MAX_SCALE = math.log(100.0)
_LOG_SECONDS = 20.0
_SAVE_SECONDS = 180.0


def new_network(seed: int) -> nn.Module:
    """A demo CLIP with random weights; torch's global generator is unchanged."""
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
    """Image vectors of upright images [n, 3, 128, 64], as if each were at a column of an otherwise masked square.

    Source: ours. A square of 128 x 128 with a person of 128 x 64 in it is half padding; excluding the padded cells from
    the attention pool trains every position of the square grid at half the cost.
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
    """open_clip's attention pool with given position vectors: [n, e] of maps [n, c, h, w]."""
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
    """Text vectors of token ids [n, length]; positions after `length` are not computed."""
    length = tokens.shape[1]
    words = network.token_embedding(tokens) + network.positional_embedding[:length]
    words = network.transformer(words, attn_mask=network.attn_mask[:length, :length])
    ends = network.ln_final(words[torch.arange(len(tokens)), tokens.argmax(dim=1)])
    projected: Tensor = ends @ network.text_projection
    return projected


@torch.no_grad()
def equalise_lengths(network: Any, images: Tensor, tokens: Tensor) -> float:
    """Scale the image tower's last map so that image vectors are about as long as text vectors; return the factor.

    Pre-training compares unit vectors, so lengths are arbitrary; the methods use inner products and distances without
    normalisation, and one tower ten times as long as the other would saturate every softmax. The factor is a power of
    two, which changes no digit of a value, and so no direction.
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


@dataclass(frozen=True, slots=True)
class Recipe:
    """Training settings of the demo CLIP; all are written into the model card.

    `minutes` limits the time; `steps`, if given, replaces it, and then equal seeds give equal files on one machine.
    """

    minutes: float = 40.0
    steps: int | None = None
    seed: int = 1
    batch: int = 192
    infrared_share: float = 0.35
    attribute_weight: float = 3.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: float = 0.04
    threads: int = 2
    height: int = 128
    width: int = 64

    @property
    def pairs(self) -> PairSettings:
        """The settings of the generating process."""
        return PairSettings(self.seed, self.batch, self.height, self.width, self.infrared_share)


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """Length and last losses of a pre-training run."""

    steps: int
    pairs: int
    minutes: float
    pair_loss: float
    attribute_loss: float


def train_demo_clip(folder: Path, recipe: Recipe) -> TrainingSummary:
    """Train, and write configuration and weights into `folder`, at intervals and at the end.

    Cost: `recipe.minutes` on `recipe.threads` cores, and about a quarter of a core for generating images; 6.2 MB on
    disk.
    """
    network: Any = new_network(derive_seed(recipe.seed, "init"))
    network = network.to(memory_format=torch.channels_last).train()
    optimiser = _optimiser(network, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    started = saved = logged = time.monotonic()
    losses: list[tuple[float, float]] = []
    prompts = torch.from_numpy(tokenize(attribute_prompts()))
    step = 0
    with cpu_threads(recipe.threads), generated_batches(recipe.pairs) as batches:
        for done in _shares_done(recipe, started):
            _set_learning_rate(optimiser, recipe, done)
            losses.append(
                _train_step(network, optimiser, next(batches), prompts, recipe.attribute_weight, column=step % 3)
            )
            step += 1
            now = time.monotonic()
            if now - logged > _LOG_SECONDS:
                _log(step, recipe, losses, now - started, network.logit_scale.exp().item())
                logged, losses = now, losses[-5:]
            if now - saved > _SAVE_SECONDS:
                save_weights(network, folder)
                saved = now
        last = next(batches)
    equalise_lengths(network, normalise(torch.from_numpy(last.pixels)), torch.from_numpy(last.tokens))
    save_weights(network, folder)
    minutes = (time.monotonic() - started) / 60
    pair_loss, attribute_loss = (sum(some) / max(len(some), 1) for some in zip(*losses, strict=True))
    return TrainingSummary(step, step * recipe.batch, minutes, pair_loss, attribute_loss)


def save_weights(network: nn.Module, folder: Path) -> None:
    """Write `open_clip_config.json` and, atomically, the weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": IMAGE_MEAN, "std": IMAGE_STD, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": preprocess}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = {name: _half(value) for name, value in network.state_dict().items()}
    unfinished = folder / f"{WEIGHTS_NAME}.tmp"
    save_file(state, unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)
    unfinished.replace(folder / WEIGHTS_NAME)


def contrast(images: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit vectors [n, e] each; pair i is row i of both.

    >>> round(contrast(torch.eye(2), torch.eye(2), torch.tensor(100.0)).item(), 6)
    0.0
    """
    logits = scale * images @ captions.T
    targets = torch.arange(len(images))
    return 0.5 * (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets))


def attribute_contrast(images: Tensor, prompts: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy of classifying each shown attribute by its prompts, as in zero-shot classification.

    `values` is [n, attributes], -1 if an image does not show the attribute; images and prompts are unit vectors.
    """
    logits = (scale * images @ prompts.T).split([len(options) for options in ATTRIBUTES.values()], dim=1)
    losses = [
        functional.cross_entropy(some, of_one, ignore_index=-1)
        for some, of_one in zip(logits, values.T, strict=True)
        if (of_one >= 0).any()
    ]
    return torch.stack(losses).mean()


def _train_step(
    network: Any, optimiser: torch.optim.Optimizer, batch: PairBatch, prompts: Tensor, weight: float, column: int
) -> tuple[float, float]:
    images = encode_images(network, normalise(torch.from_numpy(batch.pixels)), column)
    captions = encode_captions(network, torch.from_numpy(batch.tokens))
    scale = network.logit_scale.exp()
    pairs = contrast(images, captions, scale)
    named = attribute_contrast(images, encode_captions(network, prompts), torch.from_numpy(batch.values), scale)
    loss = pairs + weight * named
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    with torch.no_grad():
        network.logit_scale.clamp_(max=_MAX_SCALE)
    return pairs.item(), named.item()


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [value for value in network.parameters() if value.ndim >= 2]
    others = [value for value in network.parameters() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def _shares_done(recipe: Recipe, started: float) -> Iterator[float]:
    """The completed share of the run before each step, until it is complete."""
    step = 0
    while True:
        spent = (time.monotonic() - started) / (60.0 * recipe.minutes)
        done = spent if recipe.steps is None else step / recipe.steps
        if done >= 1.0:
            return
        yield done
        step += 1


def _set_learning_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, done: float) -> None:
    rising = min(done / recipe.warm_up, 1.0)
    falling = 0.5 * (1.0 + math.cos(math.pi * max(done - recipe.warm_up, 0.0) / (1.0 - recipe.warm_up)))
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * max(rising * falling, 0.002)


def _log(step: int, recipe: Recipe, losses: list[tuple[float, float]], seconds: float, scale: float) -> None:
    pair_loss, attribute_loss = (sum(some) / len(losses) for some in zip(*losses, strict=True))
    logger.info(
        "step %d: pairs %.3f, attributes %.3f, scale %.1f, %.0f pairs/s, %.1f min",
        *(step, pair_loss, attribute_loss, scale, step * recipe.batch / seconds, seconds / 60),
    )


def _half(value: Tensor) -> Tensor:
    return value.detach().to(torch.float16).contiguous() if value.is_floating_point() else value.detach().contiguous()
