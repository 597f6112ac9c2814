"""The discriminator's observation filter, one for demonstrations and policy."""

from typing import Any, Self

import numpy as np

CLIP = 5.0  # where observations are cut off, in standard deviations of the demonstrations
DECAY = 0.9  # how much of the policy's moments survives a round


class MixtureFilter:
    """Standardises observations by an even mixture of the demonstrations and the policy's recent rounds.

    Two steps. In units of the demonstrations' deviation, observations are cut off at ±CLIP: a robot on its back must
    not squeeze the range in which upright ones differ. Then they are standardised by the mixture's moments: by the
    demonstrations' own, an early policy lies far away, and the discriminator has won before the policy can learn."""

    def __init__(self) -> None:
        self.mean: np.ndarray | None = None
        self.deviation: np.ndarray | None = None
        self.policy: np.ndarray | None = None  # mean and variance of the policy's observations in those units

    def fit(self, demonstrations: np.ndarray) -> Self:
        """Take the units from the demonstrations' observations, shape (n, obs)."""
        self.mean, deviation = (moment(demonstrations, axis=0, dtype=np.float64) for moment in (np.mean, np.std))
        # What the demonstrations never vary, such as a goal, has no scale of its own: it keeps the environment's.
        constant = deviation < 1e-6 * np.maximum(1.0, np.abs(self.mean))
        self.deviation = np.where(constant, 1.0, deviation + 1e-3)
        return self

    def update(self, observations: np.ndarray) -> None:
        """Take in the policy's observations of a round, shape (n, obs)."""
        units = self._in_units(observations)
        moments = np.stack([units.mean(axis=0), units.var(axis=0)])
        self.policy = moments if self.policy is None else DECAY * self.policy + (1 - DECAY) * moments

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Filtered observations, same shape; before the first `update` in units of the demonstrations."""
        if self.policy is None:
            return self._in_units(observations)
        mean, variance = self.policy
        center = mean / 2  # in those units the demonstrations have mean 0 and, where they vary, variance 1
        return (self._in_units(observations) - center) / np.sqrt((1 + variance) / 2 + center**2)

    def _in_units(self, observations: np.ndarray) -> np.ndarray:
        return np.clip((observations - self.mean) / self.deviation, -CLIP, CLIP)

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.policy, "mean": self.mean, "deviation": self.deviation}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        self.policy, self.mean, self.deviation = tree["policy"], tree["mean"], tree["deviation"]


class NoFilter:
    """Leaves observations as they are: pixels in [0, 1]."""

    def fit(self, demonstrations: np.ndarray) -> Self:
        return self

    def update(self, observations: np.ndarray) -> None:
        pass

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        return observations

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        pass
