"""What a leader is: the owner of a Stable-Baselines3 algorithm, and what it and GAIL ask of each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecNormalize

from l2l_experiment.devices import all_finite
from l2l_experiment.errors import Diverged
from l2l_gail.spaces import is_image
from l2l_gail.transitions import Transitions

DIVERGED = "the policy diverged: its weights or its actions are NaN or infinite; a smaller --learning-rate may help"


class Game(Protocol):
    """What a leader asks of GAIL while it trains."""

    def between_rounds(self) -> None:
        """Called when everything is consistent and can be saved; may raise to stop."""

    def answer(self, transitions: Transitions, progress: float) -> None:
        """Let the follower move the discriminator on a round of the policy's transitions."""

    def score(self, transitions: Transitions) -> np.ndarray:
        """The learned reward of transitions by the discriminator as it is now, shape (n,)."""

    def reward(self, transitions: Transitions) -> np.ndarray:
        """The same for the transitions of a round, with figures for the log."""


class Leader(Protocol):
    """Trains a policy on a learned reward."""

    algorithm: BaseAlgorithm
    envs: VecNormalize
    round_size: int  # environment steps between two answers of the follower
    returns: list[float]  # true returns of the episodes that ended in the last round; they are only monitored

    def prepare(self, total_timesteps: int) -> None:
        """Set what depends on a run's length, such as whether to compile; otherwise `learn` does so."""

    def learn(self, total_timesteps: int, game: Game, *, callback: MaybeCallback, **kwargs: bool) -> None:
        """Train for `total_timesteps` environment steps, rounded up to whole rounds; `kwargs` are Stable-Baselines3's
        `reset_num_timesteps` and `progress_bar`."""

    def log_prob(self, transitions: Transitions) -> np.ndarray:
        """log π(a|s) of transitions by the policy as it is now, shape (n,); AIRL's discriminator asks for it."""

    def rollout(self) -> Transitions:
        """A round of the policy's transitions, with its noise, from where the environments are; trains nothing."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, between two rounds."""

    def load_state_dict(self, tree: dict[str, Any]) -> bool:
        """Continue from a `state_dict`. False if the environments had to be reset, so that it is not bit for bit."""


def as_callbacks(given: MaybeCallback) -> list[BaseCallback]:
    """The callbacks that a user gives to `learn`, as Stable-Baselines3 takes them."""
    several = given if isinstance(given, list) else [] if given is None else [given]
    return [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in several]


def policy_name(space: gym.Space) -> str:
    """The name of Stable-Baselines3's policy for observations."""
    return "CnnPolicy" if is_image(space) else "MlpPolicy"


@contextmanager
def raise_on_divergence(policy: BasePolicy, message: str = DIVERGED) -> Iterator[None]:
    """Raise Diverged if training within the block makes the policy's actions or weights NaN or infinite."""
    try:
        yield
    except ValueError as error:
        if "of distribution" not in str(error):  # so torch says that the policy's actions are NaN
            raise
        raise Diverged(message) from error
    require_finite(policy, message)  # torch says it only where it validates distributions


def require_finite(policy: BasePolicy, message: str = DIVERGED) -> None:
    """Diverged if a weight of the policy is NaN or infinite."""
    if not all_finite(policy.parameters()):
        raise Diverged(message)
