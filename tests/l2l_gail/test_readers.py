"""Demonstrations of any space and of other packages: what they hold is what is read."""

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from l2l_experiment.errors import UserError
from l2l_gail import GAIL, GAILConfig, load_demonstrations
from l2l_gail.demonstrations import save_npz
from tests.l2l_gail.conftest import SMALL, make_demonstrations

NESTED = spaces.Dict(
    {"goal": spaces.Discrete(3), "arm": spaces.Tuple([spaces.Box(-9, 9, (2,)), spaces.Box(-9, 9, (2, 2))])}
)
LENGTHS = (4, 1, 7)


class Nested(gym.Env):
    """Dictionaries of a number and a tuple; two buttons."""

    observation_space, action_space = NESTED, spaces.MultiBinary(2)

    def __init__(self):
        self.spec = gym.envs.registration.EnvSpec("Nested-v0", entry_point=Nested, max_episode_steps=7)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def episodes():
    """Observations, one more than actions, and actions, of three episodes."""
    NESTED.seed(0)
    for steps in LENGTHS:
        seen = [NESTED.sample() for _ in range(steps + 1)]
        batch = {
            "goal": np.array([one["goal"] for one in seen]),
            "arm": tuple(np.stack([one["arm"][part] for one in seen]) for part in (0, 1)),
        }
        yield batch, np.random.default_rng(steps).integers(0, 2, (steps, 2), dtype=np.int8), seen


def assert_read(found, *, actions=True):
    for episode, (_, pressed, seen) in zip(found.episodes, episodes(), strict=True):
        right = [spaces.flatten(NESTED, one) for one in seen]
        np.testing.assert_allclose(episode.observations, right, rtol=1e-6)
        np.testing.assert_array_equal(episode.actions, pressed if actions else np.empty((len(pressed), 0)))


def test_dictionaries_given_in_python_also_without_actions():
    parts = list(episodes())
    joined = {
        "goal": np.concatenate([batch["goal"] for batch, _, _ in parts]),
        "arm": tuple(np.concatenate([batch["arm"][i] for batch, _, _ in parts]) for i in (0, 1)),
    }
    actions, ends = np.concatenate([pressed for _, pressed, _ in parts]), np.cumsum(LENGTHS)
    assert_read(load_demonstrations({"observations": joined, "actions": actions, "episode_ends": ends}, Nested))
    alone = load_demonstrations({"observations": joined, "episode_ends": ends}, Nested)
    assert not alone.have_actions
    assert_read(alone, actions=False)
    with pytest.raises(UserError, match="observations of different lengths"):
        load_demonstrations({"observations": joined | {"goal": joined["goal"][1:]}, "episode_ends": ends}, Nested)
    with pytest.raises(UserError, match="has no observations 'arm'"):
        load_demonstrations(
            {"observations": {"goal": joined["goal"], "leg": joined["goal"]}, "episode_ends": ends}, Nested
        )


def test_dictionaries_of_a_minari_data_set_by_its_id_and_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    buffers = [
        EpisodeBuffer(
            id=i,
            observations={"goal": list(batch["goal"]), "arm": tuple(map(list, batch["arm"]))},
            actions=list(pressed),
            rewards=[1.0] * len(pressed),
            terminations=[False] * len(pressed),
            truncations=[*[False] * (len(pressed) - 1), True],
        )
        for i, (batch, pressed, _) in enumerate(episodes())
    ]
    minari.create_dataset_from_buffers(
        "test/nested-v0", buffers, observation_space=NESTED, action_space=Nested.action_space, jpeg_encoding=False
    )
    for source in ("test/nested-v0", tmp_path / "test" / "nested-v0"):
        assert_read(load_demonstrations(source, Nested))
    file = tmp_path / "test" / "nested-v0" / "data" / "main_data.hdf5"
    with h5py.File(file, "a") as handle:
        for name in handle:
            del handle[name]["actions"]
    assert_read(load_demonstrations(file, Nested), actions=False)
    with h5py.File(file, "a") as handle:
        handle["episode_0/observations/again"] = handle["episode_0/observations"]  # a group within itself
    with pytest.raises(UserError, match="linked more than once"):
        load_demonstrations(file, Nested)


@pytest.fixture
def trajectories():
    """What `imitation` keeps of two trajectories, of which the second terminated."""
    made = make_demonstrations(17, 6, episodes=2, length=5)
    return made, {
        "obs": np.concatenate([episode.observations for episode in made.episodes]),
        "acts": np.concatenate([episode.actions for episode in made.episodes]),
        "rews": np.ones(10),
        "terminal": np.array([False, True]),
        "indices": np.array([5]),
    }


def test_an_npz_file_of_imitation_is_read_and_its_pickles_are_not(tmp_path, trajectories):
    made, arrays = trajectories
    np.savez(tmp_path / "t.npz", **arrays, infos=np.array([{}] * 10))
    found = load_demonstrations(tmp_path / "t.npz", "HalfCheetah-v4")
    assert [(episode.terminated, episode.truncated) for episode in found.episodes] == [(False, True), (True, False)]
    for one, other in zip(found.episodes, made.episodes, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
    for wrong in (np.array([0]), np.array([5, 7]), np.array([10]), np.array([0.5])):
        np.savez(tmp_path / "t.npz", **arrays | {"indices": wrong})
        with pytest.raises(UserError, match="do not cut 10 steps into 2 trajectories"):
            load_demonstrations(tmp_path / "t.npz", "HalfCheetah-v4")


def test_a_folder_of_imitation_is_read_or_names_what_it_needs(tmp_path, trajectories, monkeypatch):
    made, arrays = trajectories
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        load_demonstrations(tmp_path, "HalfCheetah-v4")
    monkeypatch.undo()
    datasets = pytest.importorskip("datasets")
    rows = {
        "obs": [episode.observations for episode in made.episodes],
        "acts": [episode.actions for episode in made.episodes],
        "rews": [episode.rewards for episode in made.episodes],
        "terminal": [False, True],
        "infos": [["{}"] * 5] * 2,
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "trajectories")
    found = load_demonstrations(tmp_path / "trajectories", "HalfCheetah-v4")
    assert [episode.terminated for episode in found.episodes] == [False, True]
    np.testing.assert_allclose(found.episodes[1].observations, made.episodes[1].observations)


def test_observations_without_actions_in_a_file_are_imitated_and_pairs_are_refused(tmp_path):
    """--imitate states needs no actions; --imitate pairs says so."""
    arrays = dict(np.load(save_npz(tmp_path / "d.npz", make_demonstrations(4, 1, episodes=2, length=20))))
    del arrays["actions"]
    np.savez(tmp_path / "d.npz", **arrays)
    config = GAILConfig(env="CartPole-v1", imitate="states", **SMALL)
    gail = GAIL("CartPole-v1", tmp_path / "d.npz", config=config).learn(64)
    assert gail.num_timesteps == 64
    with pytest.raises(UserError, match="has no actions: only --imitate states"):
        GAIL("CartPole-v1", tmp_path / "d.npz", config=GAILConfig(env="CartPole-v1", **SMALL))
