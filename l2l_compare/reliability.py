"""Figures of several runs together, and their intervals.

Reliability after Chan et al. (2020), "Measuring the Reliability of Reinforcement Learning Algorithms"; summaries of
scores after Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Figures of a
single run are in `l2l_experiment.stability`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from l2l_experiment.stability import ALPHA, Array, cvar, finite

RUNS_FOR_INTERVAL = 3  # fewer have no interval


def dispersion_across_runs(curves: ArrayLike) -> Array:
    """Interquartile range over runs at each step of the grid; (runs, n) gives (n,)."""
    low, high = np.quantile(finite(curves, at_least=1, dimensions=2), (0.25, 0.75), axis=0)
    return high - low


def risk_across_runs(finals: ArrayLike, alpha: float = ALPHA) -> float:
    """CVaR of the runs' final values: how good the worst runs are. Below 1/alpha runs this is the worst one."""
    return cvar(finals, alpha)


def interquartile_mean(values: ArrayLike, axis: int | None = None) -> Any:
    """Mean of the middle half: ⌊n/4⌋ values are dropped at each end. A float, or an array if `axis` is given."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or np.isnan(array).any():
        # Sorting would put NaN at the top, where it is trimmed away in silence.
        raise ValueError("an interquartile mean needs at least one value, and none of them NaN")
    # scipy's trim_mean does the same in many times the time, which thousands of bootstrap draws multiply.
    ordered = np.sort(array.ravel() if axis is None else np.moveaxis(array, axis, 0), axis=0)
    dropped = len(ordered) // 4
    mean = ordered[dropped : len(ordered) - dropped].mean(axis=0)
    return float(mean) if axis is None else mean


def bootstrap_interval(
    values_by_group: Mapping[str, ArrayLike] | Iterable[ArrayLike],
    statistic: Callable[[Array], Any] = interquartile_mean,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Any, Any]:
    """Stratified percentile bootstrap: `(low, high)` of `statistic` over all groups' values together.

    Each of the `n` draws resamples the runs of every group (task) with replacement, within the group. A group's first
    dimension counts runs; `statistic` gets the groups joined along it and gives a number or an array.
    """
    groups = list(values_by_group.values() if isinstance(values_by_group, Mapping) else values_by_group)
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if not arrays or any(len(array) == 0 for array in arrays):
        raise ValueError("every group needs at least one value")
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(np.concatenate([array[generator.integers(len(array), size=len(array))] for array in arrays]))
        for _ in range(n)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (float(low), float(high)) if np.ndim(low) == 0 else (low, high)


def mean_interval(values: ArrayLike, level: float = 0.95) -> float:
    """Half the width of Student's t interval of a mean, for at least two values.

    For few runs: a bootstrap of two to five values is too narrow, for it draws from those values alone.
    """
    array = finite(values, at_least=2)
    quantile = scipy.stats.t.ppf((1 + level) / 2, len(array) - 1)
    return float(quantile * array.std(ddof=1) / np.sqrt(len(array)))
