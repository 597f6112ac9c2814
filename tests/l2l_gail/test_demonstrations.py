"""Demonstrations: what is read equals what was written, in every form, and for the environment that it is of."""

from dataclasses import replace

import gymnasium as gym
import minari
import numpy as np
import pytest

from l2l_experiment.errors import UserError
from l2l_gail import Demonstrations, Environment, Episode, load_demonstrations
from l2l_gail.demonstrations import save_minari, save_npz
from tests.l2l_gail.conftest import arrays, make_demonstrations
from tests.l2l_gail.test_experts import Counter

CHEETAH = Environment("HalfCheetah-v4")


def read(source, num_demos=None):
    return load_demonstrations(source, CHEETAH, num_demos=num_demos)


def assert_same(one, two):
    """Episodes are equal, field for field."""
    np.testing.assert_equal([episode.arrays() for episode in one], [episode.arrays() for episode in two])


def test_a_minari_folder_reads_back_exactly_also_by_its_id_and_minari_opens_it(folder, demonstrations, monkeypatch):
    for path in (folder, folder / "data", folder / "data" / "main_data.hdf5", str(folder)):
        again = read(path)
        assert again.env_id == "HalfCheetah-v4"
        assert_same(again.episodes, demonstrations.episodes)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder.parents[1]))
    dataset = minari.load_dataset("test/cheetah-v0")
    assert (dataset.env_spec.id, dataset.total_episodes, dataset.total_steps) == ("HalfCheetah-v4", 3, 36)
    assert dataset.action_space == CHEETAH.actions.space
    np.testing.assert_array_equal(dataset[1].observations, demonstrations.episodes[1].observations)
    assert [m["seed"] for m in dataset.storage.get_episode_metadata(range(3))] == [5, 6, 7]
    again = read("test/cheetah-v0", num_demos=2)
    assert again.source == "test/cheetah-v0"
    assert_same(again.episodes, demonstrations.episodes[:2])


def test_an_environment_of_ones_own_is_written_and_read_also_more_than_ten_episodes(tmp_path, monkeypatch):
    """Registered with a class, as examples/own_environment.py does, and named with the module to import."""
    spec = gym.envs.registration.EnvSpec("Count-v0", entry_point=Counter, max_episode_steps=40)
    monkeypatch.setitem(gym.registry, "Count-v0", spec)
    made = make_demonstrations(1, 1, episodes=12, length=2)
    folder = save_minari(tmp_path, "test/count-v0", Demonstrations("Count-v0", made.episodes, "random"))
    for name in ("Count-v0", "tests.l2l_gail.test_experts:Count-v0"):
        assert_same(load_demonstrations(folder, name).episodes, made.episodes)


@pytest.mark.parametrize("ends", [(True, False), (False, True), (True, True)])
def test_npz_round_trip(tmp_path, ends):
    episodes = [make_demonstrations(17, 6, episodes=1, length=steps).episodes[0] for steps in (1, 6, 2)]
    episodes = [replace(episode, terminated=ends[0], truncated=ends[1]) for episode in episodes]
    path = save_npz(tmp_path / "d.npz", Demonstrations("HalfCheetah-v4", episodes, "random"))
    assert_same(read(path).episodes, episodes)
    with pytest.raises(UserError, match="recorded in HalfCheetah-v4"):
        load_demonstrations(path, "Hopper-v4")


@pytest.mark.parametrize(
    "ends",
    [
        lambda flags: {"dones": flags},
        lambda flags: {"dones": np.append(flags[:-1], False)},  # a last episode without an end counts
        lambda flags: {"episode_ends": np.array([12, 24, 36])},
        lambda flags: {"truncations": flags, "terminations": np.zeros_like(flags)},
    ],
)
def test_every_way_to_give_ends(demonstrations, ends):
    flat = arrays(demonstrations)
    assert_same(read(flat | ends(flat.pop("dones"))).episodes, demonstrations.episodes)
    again = read(arrays(demonstrations) | {"terminations": np.arange(36) == 11})  # which tell why one ended
    assert [(e.terminated, e.truncated) for e in again.episodes] == [(True, False), (False, True), (False, True)]


@pytest.mark.parametrize("paid", [np.full(36, 200, dtype=np.uint8), np.full(36, np.nan)])
def test_without_last_observations_the_last_action_is_dropped_and_its_reward_is_not(demonstrations, paid):
    flat = arrays(demonstrations)
    flat["observations"] = np.concatenate([e.observations[:-1] for e in demonstrations.episodes])
    again = read(flat | {"rewards": paid})
    for short, full in zip(again.episodes, demonstrations.episodes, strict=True):
        rewards = np.append(np.ones(10), 2) * float(paid[0])
        assert_same([short], [Episode(full.observations[:12], full.actions[:11], rewards, False, True)])


@pytest.mark.parametrize(
    ("recorded", "wanted", "right"),
    [
        ("HalfCheetah-v5", "HalfCheetah-v4", True),
        ("Swimmer-v4", "HalfCheetah-v4", False),
        (None, "HalfCheetah-v4", True),  # a file that does not say is believed
    ],
)
def test_data_of_another_environment_are_refused(folder, recorded, wanted, right, capsys):
    metadata = folder / "data" / "metadata.json"
    metadata.write_text(metadata.read_text().replace("HalfCheetah-v4", recorded or ""))
    if recorded is None:
        metadata.unlink()
    if right:
        assert len(load_demonstrations(folder, wanted)) == 3
        assert ("note:" in capsys.readouterr().out) == (recorded is not None)
    else:
        with pytest.raises(UserError, match=f"recorded in {recorded}, not in {wanted}"):
            load_demonstrations(folder, wanted)


def test_a_tabular_environment_is_played():
    """Its actions are looked up in a dictionary, which no array can be."""
    env, draws = Environment("FrozenLake-v1").make(), np.random.default_rng(0)
    episode = Episode.rollout(env, lambda _: draws.integers(4), seed=0)
    assert episode.actions.shape == (len(episode),)
    assert episode.terminated or episode.truncated


@pytest.mark.parametrize(("kind", "factor"), [(np.int64, 1), (np.float32, 1), (np.float32, 1 / 255), (np.int64, 2)])
def test_frames_of_another_type_are_whole_numbers_up_to_255(kind, factor):
    space = gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    content = {
        "observations": (frames.astype(float) * factor).astype(kind),
        "actions": np.zeros(5, int),
        "episode_ends": [5],
    }
    env = Environment(lambda: Frames(space))
    if factor == 1:
        (episode,) = load_demonstrations(content, env).episodes
        assert episode.observations.dtype == np.uint8
        np.testing.assert_array_equal(episode.observations, frames.transpose(0, 3, 1, 2))
    else:
        with pytest.raises(UserError, match="whole numbers from 0 to 255; save them as uint8"):
            load_demonstrations(content, env)


class Frames(gym.Env):
    """Black frames."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.uint8), {}

    def step(self, action):
        return np.zeros(self.observation_space.shape, np.uint8), 0.0, False, False, {}
