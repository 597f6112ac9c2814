"""Episodes of an expert."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import gymnasium as gym
import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.spaces import is_image
from l2l_gail.vectorised import require_usable


@dataclass(frozen=True)
class Episode:
    """One episode of T steps, from reset to end."""

    observations: np.ndarray  # (T+1, *shape) float64, or uint8 images: the last one is where the last action led
    actions: np.ndarray  # (T, A) float32, or whole numbers (T,) or (T, A); (T, 0) where the source has none
    rewards: np.ndarray  # (T,) float64: the true reward, for reports only; NaN where the file has none
    terminated: bool
    truncated: bool

    @classmethod
    def rollout(
        cls,
        env: gym.Env,
        policy: Callable[[np.ndarray], np.ndarray],
        seed: int,
        *,
        max_steps: int | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> Self:
        """Plays from `env.reset(seed=seed)` to the end, at most `max_steps`; `on_step()` is called after each step.

        `policy` maps an observation to an action of the environment, within bounds."""
        observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
        kind = np.float32 if env.action_space.dtype.kind == "f" else np.int64
        terminated = truncated = False
        while not (terminated or truncated or len(actions) == max_steps):
            actions.append(np.asarray(policy(observations[-1]), dtype=kind))
            taken = actions[-1] if actions[-1].ndim else actions[-1].item()  # tabular tasks look it up in a dict
            observation, reward, terminated, truncated, _ = env.step(taken)
            require_usable(observation, "the environment" if env.spec is None else env.spec.id, len(actions))
            observations.append(observation)
            rewards.append(float(reward))
            if on_step is not None:
                on_step()
        seen = np.asarray(observations, dtype=np.uint8 if is_image(env.observation_space) else np.float64)
        true_rewards = np.asarray(rewards, dtype=np.float64)
        return cls(seen, np.asarray(actions, dtype=kind), true_rewards, bool(terminated), bool(truncated))

    def __len__(self) -> int:
        return len(self.actions)

    def arrays(self) -> dict[str, np.ndarray]:
        """The five arrays that files hold; flags are per step."""
        last = np.arange(len(self)) == len(self) - 1
        return {
            "observations": self.observations,
            "actions": self.actions,
            "rewards": self.rewards,
            "terminations": last & self.terminated,
            "truncations": last & self.truncated,
        }


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of an expert in one environment."""

    env_id: str | None  # None where the source does not say
    episodes: list[Episode] = field(repr=False)
    source: str
    # The id and the spaces that they were checked against; not carried over by `replace`.
    checked_for: Any = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted true return of each episode, (episodes,); NaN where the source has no rewards."""
        return np.array([episode.rewards.sum() for episode in self.episodes], dtype=np.float64)

    @property
    def have_actions(self) -> bool:
        """Whether the source has actions; without them only observations can be imitated."""
        return all(episode.actions.size for episode in self.episodes)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean()) if self.episodes else float("nan")

    def take(self, n: int) -> "Demonstrations":
        """The first `n` episodes; a `UserError` where there are fewer."""
        check_count(n, len(self), self.source)
        return replace(self, episodes=self.episodes[:n]).as_checked_for(self.checked_for)

    def rest(self, n: int) -> "Demonstrations":
        """The episodes after the first `n`, to monitor on; possibly none."""
        return replace(self, episodes=self.episodes[n:]).as_checked_for(self.checked_for)

    def as_checked_for(self, id_and_spaces: Any) -> Self:
        """Note that they have been checked, so that it need not be done twice."""
        object.__setattr__(self, "checked_for", id_and_spaces)
        return self


def check_count(wanted: int, held: int, source: str) -> None:
    """UserError unless the number of episodes that is asked for lies between 1 and the number that there are."""
    if wanted < 1:
        raise UserError(f"the number of demonstrations must be at least 1, not {wanted}")
    if wanted > held:
        raise UserError(f"{source} holds {held} episodes, fewer than the {wanted} asked for")
