"""The true return of a policy, measured in environments of its own."""

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from l2l_gail.environments import make, make_envs

EVALUATION_SEED = 10_000


class RandomPolicy:
    """Actions drawn uniformly from the action space."""

    def __init__(self, space: gym.spaces.Box, seed: int = 0) -> None:
        self.space, self.generator = space, np.random.default_rng(seed)

    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        shape = (len(observation), *self.space.shape)
        return self.generator.uniform(self.space.low, self.space.high, shape).astype(self.space.dtype), state


def returns(
    policy: Any,
    env_id: str,
    *,
    episodes: int = 20,
    filter_of: VecNormalize | None = None,
    deterministic: bool = True,
    seed: int = EVALUATION_SEED,
) -> np.ndarray:
    """True returns of `episodes` episodes, shape (episodes,), from the same starts for every policy of one seed.

    `policy` has Stable-Baselines3's `predict`; `filter_of` holds the observation filter it was trained with, which is
    used and not changed.
    """
    envs = make_envs(env_id, min(episodes, 10), seed)
    envs.training = False
    if filter_of is None:
        envs.norm_obs = False
    else:
        envs.obs_rms = filter_of.obs_rms
    values, _ = evaluate_policy(
        policy, envs, n_eval_episodes=episodes, deterministic=deterministic, return_episode_rewards=True
    )
    envs.close()
    return np.array(values)


def random_returns(env_id: str, *, episodes: int = 20, seed: int = EVALUATION_SEED) -> np.ndarray:
    """True returns of a policy that draws its actions uniformly."""
    env = make(env_id)
    policy = RandomPolicy(env.action_space, seed)
    env.close()
    return returns(policy, env_id, episodes=episodes, seed=seed)


def summary(values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation, extremes and count of returns."""
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "min": float(values.min()),
        "max": float(values.max()),
        "n": len(values),
    }
