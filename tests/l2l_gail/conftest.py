"""Small tasks that the tests of GAIL share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l2l_gail.config import GAILConfig
from l2l_gail.demonstrations import Demonstrations, Episode
from l2l_gail.recording import save_minari


@pytest.fixture
def config() -> GAILConfig:
    """A run small enough for a test."""
    return replace(
        GAILConfig(),
        num_envs=2,
        round_steps=32,
        policy_batch=32,
        policy_epochs=2,
        policy_hidden=(8,),
        disc_hidden=(16,),
        disc_updates=4,
        disc_batch=16,
        follower_steps=2,
        follower_hidden=4,
    )


def make_demonstrations(observations: int, actions: int, *, episodes: int = 3, length: int = 40, seed: int = 0):
    """Random demonstrations of the right shapes."""
    draw = np.random.default_rng(seed)
    return Demonstrations(
        env_id=None,
        source="random",
        episodes=[
            Episode(
                observations=draw.normal(size=(length + 1, observations)),
                actions=draw.uniform(-1, 1, size=(length, actions)).astype(np.float32),
                rewards=np.ones(length),
                terminated=False,
                truncated=True,
            )
            for _ in range(episodes)
        ],
    )


@pytest.fixture
def cheetah() -> Demonstrations:
    """Random demonstrations in HalfCheetah's shapes."""
    return make_demonstrations(17, 6)


@pytest.fixture
def demonstrations() -> Demonstrations:
    random = make_demonstrations(17, 6, episodes=3, length=12)
    return Demonstrations("HalfCheetah-v4", random.episodes, "random")


@pytest.fixture
def folder(tmp_path, demonstrations) -> Path:
    return save_minari(tmp_path / "data", "test/cheetah-v0", demonstrations, seeds=[5, 6, 7])
