"""The demonstrations that ship: good enough, small, opened by Minari, and of the installed environments."""

import json
from pathlib import Path

import minari
import numpy as np
import pytest

from l2l_gail import load_demonstrations
from l2l_gail.demonstrations import shipped_dataset_id
from l2l_gail.environments import make
from l2l_gail.experts import card

ROOT = Path(__file__).resolve().parents[2] / "expert_data"
BARS = {  # episodes, their mean return, the lowest
    "HalfCheetah-v4": (10, 6000, 5500),
    "Hopper-v4": (10, 3000, 3000),
    "Walker2d-v4": (10, 4000, 4000),
    "Ant-v4": (10, 4000, 4000),
    "Humanoid-v4": (4, 5000, 5000),
}


@pytest.mark.parametrize("env_id", BARS)
def test_shipped_sets_meet_the_bars_equal_their_cards_and_are_of_the_installed_environment(
    env_id, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # found beside the package, not through the working directory
    shipped = load_demonstrations(None, env_id)
    episodes, mean, each = BARS[env_id]
    assert len(shipped) >= episodes
    assert shipped.mean_return >= mean
    assert shipped.returns.min() >= each
    stored = json.loads((Path(shipped.source) / "card.json").read_text())
    np.testing.assert_allclose(shipped.returns, stored["returns"], atol=0.01)
    assert stored["environment"] == env_id
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(ROOT))
    dataset = minari.load_dataset(shipped_dataset_id(env_id))
    assert dataset.env_spec.id == env_id
    np.testing.assert_array_equal(dataset[0].observations, shipped.episodes[0].observations)
    # The first step from the recorded seed repeats: data and installed environment are one task.
    env, episode = make(env_id), shipped.episodes[0]
    observation, _ = env.reset(seed=stored["reset_seeds"][0])
    np.testing.assert_allclose(observation, episode.observations[0], atol=1e-9)
    observation, reward, *_ = env.step(episode.actions[0])
    np.testing.assert_allclose(observation, episode.observations[1], rtol=0.05, atol=0.05)
    assert abs(reward - episode.rewards[0]) < 0.1


def test_the_shipped_page_is_what_the_cards_say_and_the_data_are_small(tmp_path):
    for file in ROOT.rglob("card.json"):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        copy.write_text(file.read_text())
    (tmp_path / "card.json").write_text('{"model": "small-cnn"}')  # of a classifier: none of an expert
    card.write_readme(tmp_path)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()
    assert sum(file.stat().st_size for file in ROOT.rglob("*") if file.is_file()) < 16e6
