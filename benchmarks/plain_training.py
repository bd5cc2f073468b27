"""Training as published code of this field does it: PIL images from worker processes, three whole towers, loops.

The slow side of the comparison with `pipeline/methods/cclnet/objective.py`, and an oracle for it: the same weights,
images and labels give the same features, losses and prototypes, where the random changes of
`benchmarks/plain_images.py` are off.

Source: written from the description in Chen et al., ACM MM 2023 (CCLNet), and from the habits that public code shares:
the image tower is copied whole, once for each stem and once for what both share; the attention pool works out every
token, and runs even where there is no text loss; memories go through the batch image by image and through the pairs
pair by pair; every loss is read at every step.
Differs: memories are written after the optimiser's step and not inside `backward`, which gives the same numbers. What
clusters a batch has is looked up on the host, so that a GPU is not waited for at every pair.
"""

import copy
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.plain_images import NO_LABEL, PlainImages, plain_loader
from models.clip import LoadedClip
from models.modality import Modality, PerModality
from models.trunks import resize_grid

GEM_POWER = 3.0
SWAP_SCALE = 0.1  # what a swapped prototype keeps of itself


class PlainNetwork(nn.Module):
    """Three copies of CLIP's ResNet: the stem of the first two is used, and all that follows the stem of the third.

    Args:
        visual: open_clip's `ModifiedResNet`; it is copied.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """

    def __init__(self, visual: Any, height: int, width: int) -> None:
        super().__init__()
        self.visible_tower: Any = copy.deepcopy(visual)
        self.infrared_tower: Any = copy.deepcopy(visual)
        self.shared_tower: Any = copy.deepcopy(visual)
        first = self.shared_tower.layer4[0]
        first.avgpool = nn.Identity()
        first.downsample[0] = nn.Identity()
        pool = self.shared_tower.attnpool
        side = round((len(pool.positional_embedding) - 1) ** 0.5)
        grid = (height // 16, width // 16)
        pool.positional_embedding = nn.Parameter(
            resize_grid(pool.positional_embedding.detach(), (side, side), grid).clone()
        )
        self.neck = nn.BatchNorm1d(pool.c_proj.in_features)
        self.neck.bias.requires_grad_(False)

    def forward(
        self, visible: Float[Tensor, "visible 3 height width"], infrared: Float[Tensor, "infrared 3 height width"]
    ) -> tuple[Float[Tensor, "both features"], Float[Tensor, "both embed"]]:
        """Neck features and projections, visible rows first."""
        return self.shared(torch.cat([self.visible_tower.stem(visible), self.infrared_tower.stem(infrared)]))

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], modality: Modality
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch embed"]]:
        """Neck features and projections of one modality."""
        tower = self.visible_tower if modality is Modality.VISIBLE else self.infrared_tower
        return self.shared(tower.stem(images))

    def shared(
        self, maps: Float[Tensor, "batch channels rows columns"]
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch embed"]]:
        """What follows the stems; the attention pool runs, wanted or not."""
        tower = self.shared_tower
        maps = tower.layer4(tower.layer3(tower.layer2(tower.layer1(maps))))
        projection = tower.attnpool(maps)
        pooled = ((maps**GEM_POWER).mean(dim=(2, 3)) + 1e-12) ** (1.0 / GEM_POWER)
        return self.neck(pooled), projection


def plain_network(clip: LoadedClip, height: int, width: int) -> PlainNetwork:
    """The network as published code builds it, in torch's default memory format and evaluation mode, on the CPU.

    Args:
        clip: A CLIP model with a ResNet; it stays as it is.
        height: Of the images, a multiple of 16 pixels.
        width: Of the images, a multiple of 16 pixels.

    Raises:
        ValueError: Another kind of image tower, or another size.
    """
    visual: Any = clip.model.get_submodule("visual")
    if not hasattr(visual, "attnpool") or height % 16 or width % 16:
        raise ValueError(f"{clip.origin.model} at {height} x {width}: needs a ResNet and multiples of 16 pixels")
    return PlainNetwork(visual, height, width).eval()


class PlainMemory:
    """One unit vector per cluster of one modality, written in place.

    Args:
        prototypes: Unit rows; copied.
    """

    def __init__(self, prototypes: Float[Tensor, "clusters features"]) -> None:
        self.prototypes = prototypes.detach().clone()

    @classmethod
    def of_clusters(
        cls, features: Float[Tensor, "n features"], labels: Int64[np.ndarray, " n"], device: torch.device
    ) -> "PlainMemory":
        """The mean of each cluster, one image after the other, then one cluster after the other."""
        members: defaultdict[int, list[Tensor]] = defaultdict(list)
        for feature, label in zip(features, labels.tolist(), strict=True):
            if label != NO_LABEL:
                members[label].append(feature)
        means = [torch.stack(members[label]).mean(dim=0) for label in sorted(members)]
        return cls(functional.normalize(torch.stack(means), dim=1).to(device))

    def logits(self, features: Float[Tensor, "batch features"], temperature: float) -> Float[Tensor, "batch clusters"]:
        """Cosines over the temperature."""
        return features @ self.prototypes.T / temperature

    @torch.no_grad()
    def update(
        self, features: Float[Tensor, "batch features"], labels: Int64[Tensor, " batch"], momentum: float
    ) -> None:
        """Mix in one image after the other. Labels on a GPU are waited for, each by itself."""
        for feature, label in zip(features, labels, strict=True):
            mixed = momentum * self.prototypes[label] + (1.0 - momentum) * feature
            self.prototypes[label] = mixed / mixed.norm()


@torch.no_grad()
def plain_swap(
    memories: PerModality[PlainMemory],
    labels: PerModality[Int64[Tensor, " batch"]],
    *,
    scale: float = SWAP_SCALE,
    min_similarity: float = 0.0,
) -> None:
    """Pair all clusters, and let pairs that are in the batch take over each other's prototype, one after the other.

    The infrared prototype takes over the visible one after that was written, as the released rule of CCLNet has it.
    """
    visible, infrared = memories.map(lambda memory: memory.prototypes)
    similarity = (visible @ infrared.T).cpu().numpy()
    present = labels.map(lambda batch: set(batch.tolist()))
    for a, b in zip(*linear_sum_assignment(similarity, maximize=True), strict=True):
        if similarity[a, b] < min_similarity:
            continue
        if a in present.visible:
            mixed = scale * visible[a] + (1.0 - scale) * infrared[b]
            visible[a] = mixed / mixed.norm()
        if b in present.infrared:
            mixed = scale * infrared[b] + (1.0 - scale) * visible[a]
            infrared[b] = mixed / mixed.norm()


def plain_train_epoch(
    network: PlainNetwork,
    optimiser: torch.optim.Optimizer,
    loader: DataLoader[Any],
    memories: PerModality[PlainMemory],
    *,
    temperature: float,
    momentum: float,
    swap: bool,
    text: PerModality[Float[Tensor, "texts embed"]] | None = None,
    text_weight: float = 1.0,
    smoothing: float = 0.1,
    device: torch.device,
) -> dict[str, float]:
    """One pass over the loader in float32; network, optimiser and memories change.

    Args:
        network: In training mode afterwards.
        optimiser: Of its parameters.
        loader: Batches of `PlainPairs`.
        memories: Prototypes, on the device.
        temperature: Divides cosines.
        momentum: Weight of the old prototype.
        swap: Whether matched prototypes are swapped.
        text: Text features, on the device; none leaves the text loss out.
        text_weight: Of the text loss.
        smoothing: Of its targets.
        device: Where the network is.

    Returns:
        Mean of each loss over the steps, and of their sum as `total`.
    """
    network.train()
    sums: dict[str, float] = defaultdict(float)
    for batch in loader:
        images, labels, text_rows = (PerModality(*(one.to(device) for one in both)) for both in batch)
        neck, projection = network(images.visible, images.infrared)
        features = PerModality(*functional.normalize(neck, dim=1).chunk(2))
        terms = {
            f"{modality}_prototype": functional.cross_entropy(
                memories[modality].logits(features[modality], temperature), labels[modality]
            )
            for modality in Modality
        }
        if text is not None:
            projections = PerModality(*projection.chunk(2))
            for modality in Modality:
                loss = text_loss(projections[modality], text[modality], text_rows[modality], smoothing)
                terms[f"{modality}_text"] = text_weight * loss
        total: Tensor = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        for modality in Modality:
            memories[modality].update(features[modality].detach(), labels[modality], momentum)
        if swap:
            plain_swap(memories, labels)
        for name, value in (terms | {"total": total}).items():
            sums[name] += value.item()
    return {name: value / len(loader) for name, value in sums.items()}


def text_loss(
    images: Float[Tensor, "batch embed"],
    texts: Float[Tensor, "texts embed"],
    rows: Int64[Tensor, " batch"],
    smoothing: float,
) -> Float[Tensor, ""]:
    """Smoothed cross entropy of the images that have a text; 0 if none has."""
    known = rows != NO_LABEL
    if not known.any():
        return 0.0 * images.sum()
    return functional.cross_entropy(images[known] @ texts.T, rows[known], label_smoothing=smoothing)


def plain_extract(
    network: PlainNetwork,
    pixels: UInt8[np.ndarray, "n height width 3"],
    modality: Modality,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Float32[np.ndarray, "n features"]:
    """Neck features of all images as unit rows, fetched from the device after every batch; evaluation mode afterwards.

    Args:
        network: On the device.
        pixels: Decoded images, in memory.
        modality: Whose stem to use.
        batch_size: Images encoded at once.
        workers: Processes that make network input of pixels.
        device: Where the network is.
    """
    network.eval()
    fetched: list[Tensor] = []
    loader = plain_loader(PlainImages(pixels), batch_size=batch_size, workers=workers, device=device)
    with torch.no_grad():
        for images in loader:
            neck, _ = network.encode(images.to(device), modality)
            fetched.append(functional.normalize(neck, dim=1).cpu())
    return torch.cat(fetched).numpy()
