"""What a score means: the share of people who are not in a gallery whose best score there is as high."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

FEWEST = 20
"""Strangers that a calibration needs at least."""
TAIL, TAIL_COUNT = 0.01, 100
"""Share, and least number, of the highest scores that the tail is fitted to, at most a tenth of all.

A tenth of many scores would hide that a few strangers look like people of the gallery.
"""
EXPECTED = 10
"""Strangers above a threshold that its rate needs: their number then has a standard deviation of about a third."""


@dataclass(frozen=True, slots=True, eq=False)
class FalseMatch:
    """The best score of each stranger, ascending, and a generalised Pareto distribution of those above `threshold`.

    `shape` and `scale` are those of the distribution of score - `threshold`.

    Source: Pickands, Annals of Statistics 1975; estimate by probability-weighted moments: Hosking and Wallis,
    Technometrics 1987.
    """

    scores: Float64[np.ndarray, " n"]
    threshold: float
    shape: float
    scale: float

    @classmethod
    def fit(cls, best: Shaped[np.ndarray, " n"]) -> "FalseMatch":
        """From the best score of each stranger.

        Raises:
            ValueError: There are fewer than 20, or one is not finite.
        """
        if len(best) < FEWEST:
            raise ValueError(f"{len(best)} strangers are too few, at least {FEWEST} are needed")
        scores = np.sort(best.astype(np.float64))
        if not np.isfinite(scores).all():
            raise ValueError("a score is not finite")
        most = max(FEWEST // 2, len(scores) // 10)
        count = min(max(TAIL_COUNT, int(TAIL * len(scores))), most)
        threshold = scores[-count - 1]
        excess = scores[-count:] - threshold
        first = excess.mean()
        second = float(excess @ (1 - (np.arange(1, count + 1) - 0.35) / count)) / count
        if first <= 2 * second or second <= 0:  # equal scores
            return cls(scores, float(threshold), 0.0, max(float(first), float(np.finfo(np.float32).tiny)))
        shape = 2 - first / (first - 2 * second)
        return cls(scores, float(threshold), float(shape), float(2 * first * second / (first - 2 * second)))

    def rates(self, scores: Shaped[np.ndarray, " *m"]) -> Float64[np.ndarray, " *m"]:
        """Share of strangers whose best score is at least each score; never below 1 / n for n strangers."""
        from scipy.stats import genpareto  # slow to import

        values = np.asarray(scores, np.float64)
        count = len(self.scores)
        below = 1 - np.searchsorted(self.scores, values, side="left") / count
        survival = genpareto.sf(values - self.threshold, self.shape, scale=self.scale)
        rates = np.where(values > self.threshold, self._tail_share * survival, below)
        return np.maximum(rates, 1 / count)

    def score_at(self, rate: float) -> float:
        """The score that a share `rate` of strangers reaches.

        Raises:
            ValueError: The rate is not between 0 and 1, or there are fewer than 10 / rate strangers.
        """
        if not 0 < rate < 1:
            raise ValueError(f"a share of false matches is between 0 and 1, not {rate:g}")
        if rate * len(self.scores) < EXPECTED * (1 - 1e-9):
            needed = f"at least {EXPECTED / rate:,.0f} are needed"
            raise ValueError(f"{len(self.scores):,} strangers are too few for a share of {rate:g}: {needed}")
        if rate >= self._tail_share:
            return float(np.quantile(self.scores, 1 - rate, method="higher"))
        from scipy.stats import genpareto

        return self.threshold + float(genpareto.isf(rate / self._tail_share, self.shape, scale=self.scale))

    def summary(self) -> dict[str, float]:
        """The number of `strangers`, and the score that `1 in 10` and so on of them reach, as far as it is known."""
        found = {"strangers": float(len(self.scores))}
        for one_in in (10, 100, 1_000, 10_000):
            if len(self.scores) >= EXPECTED * one_in:
                found[f"1 in {one_in:,}"] = self.score_at(1 / one_in)
        return found

    @property
    def _tail_share(self) -> float:
        return 1 - float(np.searchsorted(self.scores, self.threshold, side="right")) / len(self.scores)
