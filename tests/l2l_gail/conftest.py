"""Small tasks that the tests of GAIL share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l2l_gail import Demonstrations, Episode, GAILConfig
from l2l_gail.demonstrations import save_minari

SMALL = {"n_envs": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 2, "net_arch": (8,), "disc_hidden": (16,)}
SMALL |= {"disc_updates": 10, "disc_batch_size": 16}


@pytest.fixture
def config() -> GAILConfig:
    """A run small enough for a test: a round is 64 steps."""
    return GAILConfig(**SMALL)


def make_demonstrations(observations: int, actions: int, *, episodes: int = 3, length: int = 40, seed: int = 0):
    """Random demonstrations of the right shapes."""
    draw = np.random.default_rng(seed)
    made = [
        Episode(
            observations=draw.normal(size=(length + 1, observations)),
            actions=draw.uniform(-1, 1, size=(length, actions)).astype(np.float32),
            rewards=np.ones(length),
            terminated=False,
            truncated=True,
        )
        for _ in range(episodes)
    ]
    return Demonstrations(env_id=None, source="random", episodes=made)


def arrays(demonstrations: Demonstrations) -> dict[str, np.ndarray]:
    """What a .npz file of flat arrays holds."""
    parts = [episode.arrays() for episode in demonstrations.episodes]
    flat = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: flat[name] for name in ("observations", "actions", "rewards")} | {"dones": flat["truncations"]}


@pytest.fixture
def cheetah() -> Demonstrations:
    """Random demonstrations in HalfCheetah's shapes."""
    return make_demonstrations(17, 6)


@pytest.fixture
def demonstrations() -> Demonstrations:
    return replace(make_demonstrations(17, 6, episodes=3, length=12), env_id="HalfCheetah-v4")


@pytest.fixture
def folder(tmp_path, demonstrations) -> Path:
    """A Minari data set of them."""
    return save_minari(tmp_path / "data", "test/cheetah-v0", demonstrations, seeds=[5, 6, 7])
