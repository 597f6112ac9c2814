"""Small tasks that the tests of GAIL share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l2l_gail import Demonstrations, Episode, GAILConfig
from l2l_gail.demonstrations import save_minari, save_npz

SMALL = {"n_envs": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 2, "net_arch": (8,), "disc_hidden": (16,)}
SMALL |= {"disc_updates": 10, "disc_batch_size": 16}


@pytest.fixture
def config() -> GAILConfig:
    """A run small enough for a test: a round is 64 steps."""
    return GAILConfig(**SMALL)


def make_demonstrations(observations: int, actions: int, *, episodes: int = 3, length: int = 40, seed: int = 0):
    """Random demonstrations of the right shapes."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(episodes):
        seen, done = draw.normal(size=(length + 1, observations)), draw.uniform(-1, 1, size=(length, actions))
        made.append(Episode(seen, done.astype(np.float32), np.ones(length), terminated=False, truncated=True))
    return Demonstrations(env_id=None, source="random", episodes=made)


def arrays(demonstrations: Demonstrations) -> dict[str, np.ndarray]:
    """What a .npz file of flat arrays holds."""
    parts = [episode.arrays() for episode in demonstrations.episodes]
    flat = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: flat[name] for name in ("observations", "actions", "rewards")} | {"dones": flat["truncations"]}


@pytest.fixture
def pushes():
    """Demonstrations in Pendulum's shapes, as arrays."""
    return arrays(make_demonstrations(3, 1))


@pytest.fixture
def cheetah() -> Demonstrations:
    return make_demonstrations(17, 6)


@pytest.fixture
def demonstrations() -> Demonstrations:
    return replace(make_demonstrations(17, 6, episodes=3, length=12), env_id="HalfCheetah-v4")


@pytest.fixture
def folder(tmp_path, demonstrations) -> Path:
    """A Minari data set of them."""
    return save_minari(tmp_path / "data", "test/cheetah-v0", demonstrations, seeds=[5, 6, 7])


@pytest.fixture
def demos(tmp_path) -> Path:
    return save_npz(tmp_path / "demos.npz", make_demonstrations(17, 6))


@pytest.fixture
def flags(demos) -> list[str]:
    """Of a small run, a checkpoint every two rounds."""
    pairs = [(name, value if isinstance(value, tuple) else (value,)) for name, value in SMALL.items()]
    small = [word for name, values in pairs for word in (f"--{name.replace('_', '-')}", *map(str, values))]
    return ["--demos", str(demos), "--num-demos", "2", "--eval-episodes", "1", "--checkpoint-every", "2", *small]


@pytest.fixture
def refused(capsys):
    """Calls a command, which ends with exit code 2 and one sentence that holds the words."""

    def call(main, argv, *words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in argv])
        assert stopped.value.code == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
        assert all(word in line for word in words), line

    return call
