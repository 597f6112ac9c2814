"""Figures of several runs together, with their bootstrap intervals.

Reliability after Chan et al. (2020), "Measuring the Reliability of Reinforcement Learning Algorithms"; interquartile
mean, stratified bootstrap and probability of improvement after Agarwal et al. (2021), "Deep Reinforcement Learning at
the Edge of the Statistical Precipice". Figures of a single run are in `l2l_experiment.stability`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from l2l_experiment.stability import ALPHA, cvar, finite

Array = NDArray[np.float64]

RUN_METRICS = (
    "final",
    "best",
    "average",
    "largest_fall",
    "late_fall",
    "drawdown_cvar",
    "dispersion",
    "short_term_risk",
)
RUNS_FOR_INTERVAL = 3  # fewer have no interval
# Resampled runs are never further apart, or worse, than the runs themselves: of few, such an interval says nothing.
RUNS_FOR_SPREAD = 5
RUNS_FOR_RISK = round(1 / ALPHA) + 1  # with fewer the mean of the worst 5 % is the worst run
N_RESAMPLES = 2000
LEVEL = 0.95
BATCH = 200  # draws at a time, which bounds the memory; with several groups the draws depend on it


class Estimate(NamedTuple):
    """A figure with its 95 % bootstrap interval over runs; the interval is None where there are too few."""

    value: float
    low: float | None
    high: float | None


def dispersion_across_runs(curves: ArrayLike, axis: int = 0) -> Any:
    """Interquartile range over runs at each step of the grid; (runs, n) gives (n,)."""
    return np.subtract(*np.percentile(np.asarray(curves, dtype=np.float64), [75, 25], axis=axis))


def risk_across_runs(finals: ArrayLike, axis: int = 0) -> Any:
    """CVaR of the runs' final values, the mean of the worst 5 %: below 20 runs the worst one."""
    return np.apply_along_axis(cvar, axis, np.asarray(finals, dtype=np.float64))


def interquartile_mean(values: ArrayLike, axis: int | None = None) -> Any:
    """Mean of the middle half: ⌊n/4⌋ values are dropped at each end. A float, or an array if `axis` is given."""
    from scipy import stats  # loads slowly, and --help must not wait for it

    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or np.isnan(array).any():
        # Sorting would put NaN at the top, where it is trimmed away in silence.
        raise ValueError("an interquartile mean needs at least one value, and none of them NaN")
    mean = stats.trim_mean(array, 0.25, axis=axis)
    return float(mean) if axis is None else mean


def bootstrap_interval(
    groups: Iterable[ArrayLike],
    statistic: Callable[..., Any] = interquartile_mean,
    *,
    n: int = N_RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[Any, Any]:
    """Stratified percentile bootstrap: `(low, high)` of `statistic` over all groups' values together.

    Each of the `n` draws resamples the runs of every group (task) with replacement, within the group. A group's first
    dimension counts runs, at least two. `statistic(values, axis=…)` gets the groups joined, `axis` counting runs, and
    gives a number or an array for each draw."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, got {level}")
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if not arrays or any(len(array) < 2 for array in arrays):
        raise ValueError("every group needs at least two values")

    def joined(*drawn: Array, axis: int) -> Any:
        return statistic(np.concatenate(drawn, axis=axis), axis=axis)

    return _interval(arrays, joined, n, seed, level)


def _interval(samples: Sequence[Array], statistic: Callable[..., Any], n: int, seed: int, level: float) -> Any:
    from scipy import stats

    rng = np.random.default_rng(seed)
    options = {"n_resamples": n, "batch": BATCH, "confidence_level": level, "method": "percentile", "rng": rng}
    low, high = stats.bootstrap(samples, statistic, axis=0, vectorized=True, **options).confidence_interval
    return (float(low), float(high)) if np.ndim(low) == 0 else (low, high)


def estimate(
    values: ArrayLike, statistic: Callable[..., Any] = interquartile_mean, *, at_least: int = RUNS_FOR_INTERVAL
) -> Estimate:
    """A statistic over runs (the first dimension) with its bootstrap interval, from `at_least` runs on."""
    array = np.asarray(values, dtype=np.float64)
    few = len(array) < at_least
    low, high = (None, None) if few else bootstrap_interval([array], statistic)
    return Estimate(float(statistic(array, axis=0)), low, high)


def group_metrics(rows: Sequence[Mapping[str, float]], resampled: ArrayLike) -> dict[str, Estimate]:
    """Of one group: interquartile mean over runs of each of `RUN_METRICS`, of those runs that have it, and two figures
    of the runs together.

    `rows` are the runs' figures (`stability.summarise`), `resampled` the runs on their grid, shape (runs, n). What a
    grid of two points cannot tell is left out. `dispersion_across_runs` is the mean over the grid."""
    # Of two points there is one difference, and no spread of differences.
    names = [name for name in RUN_METRICS if name != "dispersion" or np.shape(resampled)[1] > 2]
    known = {name: [row[name] for row in rows if np.isfinite(row[name])] for name in names}
    found = {name: estimate(values) for name, values in known.items() if values}
    if len(rows) > 1:
        found["dispersion_across_runs"] = estimate(resampled, _mean_dispersion, at_least=RUNS_FOR_SPREAD)
    found["risk_across_runs"] = estimate([row["final"] for row in rows], risk_across_runs, at_least=RUNS_FOR_RISK)
    return found


def _mean_dispersion(curves: Array, axis: int = 0) -> Any:
    return dispersion_across_runs(curves, axis).mean(axis=0)


def mean_interval(values: ArrayLike, level: float = LEVEL) -> float:
    """Half the width of Student's t interval of a mean, for at least two values.

    For few runs: a bootstrap of two to five values is too narrow, for it draws from those values alone."""
    from scipy import stats

    array = finite(values, at_least=2)
    quantile = stats.t.ppf((1 + level) / 2, len(array) - 1)
    return float(quantile * array.std(ddof=1) / np.sqrt(len(array)))


def probability_of_improvement(
    tasks: Iterable[tuple[ArrayLike, ArrayLike]], n: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """How probable it is that a run of one group ends higher than one of another, `tasks` holding the values of both
    for each task: Mann and Whitney's U over its maximum, mean over tasks.

    The interval resamples the runs of both within each task."""
    samples = [np.asarray(side, dtype=np.float64) for pair in tasks for side in pair]
    if not samples or any(not len(side) or np.isnan(side).any() for side in samples):
        raise ValueError("each task needs a value of each group at least, and none may be NaN")

    def mean_share(*sides: Array, axis: int = -1) -> Any:
        return np.mean([_share_above(a, b) for a, b in zip(sides[::2], sides[1::2], strict=True)], axis=0)

    few = min(map(len, samples)) < RUNS_FOR_INTERVAL
    low, high = (None, None) if few else _interval(samples, mean_share, n, seed, LEVEL)
    return Estimate(float(mean_share(*samples)), low, high)


def _share_above(a: Array, b: Array) -> Any:
    """The share of pairs in which the first is the higher one, over the last dimension; equal ones count half."""
    a, b = a[..., :, None], b[..., None, :]
    return ((a > b) + 0.5 * (a == b)).mean(axis=(-2, -1))
