"""The true return of a policy, measured in environments of its own."""

from typing import Any

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from l2l_gail.environments import Environment
from l2l_gail.spaces import Actions

EVALUATION_SEED = 10_000


class RandomPolicy:
    """Actions drawn uniformly from the action space."""

    def __init__(self, actions: Actions, seed: int = 0) -> None:
        self.actions, self.generator = actions, np.random.default_rng(seed)

    def predict(self, observation: np.ndarray, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        return self.actions.uniform(self.generator, len(observation)), state


def returns(
    policy: Any,
    env: Environment,
    *,
    episodes: int = 20,
    filter_of: VecNormalize | None = None,
    deterministic: bool = True,
    seed: int = EVALUATION_SEED,
) -> np.ndarray:
    """Undiscounted true returns, shape (episodes,), from the same starts for every policy of one seed.

    `policy` has Stable-Baselines3's `predict`; `filter_of` holds the observation filter it was trained with, which is
    used and not changed."""
    envs = env.vectorised(min(episodes, 10), seed)
    envs.training, envs.norm_obs = False, filter_of is not None and filter_of.norm_obs
    if envs.norm_obs:
        envs.obs_rms = filter_of.obs_rms
    values, _ = evaluate_policy(policy, envs, episodes, deterministic, return_episode_rewards=True)
    envs.close()
    return np.array(values)


def random_returns(env: Environment, *, episodes: int = 20, seed: int = EVALUATION_SEED) -> np.ndarray:
    """True returns of a policy that draws its actions uniformly."""
    return returns(RandomPolicy(env.actions, seed), env, episodes=episodes, seed=seed)


def summary(values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation, extremes and count of returns."""
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "min": float(values.min()),
        "max": float(values.max()),
        "n": len(values),
    }


def percent(value: float, expert: float) -> float | None:
    """A return in percent of the expert's; None where that says nothing, for an expert at or below zero or unknown."""
    return float(100 * value / expert) if expert > 0 and np.isfinite(value) else None
