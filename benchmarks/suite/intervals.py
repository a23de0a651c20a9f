"""Statistics of few seeds: interquartile mean, and intervals from a stratified bootstrap.

As Agarwal et al., 2021 (arXiv 2108.13264), advise for few runs. Used by the ladder's page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

NUM_RESAMPLES = 10_000
"""Resamples of a bootstrap."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""float64 [..., N] to float64 [...]."""


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half: without a quarter, rounded down, on each side.

    Args:
      values: float64 [..., N], N >= 1.

    Returns:
      float64 [...].
    """
    ordered = np.sort(values, axis=-1)
    num_cut = ordered.shape[-1] // 4
    middle = ordered[..., num_cut : ordered.shape[-1] - num_cut]
    return np.asarray(middle.mean(axis=-1))


def bootstrap_interval(
    strata: Sequence[Sequence[float]],
    statistic: Statistic,
    seed: int = 1,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a statistic of all values.

    Each resample draws, with replacement, as many values of each stratum as it has: seeds of one
    environment stand for other seeds of it only.

    Args:
      strata: values by environment, at least one of each.
      statistic: of the values of all strata, side by side.
      seed: of the draws.
      num_resamples: how many.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for stratum in strata:
        values = np.asarray(stratum, dtype=np.float64)
        indices = generator.integers(len(values), size=(num_resamples, len(values)))
        drawn.append(values[indices])
    low, high = np.percentile(statistic(np.concatenate(drawn, axis=1)), [2.5, 97.5])
    return float(low), float(high)
