"""What about a task and its settings deserves a word before training starts."""

import math

import gymnasium as gym
import numpy as np

from l2l_gail.config import GAILConfig
from l2l_gail.environments import STEP_LIMIT, make
from l2l_gail.rewards import BIAS


def notes(config: GAILConfig) -> list[str]:
    """Sentences for the user, none where nothing is unusual."""
    env = make(config.env)
    actions, registered, early = env.action_space, gym.spec(env.spec.id), can_end_early(env.unwrapped)
    env.close()
    said = []
    if config.reward in BIAS and config.reward != "constant" and early:
        said.append(
            f"episodes of {config.env} may end early and the reward '{config.reward}' {BIAS[config.reward]}. "
            "Compare with --reward constant, which shows what that alone achieves."
        )
    if registered.max_episode_steps is None:
        said.append(
            f"{config.env} was registered without a time limit: an episode that does not end by itself is cut off "
            f"after {STEP_LIMIT:,} steps. Register it with max_episode_steps to set another limit."
        )
    low, high = (bound.astype(np.float64).ravel() for bound in (actions.low, actions.high))
    low, high = low[high > low], high[high > low]  # an action without a choice is nobody's concern
    reach, share = (high - low) / 2, 2 * math.exp(config.log_std_init) / (high - low)
    if (abs(low + high) > reach).any() or (share < 0.02).any() or (share > 2).any():
        said.append(
            f"actions of {config.env} reach from {low.min():g} to {high.max():g}, and the policy starts"
            f" around 0 with a standard deviation of {math.exp(config.log_std_init):.2g}: actions are not rescaled. "
            "Register it behind gymnasium's RescaleAction (-1 to 1), or set --log-std-init."
        )
    return said


def can_end_early(core: gym.Env) -> bool:
    """Whether an environment may terminate before its time limit, as far as its settings tell; True if unknown."""
    fixed = type(core).__name__ in (
        "HalfCheetahEnv",
        "SwimmerEnv",
        "ReacherEnv",
        "PusherEnv",
        "PendulumEnv",
        "HumanoidStandupEnv",
    )
    return not fixed and getattr(core, "_terminate_when_unhealthy", True)
