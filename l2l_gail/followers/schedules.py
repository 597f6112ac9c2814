"""How an optimiser's learning rate changes over a run: factors, by the share of training that is done."""

from collections.abc import Callable

import numpy as np

# The rate that the learned rule found in the main comparison with the earlier defaults (docs/results/gail.md), over the
# one that it started from, 3e-4.
FOUND = ((0.0, 0.06, 0.3, 0.6, 1.0), (1.0, 2.8, 1.0, 0.75, 0.75))

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "l2l": lambda progress: float(np.exp(np.interp(progress, FOUND[0], np.log(FOUND[1])))),
}
