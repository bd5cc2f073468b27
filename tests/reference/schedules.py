"""Learning rates epoch by epoch: CCLNet's and CSDN's tables, and the schedules as a walk from one epoch to the next."""

import math

# Rates by epoch, from 1, of the two public codes (CzAngus/CCLNet, nengdong96/CSDN).
CCLNET_IMAGES = (
    dict(enumerate([3.815e-5, 7.28e-5, 1.0745e-4, 1.421e-4, 1.7675e-4, 2.114e-4, 2.4605e-4, 2.807e-4, 3.1535e-4], 1))
    | dict.fromkeys(range(10, 30), 3.5e-4)
    | dict.fromkeys(range(30, 50), 3.5e-5)
    | dict.fromkeys(range(50, 121), 3.5e-6)
)
CCLNET_PROMPTS = (
    dict(enumerate([7.8e-5, 1.46e-4, 2.14e-4, 2.82e-4, 3.440541e-4], 1))
    | {10: 3.266214e-4, 20: 2.6275e-4, 30: 1.755e-4, 40: 8.825e-5}
    | {50: 2.437857e-5, 59: 1.239146e-6, 60: 1e-6}
)
CSDN_IMAGES = (
    dict(enumerate([3e-6, 3.27e-5, 6.24e-5, 9.21e-5, 1.218e-4, 1.515e-4, 1.812e-4, 2.109e-4, 2.406e-4, 2.703e-4], 1))
    | dict.fromkeys(range(11, 41), 3e-4)
    | dict.fromkeys(range(41, 71), 3e-5)
    | dict.fromkeys(range(71, 121), 3e-6)
)
CSDN_PROMPTS = (
    dict(enumerate([1e-5, 6.8e-5, 1.26e-4, 1.84e-4, 2.42e-4, 2.949059e-4], 1))
    | {11: 2.799708e-4, 21: 2.2525e-4, 31: 1.505e-4, 41: 7.575e-5}
    | {51: 2.10292e-5, 60: 1.204885e-6}
)


def walk_multistep(num_epochs, base, warmup, factor, milestones, gamma):
    """The rates of epochs 1 to `num_epochs`: a counter that climbs, and a rate that falls when a milestone is met."""
    rates, rate = [], base
    for epoch in range(1, num_epochs + 1):
        for _ in [milestone for milestone in milestones if milestone == epoch]:
            rate = rate * gamma
        if epoch < warmup:
            share = epoch / warmup
            rates.append(rate * (factor * (1 - share) + share))
        else:
            rates.append(rate)
    return rates


def walk_cosine(num_epochs, base, total, warmup, start, floor):
    """The rates of epochs 1 to `num_epochs` of a climb followed by the rest of half a cosine."""
    rates = []
    for epoch in range(1, num_epochs + 1):
        if epoch < warmup:
            rates.append(start + epoch * (base - start) / warmup)
        elif epoch < total:
            rates.append(floor + 0.5 * (base - floor) * (1 + math.cos(epoch * math.pi / total)))
        else:
            rates.append(floor)
    return rates
