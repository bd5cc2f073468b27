"""Images of more than 8 bits a pixel, such as counts or temperatures of thermal cameras, as 8-bit images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped, UInt8

TAIL = 0.005
"""Share of the pixels at either end that can be outliers."""
MARGIN = 0.5
"""Distance of outliers from all other values, as a share of the range of these."""
FILL_GAP, FILL_STEPS = 0.25, 4
"""Distance of fill values from all other values, as a share of their range, and in their largest steps."""
MOST_FILLS = 4
"""Fill values at either end."""


def to_eight_bits(
    values: Float[np.ndarray, "height width"], limits: tuple[float, float] | None
) -> tuple[UInt8[np.ndarray, "height width"], bool]:
    """Scale values to 0..255, and return whether any pixel is within the limits.

    `limits` become black and white; None: those of `robust_limits`. Values beyond them become black or white, undefined
    values (NaN) black.

    Raises:
        ValueError: No value is finite.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        raise ValueError("no pixel has a finite value")
    low, high = robust_limits(known) if limits is None else limits
    with np.errstate(over="ignore", invalid="ignore"):
        shares = (values - low) / max(high - low, float(np.finfo(np.float32).tiny))
    shares = np.clip(np.nan_to_num(shares, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return np.rint(255 * shares).astype(np.uint8), bool(((known >= low) & (known <= high)).any())


def robust_limits(values: Shaped[np.ndarray, " n"]) -> tuple[float, float]:
    """The smallest and the largest of finite values, without outliers and fill values.

    * Outliers (dead and hot pixels) are beyond the 0.5th and 99.5th percentile by more than half their distance.
    * Fill values (a border of zeros, -273.15 for undefined, saturation) are exact repetitions in at least 0.5 % of the
      pixels, outside of all other values and far from them.

    Cost: 10 ms for 640 x 512 pixels.
    """
    levels, counts = np.unique(values, return_counts=True)
    shades = _Shades(levels.astype(np.float64), counts, np.cumsum(counts))
    low, high = _without_fill(shades)
    first, last = shades.bulk(low, high)
    reach = MARGIN * (last - first)
    inside = shades.levels[low : high + 1]
    inside = inside[(inside >= first - reach) & (inside <= last + reach)]
    return float(inside[0]), float(inside[-1])


@dataclass(frozen=True, slots=True, eq=False)
class _Shades:
    """The distinct values of an image, ascending, their numbers of pixels, and the sums of these up to each value."""

    levels: Float64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]
    sums: Int64[np.ndarray, " n"]

    def percentiles(self, low: int, high: int) -> tuple[int, int]:
        """Positions of the 0.5th and the 99.5th percentile of the values at positions `low` to `high`."""
        before = self.sums[low] - self.counts[low]
        tail = int(TAIL * (self.sums[high] - before - 1))
        first, last = np.searchsorted(self.sums, (before + tail, self.sums[high] - tail - 1), side="right")
        return int(first), int(last)

    def bulk(self, low: int, high: int) -> tuple[float, float]:
        """These percentiles."""
        first, last = self.percentiles(low, high)
        return float(self.levels[first]), float(self.levels[last])

    def is_far(self, gap: float, low: int, high: int) -> bool:
        """Whether a distance from the values at positions `low` to `high` is that of a fill value."""
        first, last = self.percentiles(low, high)
        steps = np.diff(self.levels[first : last + 1])
        return bool(steps.size) and gap > max(FILL_GAP * float(steps.sum()), FILL_STEPS * float(steps.max()))


def _without_fill(shades: _Shades) -> tuple[int, int]:
    """Positions of the first and the last value that are not fill: repeated ones are removed, near ones put back."""
    spans = [(0, len(shades.levels) - 1)]
    enough = TAIL * shades.sums[-1]
    for _ in range(MOST_FILLS):
        low, high = spans[-1]
        first, last = shades.percentiles(low, high)
        inner_low = first + 1 if shades.counts[first] >= enough else low
        inner_high = last - 1 if shades.counts[last] >= enough else high
        if inner_low > inner_high or (inner_low, inner_high) == spans[-1]:
            break
        spans.append((inner_low, inner_high))
    low, high = spans.pop()
    low_is_final = high_is_final = False
    for outer_low, outer_high in reversed(spans):
        first_value, last_value = shades.bulk(low, high)
        if outer_low < low:
            low_is_final |= shades.is_far(first_value - float(shades.levels[low - 1]), low, high)
        if outer_high > high:
            high_is_final |= shades.is_far(float(shades.levels[high + 1]) - last_value, low, high)
        low, high = low if low_is_final else outer_low, high if high_is_final else outer_high
    return low, high
