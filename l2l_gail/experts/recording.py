"""Plays a policy and keeps the episodes that a stated rule allows."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import gymnasium
import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import Episode


@dataclass(frozen=True)
class Played:
    """Episodes that were kept, the reset seed of each, and the returns of those that were not."""

    episodes: list[Episode]
    seeds: list[int]
    dropped: list[float]


def play(
    env: gymnasium.Env[np.ndarray, np.ndarray],
    policy: Callable[[np.ndarray], np.ndarray],
    *,
    episodes: int,
    first_seed: int,
    min_return: float | None = None,
    on_episode: Callable[[float, bool], None] | None = None,
) -> Played:
    """Plays episodes reset with first_seed, first_seed+1, … until `episodes` of them return at least `min_return`.

    `policy` maps an observation (O,) to an action (A,) within bounds. A `UserError` as soon as more than half of the
    episodes would have to be dropped: what remained would say more about the rule than about the policy.
    """
    kept, seeds, dropped = [], [], []
    for seed in count(first_seed):
        if len(kept) == episodes:
            return Played(kept, seeds, dropped)
        episode = _play_one(env, policy, seed)
        total = float(episode.rewards.sum())
        good = min_return is None or total >= min_return
        if good:
            kept.append(episode)
            seeds.append(seed)
        else:
            dropped.append(total)
        if on_episode is not None:
            on_episode(total, good)
        if len(dropped) > episodes:
            raise UserError(
                f"{len(dropped)} of {len(kept) + len(dropped)} episodes returned less than {min_return:g} (mean "
                f"{np.mean(dropped):.0f}), more than half of those needed; train longer or lower --min-return"
            )
    raise AssertionError("unreachable")


def _play_one(
    env: gymnasium.Env[np.ndarray, np.ndarray], policy: Callable[[np.ndarray], np.ndarray], seed: int
) -> Episode:
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = np.asarray(policy(observation), dtype=np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    return Episode(
        np.asarray(observations, dtype=np.float64),
        np.asarray(actions, dtype=np.float32),
        np.asarray(rewards, dtype=np.float64),
        bool(terminated),
        bool(truncated),
    )
