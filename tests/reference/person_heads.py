"""The learned pooling written out cell by cell, in float64; gradients come from differentiating these sums."""

import torch


def learned_generalised_mean(feature_map, power, floor):
    """Radenovic et al., TPAMI 2019, generalised mean with one power for all channels."""
    pooled = []
    for image in feature_map:
        for channel in image:
            cells = [torch.clamp(value, min=floor) for row in channel for value in row]
            mean = sum(torch.exp(power * torch.log(cell)) for cell in cells) / len(cells)
            pooled.append(torch.exp(torch.log(mean) / power))
    return torch.stack(pooled).view(feature_map.shape[:2])
