"""How reliable one learning curve is, in numbers.

After Chan et al. (2020), "Measuring the Reliability of Reinforcement Learning Algorithms". Some choices are ours:
dispersion across time is taken over the whole run (Chan et al.: in sliding windows); figures stay in the curve's units
and per step of the grid, so that only curves on one grid compare; CVaR counts a fraction of a sample where alpha·n is
not whole.

A curve is an array of n values on an even grid of steps (`on_grid`). Higher values are better. Risks are values of the
lower tail, so that a larger (less negative) one is better. Dispersions and falls are non-negative, smaller is better.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ALPHA = 0.05
GRID_POINTS = 100
NEAR_EXPERT = 0.9  # of the expert's return: when a run first reaches it is told
MIN_RISE = 0.1  # of its range: a curve that rises by less above its first value has not learned


class Fall(NamedTuple):
    """A loss, in the curve's units and as a fraction of |peak| (NaN if the peak is 0); neither is negative."""

    absolute: float
    relative: float


class RunningStability:
    """How steady a curve has been so far, for the log of a run that is still going on.

    A level is the mean of `block` values in a row, and `window` is how many values are looked back on. Values that are
    NaN or infinite are left out."""

    def __init__(self, *, block: int, window: int) -> None:
        self.block, self.window = block, window
        self.recent: list[float] = []
        self.best: float | None = None

    def add(self, values: Iterable[float]) -> dict[str, float]:
        """Take in new values; the figures after the last one, those that there are values enough for.

        `drawdown`: the level minus the best one so far, at most 0. `spread`: the interquartile range of the window.
        `worst_change`: the smallest difference, within the window, of a level and the one a block before."""
        for value in np.asarray(list(values), dtype=np.float64):
            if np.isfinite(value):
                self.recent = [*self.recent, float(value)][-self.window :]
                if len(self.recent) >= self.block:
                    level = float(np.mean(self.recent[-self.block :]))
                    self.best = level if self.best is None else max(self.best, level)
        if self.best is None:
            return {}
        found = {"drawdown": float(np.mean(self.recent[-self.block :])) - self.best}
        if len(self.recent) > self.block:
            found["spread"] = _interquartile_range(self.recent)
        if len(self.recent) >= 2 * self.block:
            levels = np.convolve(self.recent, np.full(self.block, 1 / self.block), mode="valid")
            found["worst_change"] = float((levels[self.block :] - levels[: -self.block]).min())
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"recent": self.recent, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recent, self.best = list(state["recent"]), state["best"]


def cvar(values: ArrayLike, alpha: float = ALPHA) -> float:
    """Conditional value at risk: the mean of the worst `alpha` of the values, 0 < alpha ≤ 1.

    With n values the worst alpha·n are averaged; where that is no whole number, the last one counts by the fraction,
    and below one value it is the minimum."""
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], got {alpha}")
    ordered = np.sort(finite(values, at_least=1))
    weights = np.clip(max(alpha * len(ordered), 1.0) - np.arange(len(ordered)), 0.0, 1.0)
    return float(weights @ ordered / weights.sum())


def dispersion_across_time(curve: ArrayLike) -> float:
    """Interquartile range of the differences between neighbouring values, which takes a steady trend out."""
    return _interquartile_range(np.diff(finite(curve, at_least=2)))


def _interquartile_range(values: ArrayLike) -> float:
    return float(np.subtract(*np.percentile(values, [75, 25])))


def short_term_risk(curve: ArrayLike, alpha: float = ALPHA) -> float:
    """CVaR of the differences between neighbouring values: how bad the worst single steps are."""
    return cvar(np.diff(finite(curve, at_least=2)), alpha)


def long_term_risk(curve: ArrayLike, alpha: float = ALPHA) -> float:
    """CVaR of the drawdown, at most 0: how far the run is below its own best in its worst times."""
    return cvar(drawdown(curve), alpha)


def drawdown(curve: ArrayLike) -> Array:
    """Each value minus the best so far, shape (n,); nowhere positive."""
    values = finite(curve, at_least=1)
    return values - np.maximum.accumulate(values)


def largest_fall(curve: ArrayLike) -> Fall:
    """The deepest drawdown, from a peak to a later trough, and what fraction of that peak was lost."""
    losses = -drawdown(curve)
    trough = int(losses.argmax())
    loss, peak = float(losses[trough]), float(np.max(np.asarray(curve)[: trough + 1]))
    return Fall(loss, loss / abs(peak) if peak else np.nan) if loss else Fall(0.0, 0.0)


def late_fall(curve: ArrayLike) -> float:
    """The deepest drawdown after the curve first came halfway from its first value to its best.

    A policy that learns nothing yet often falls below where it began; that is counted by `largest_fall` and not here.
    So a curve that never rises above its first value, by a tenth of its own range, has no late fall: NaN."""
    values = finite(curve, at_least=1)
    if values.max() - values[0] < MIN_RISE * np.ptp(values):
        return np.nan
    learned = np.flatnonzero(values >= (values[0] + values.max()) / 2)[0]
    return largest_fall(values[learned:]).absolute


def near_expert_return(expert: float | None, random: float | None) -> float | None:
    """The return at which a policy is near the expert: 90 % of the expert's, or, where that is not above 0, 90 % of the
    way to it from the random policy's. None where the returns that it takes are not known."""
    if expert is None or not np.isfinite(expert):
        return None
    if expert > 0:
        return NEAR_EXPERT * expert
    return None if random is None or not random < expert else random + NEAR_EXPERT * (expert - random)


def first_reached(steps: ArrayLike, values: ArrayLike, level: float) -> float:
    """The first step at which the curve, as measured, is at `level` or above; NaN if it never is."""
    steps, values = _curve(steps, values)
    there = np.flatnonzero(values >= level)
    return float(steps[there[0]]) if len(there) else float("nan")


def on_grid(steps: ArrayLike, values: ArrayLike, grid: ArrayLike) -> Array:
    """The curve on other steps, shape of `grid`: linear in between, NaN where the run has no measurement around.

    Steps may come in any order; of two values for one step the later counts."""
    return np.interp(np.asarray(grid, dtype=np.float64), *_curve(steps, values), left=np.nan, right=np.nan)


def summarise(steps: ArrayLike, values: ArrayLike, grid: ArrayLike | None = None) -> dict[str, float]:
    """One run in figures: final, best, largest_fall, largest_fall_relative, late_fall, average (the area under the
    curve over its length), drawdown_cvar, dispersion, short_term_risk. late_fall is NaN of a curve that did not rise.

    The first five are of the curve as measured. The others depend on how finely a curve is sampled, and are taken on
    `grid`, of which the part that the run has reached counts; by default 100 even steps from its first to its last, or
    as many as it has values. Give runs that are compared one grid. With fewer than three values the dispersion is
    NaN, with a single one the last figure is 0."""
    steps, values = _curve(steps, values)
    if grid is None:
        grid = np.linspace(steps[0], steps[-1], min(len(steps), GRID_POINTS))
    curve = on_grid(steps, values, grid)
    curve = curve[np.isfinite(curve)]
    if not len(curve):
        raise ValueError(f"the run, from step {steps[0]:.0f} to {steps[-1]:.0f}, reaches no step of the grid")
    fall = largest_fall(values)
    return {
        "final": float(values[-1]),
        "best": float(values.max()),
        "largest_fall": fall.absolute,
        "largest_fall_relative": fall.relative,
        "late_fall": late_fall(values),
        "average": float(curve.mean()),
        "drawdown_cvar": long_term_risk(curve),
        "dispersion": dispersion_across_time(curve) if len(curve) > 2 else np.nan,  # of one difference there is none
        "short_term_risk": short_term_risk(curve) if len(curve) > 1 else 0.0,
    }


def _curve(steps: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """Steps rising, each once, and their values."""
    steps, values = np.asarray(steps, dtype=np.float64), finite(values, at_least=1)
    if steps.shape != values.shape:
        raise ValueError(f"a curve needs as many steps as values, got {steps.shape} and {values.shape}")
    # The last of equal steps is the first one that `unique` meets when it looks from behind.
    unique, from_behind = np.unique(steps[::-1], return_index=True)
    return unique, values[::-1][from_behind]


def finite(values: ArrayLike, *, at_least: int) -> Array:
    """One-dimensional float64, or ValueError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < at_least:
        raise ValueError(f"expected one dimension and at least {at_least} value(s), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(array))[0])} is not finite")
    return array
