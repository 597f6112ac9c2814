"""Plays a policy and keeps the episodes that a stated rule allows."""

from collections.abc import Callable
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import Episode


class RecordedEpisodes(NamedTuple):
    """Episodes that were kept, the reset seed of each, and the returns of those that were not."""

    episodes: list[Episode]
    seeds: list[int]
    dropped: list[float]


def play(
    env: gym.Env,
    policy: Callable[[np.ndarray], np.ndarray],
    *,
    episodes: int,
    first_seed: int,
    min_return: float | None = None,
) -> RecordedEpisodes:
    """Plays episodes reset with first_seed, first_seed+1, … until `episodes` of them return at least `min_return`.
    `policy` maps an observation (O,) to an action (A,) within bounds. A `UserError` as soon as more than half of the
    episodes would have to be dropped: what remained would say more about the rule than about the policy."""
    kept, seeds, dropped = [], [], []
    with tqdm(total=episodes, desc="record", unit="episode") as bar:
        while len(kept) < episodes:
            seed = first_seed + len(kept) + len(dropped)
            episode = Episode.rollout(env, policy, seed)
            total = float(episode.rewards.sum())
            good = min_return is None or total >= min_return
            if good:
                kept.append(episode)
                seeds.append(seed)
            else:
                dropped.append(total)
            bar.update(int(good))
            bar.set_postfix_str(f"return {total:.0f}{'' if good else ' (dropped)'}")
            if len(dropped) > episodes:
                raise UserError(
                    f"{len(dropped)} of {len(kept) + len(dropped)} episodes returned less than {min_return:g} (mean "
                    f"{np.mean(dropped):.0f}), more than half of those needed; train longer or lower --min-return"
                )
    return RecordedEpisodes(kept, seeds, dropped)
