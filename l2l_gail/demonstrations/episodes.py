"""Episodes of an expert."""

from dataclasses import dataclass, field

import numpy as np

from l2l_experiment.errors import UserError


@dataclass(frozen=True)
class Episode:
    """One episode of T steps, from reset to end."""

    observations: np.ndarray  # (T+1, O) float64: the last one is where the last action led
    actions: np.ndarray  # (T, A) float32
    rewards: np.ndarray  # (T,) float64: the true reward, for reports only; NaN where the file has none
    terminated: bool
    truncated: bool

    def __len__(self) -> int:
        return len(self.actions)

    def transitions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Observations (T, O), actions (T, A), next observations (T, O), and whether it terminated there (T,)."""
        ended = (np.arange(len(self)) == len(self) - 1) & self.terminated
        return self.observations[:-1], self.actions, self.observations[1:], ended

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

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted true return of each episode, (episodes,); NaN where the source has no rewards."""
        return np.array([episode.rewards.sum() for episode in self.episodes], dtype=np.float64)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean()) if self.episodes else float("nan")

    def take(self, n: int, offset: int = 0) -> "Demonstrations":
        """The `n` episodes from `offset` on; a `UserError` where there are fewer."""
        if n < 1:
            raise UserError(f"the number of demonstrations must be at least 1, not {n}")
        if offset < 0 or offset + n > len(self):
            after = f" after the first {offset}" if offset else ""
            raise UserError(
                f"{self.source} holds {max(len(self) - offset, 0)} episodes{after}, fewer than the {n} asked for"
            )
        return Demonstrations(self.env_id, self.episodes[offset : offset + n], self.source)

    def rest(self, n: int) -> "Demonstrations":
        """The episodes after the first `n`, to monitor on; possibly none."""
        return Demonstrations(self.env_id, self.episodes[n:], self.source)
