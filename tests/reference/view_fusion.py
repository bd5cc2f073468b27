"""Views fused anchor by anchor, in float64, with weights handed in by name and a softmax over the others alone."""

import torch

from tests.reference.fusion import layer


def without_bias(parameters, name, row):
    return torch.stack([(weights * row).sum() for weights in parameters[f"{name}.weight"]])


def fused_views(parameters, rows, positions, images_per_person, heads):
    """Each row plus what its heads read in the other images of its block; a row without any is left as it is."""
    fused = []
    for i, row in enumerate(rows):
        start = i - i % images_per_person
        block = range(start, start + images_per_person)
        others = [rows[j] for j in block if int(positions[j]) != int(positions[i])]
        fused.append(row + layer(parameters, "output", read(parameters, row, others, heads)) if others else row)
    return torch.stack(fused)


def read(parameters, row, others, heads):
    query = layer(parameters, "query", row)
    keys = [without_bias(parameters, "key", other) for other in others]
    values = [without_bias(parameters, "value", other) for other in others]
    size = len(query) // heads
    parts = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        powers = [torch.exp((query[part] * key[part]).sum() / size**0.5) for key in keys]
        parts.append(sum(power / sum(powers) * value[part] for power, value in zip(powers, values, strict=True)))
    return torch.cat(parts)
