"""Fusions of two texts written out person by person, in float64, with weights handed in by name."""

import torch


def layer(parameters, name, row):
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return torch.stack([(weights * row).sum() + offset for weights, offset in zip(weight, bias, strict=True)])


def attend(parameters, query_text, texts):
    """One head over a sequence of texts, as nengdong96/CSDN writes it for a sequence of one: all three through tanh."""
    query = torch.tanh(layer(parameters, "query", query_text))
    keys = [torch.tanh(layer(parameters, "key", text)) for text in texts]
    values = [torch.tanh(layer(parameters, "value", text)) for text in texts]
    powers = [torch.exp((query * key).sum() / len(query) ** 0.5) for key in keys]
    read = sum(power / sum(powers) * value for power, value in zip(powers, values, strict=True))
    return query_text + layer(parameters, "output", read)


def attention_over_the_infrared_text(parameters, visible_texts, infrared_texts):
    """The released module: the visible text is the query, the infrared one the only key and value."""
    return torch.stack([attend(parameters, v, [r]) for v, r in zip(visible_texts, infrared_texts, strict=True)])


def attention_over_both_texts(parameters, visible_texts, infrared_texts):
    return torch.stack([attend(parameters, v, [v, r]) for v, r in zip(visible_texts, infrared_texts, strict=True)])


def linear_map_of_both_texts(parameters, visible_texts, infrared_texts):
    return torch.stack(
        [layer(parameters, "output", torch.cat([v, r])) for v, r in zip(visible_texts, infrared_texts, strict=True)]
    )
