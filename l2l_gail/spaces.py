"""How observations and actions of an environment become numbers for the discriminator, and go back.

Every question about a space is asked here: its size, what a demonstration may hold, what the environment executes."""

import math
import warnings

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from l2l_experiment.errors import UserError

BOUND_TOLERANCE = 1e-4  # by which recorded actions may leave their bounds: the rounding of a float32 policy


class Observations:
    """A one-dimensional Box of observations; UserError for another space."""

    kind, needs, bounded = "observations", "a one-dimensional Box", False

    def __init__(self, space: gym.Space, name: str) -> None:
        if not isinstance(space, Box) or len(space.shape) != 1 or (self.bounded and not space.is_bounded()):
            raise UserError(f"{name} has {self.kind} {space}; GAIL here needs {self.needs}")
        self.space, self.size = space, space.shape[0]

    def features(self, values: np.ndarray) -> np.ndarray:
        """Values (n, …) as the discriminator takes them, shape (n, size)."""
        return values.reshape(len(values), -1)

    def shaped(self, values: np.ndarray, where: str) -> np.ndarray:
        """The same values, from a demonstration; UserError if they have another shape than the space."""
        if values.shape[1:] != self.space.shape:
            shape, right = values.shape[1:], self.space.shape
            raise UserError(f"{where} has {self.kind} of shape {shape}; the environment's is {right}")
        return values


class Actions(Observations):
    """A bounded one-dimensional Box of actions; UserError for another space."""

    kind, needs, bounded = "actions", "a bounded, one-dimensional Box", True

    def __init__(self, space: gym.Space, name: str) -> None:
        super().__init__(space, name)
        if space.dtype.kind != "f":
            raise UserError(
                f"{name} has actions {space}, which are whole numbers: a policy over a Box would act with fractions"
            )

    def executed(self, values: np.ndarray) -> np.ndarray:
        """What the environment makes of a policy's actions, same shape: it clips them to their bounds."""
        return np.clip(values, self.space.low, self.space.high)

    def uniform(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Random actions, shape (count, size)."""
        shape = (count, *self.space.shape)
        return generator.uniform(self.space.low, self.space.high, shape).astype(self.space.dtype)

    def recorded(self, values: np.ndarray, where: str) -> np.ndarray:
        """Actions of a demonstration as float32, clipped to their bounds; UserError if that is more than rounding."""
        excess = np.maximum(self.space.low - values, values - self.space.high).max(axis=1)
        worst = int(excess.argmax())
        if excess[worst] > BOUND_TOLERANCE:
            low, high = self.space.low.min(), self.space.high.max()
            raise UserError(
                f"{where} has an action out of bounds at step {worst} (by {excess[worst]:.3g}); "
                f"actions must lie within [{low:g}, {high:g}], as the environment received them"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # casting loses digits only
            return self.executed(values).astype(np.float32)

    def advice(self, name: str, log_std: float) -> str | None:
        """A sentence where the policy's first actions, around 0, do not fit the bounds; None where they do."""
        low, high = (bound.astype(np.float64).ravel() for bound in (self.space.low, self.space.high))
        low, high = low[high > low], high[high > low]  # an action without a choice does not matter
        reach, share = (high - low) / 2, 2 * math.exp(log_std) / (high - low)
        if not ((abs(low + high) > reach).any() or (share < 0.02).any() or (share > 2).any()):
            return None
        return (
            f"actions of {name} reach from {low.min():g} to {high.max():g}, and the policy starts around 0 with a "
            f"standard deviation of {math.exp(log_std):.2g}: actions are not rescaled. "
            "Register it behind gymnasium's RescaleAction (-1 to 1), or set --log-std-init."
        )
