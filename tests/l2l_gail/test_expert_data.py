"""Tests of the demonstrations that ship: good enough, small, opened by Minari, and of the installed environments."""

import json
import shutil
from pathlib import Path

import minari
import numpy as np
import pytest

from l2l_gail.demonstrations import Demonstrations, load, shipped_dataset_id
from l2l_gail.environments import make

EXPERT_DATA = Path(__file__).resolve().parents[2] / "expert_data"
BARS = {"HalfCheetah-v4": (6000, 5500), "Hopper-v4": (3000, 3000), "Walker2d-v4": (4000, 4000)}  # mean, each episode


def read(source, env_id: str = "HalfCheetah-v4", num_demos: int | None = None) -> Demonstrations:
    env = make(env_id)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    return load(source, env_id, num_demos=num_demos, **spaces)


@pytest.mark.parametrize("env_id", BARS)
def test_shipped_sets_meet_the_bars_and_equal_their_cards(env_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # found beside the package, not through the working directory
    shipped = read(None, env_id)
    mean, each = BARS[env_id]
    assert len(shipped) >= 10
    assert shipped.mean_return >= mean
    assert shipped.returns.min() >= each
    card = json.loads((Path(shipped.source) / "card.json").read_text())
    np.testing.assert_allclose(shipped.returns, card["returns"], atol=0.01)
    assert card["environment"] == env_id


def test_a_shipped_set_answers_to_its_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(read("l2l/halfcheetah-v4-expert-v0", num_demos=2)) == 2


def test_the_cheetahs_set_serves_both_versions(capsys):
    assert len(read(None, "HalfCheetah-v5", num_demos=1)) == 1
    assert "recorded in HalfCheetah-v4" in capsys.readouterr().out


@pytest.mark.parametrize("env_id", BARS)
def test_minari_opens_the_shipped_sets(env_id, tmp_path, monkeypatch):
    shutil.copytree(EXPERT_DATA, tmp_path / "data")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    dataset = minari.load_dataset(shipped_dataset_id(env_id))
    assert dataset.env_spec.id == env_id
    assert dataset[0].observations.shape[0] == dataset[0].actions.shape[0] + 1


@pytest.mark.parametrize("env_id", BARS)
def test_the_recorded_environment_still_behaves_as_recorded(env_id):
    """The first step from the recorded seed repeats: data and installed environment are one task."""
    card = json.loads((EXPERT_DATA / shipped_dataset_id(env_id) / "card.json").read_text())
    env = make(env_id)
    episode = read(None, env_id, num_demos=1).episodes[0]
    observation, _ = env.reset(seed=card["reset_seeds"][0])
    np.testing.assert_allclose(observation, episode.observations[0], atol=1e-9)
    observation, reward, *_ = env.step(episode.actions[0])
    np.testing.assert_allclose(observation, episode.observations[1], rtol=0.05, atol=0.05)
    assert abs(reward - episode.rewards[0]) < 0.1


def test_shipped_data_is_small():
    assert sum(file.stat().st_size for file in EXPERT_DATA.rglob("*") if file.is_file()) < 10e6
