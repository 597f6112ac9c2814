"""What the discriminator sees of a transition: the columns of its input."""

from collections.abc import Callable

import numpy as np

from l2l_gail.config import GAILConfig
from l2l_gail.environments import Environment
from l2l_gail.transitions import Transitions

# Kostrikov et al. have 1. With a gradient penalty the logit falls with the distance from the demonstrations, in units
# of their standard deviation. At 1 a policy that flails is further away than the absorbing state, and so it learns to
# end its episodes at once (docs/results/tasks.md).
AWAY = 5.0
Filter = Callable[[np.ndarray], np.ndarray]


class Inputs:
    """Turns transitions into rows of shape (n, size).

    `imitate` pairs: observation, action (Ho and Ermon, 2016); states: observation, next observation (Torabi et al.,
    2018). AIRL's forms see observation, action and next observation, and at the end two columns that are no inputs of a
    network: 1 where the episode goes on and 0 where it terminated, and log π(a|s).

    With `absorbing` (Kostrikov et al., 2019) each observation has a column more, 0; an episode that terminates leads
    into the absorbing state, whose observation is 0 but for `AWAY` there, and which leads to itself."""

    def __init__(self, env: Environment, config: GAILConfig) -> None:
        self.env, self.absorbing = env, config.absorbing
        self.shaped, self.states = config.disc_form != "logit", config.imitate == "states"
        self.observation = env.observations.size + self.absorbing
        self.action = 0 if self.states else env.actions.size
        following = self.observation if self.shaped or self.states else 0
        self.size = self.observation + self.action + following + (2 if self.shaped else 0)

    def __call__(self, data: Transitions, filter: Filter, log_prob: np.ndarray | None = None) -> np.ndarray:
        """Rows of transitions; `log_prob`, shape (n,), is AIRL's log π(a|s)."""
        parts = [self._seen(data.observations, filter)]
        if self.action:
            parts.append(self.env.actions.features(data.actions))
        if self.shaped or self.states:
            following = self._seen(data.next_observations, filter)
            if self.absorbing:
                following[data.ended] = self._absorbing_observation()
            parts.append(following)
        if self.shaped:
            goes_on = np.ones(len(data)) if self.absorbing else ~data.ended
            parts.append(np.stack([goes_on, log_prob], axis=1))
        return np.concatenate(parts, axis=1)

    def absorbing_rows(self, count: int) -> np.ndarray:
        """`count` times the transition from the absorbing state to itself."""
        row = [self._absorbing_observation(), np.zeros(self.action)]
        row += [self._absorbing_observation()] if self.shaped or self.states else []
        row += [np.array([1.0, 0.0])] if self.shaped else []
        return np.tile(np.concatenate(row), (count, 1))

    def _seen(self, observations: np.ndarray, filter: Filter) -> np.ndarray:
        filtered = filter(self.env.observations.features(observations))
        return np.pad(filtered, ((0, 0), (0, 1))) if self.absorbing else filtered

    def _absorbing_observation(self) -> np.ndarray:
        return np.append(np.zeros(self.observation - 1), AWAY)
