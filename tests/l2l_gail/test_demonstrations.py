"""Tests of demonstrations: what is read equals what was written, and every defect is named."""

import re
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import Demonstrations, Episode, load
from l2l_gail.recording import save_minari, save_npz
from tests.l2l_gail.conftest import make_demonstrations

ENV = "HalfCheetah-v4"
OBSERVATIONS = Box(-np.inf, np.inf, (17,), np.float64)
ACTIONS = Box(-1.0, 1.0, (6,), np.float32)
EXPERT_DATA = Path(__file__).resolve().parents[2] / "expert_data"


def read(source, env_id=ENV, observations=OBSERVATIONS, actions=ACTIONS, num_demos=None) -> Demonstrations:
    return load(source, env_id, observation_space=observations, action_space=actions, num_demos=num_demos)


@pytest.fixture
def demonstrations() -> Demonstrations:
    random = make_demonstrations(17, 6, episodes=3, length=12)
    return Demonstrations(ENV, random.episodes, "random")


@pytest.fixture
def folder(tmp_path, demonstrations) -> Path:
    return save_minari(tmp_path / "data", "test/cheetah-v0", demonstrations, seeds=[5, 6, 7])


def arrays(demonstrations: Demonstrations) -> dict[str, np.ndarray]:
    """What a .npz file of flat arrays holds."""
    last = np.concatenate([np.arange(len(e)) == len(e) - 1 for e in demonstrations.episodes])
    return {
        "observations": np.concatenate([e.observations for e in demonstrations.episodes]),
        "actions": np.concatenate([e.actions for e in demonstrations.episodes]),
        "rewards": np.concatenate([e.rewards for e in demonstrations.episodes]),
        "dones": last,
    }


def write_npz(path: Path, content: dict[str, np.ndarray]) -> Path:
    np.savez(path, **content)
    return path


def change(folder: Path, key: str, edit, episode: int = 1) -> Path:
    """Edits one array of one episode of a data set; `None` deletes it."""
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        group = file[f"episode_{episode}"]
        values = group[key][()]
        del group[key]
        if (edited := edit(values)) is not None:
            group[key] = edited
    return folder


def same(a: Episode, b: Episode) -> bool:
    return all(
        np.array_equal(getattr(a, k), getattr(b, k), equal_nan=True) for k in ("observations", "actions", "rewards")
    ) and (a.terminated, a.truncated) == (b.terminated, b.truncated)


# What Demonstrations computes


def test_transitions_pair_each_action_with_the_observations_around_it(demonstrations):
    observations, actions, following = demonstrations.transitions()
    assert observations.shape == following.shape == (36, 17)
    assert actions.shape == (36, 6)
    assert {a.dtype for a in (observations, actions, following)} == {np.dtype(np.float32)}
    second = demonstrations.episodes[1]
    np.testing.assert_array_equal(observations[12:24], second.observations[:-1].astype(np.float32))
    np.testing.assert_array_equal(following[12:24], second.observations[1:].astype(np.float32))


def test_returns_are_sums_of_rewards(demonstrations):
    np.testing.assert_array_equal(demonstrations.returns, [12, 12, 12])
    assert demonstrations.mean_return == 12


@given(n=st.integers(1, 5), offset=st.integers(0, 5))
def test_take_and_rest_partition(n, offset):
    everything = make_demonstrations(2, 1, episodes=5, length=3)
    if offset + n > 5:
        with pytest.raises(UserError, match="fewer than"):
            everything.take(n, offset)
    else:
        assert everything.take(n, offset).episodes == everything.episodes[offset : offset + n]
    assert everything.take(n).episodes + everything.rest(n).episodes == everything.episodes


def test_rest_may_be_empty_and_then_has_no_mean(demonstrations):
    rest = demonstrations.rest(3)
    assert len(rest) == 0
    assert np.isnan(rest.mean_return)
    with pytest.raises(ValueError, match="no episodes"):
        rest.transitions()


def test_take_less_than_one_is_refused(demonstrations):
    with pytest.raises(UserError, match="at least 1"):
        demonstrations.take(0)


# Round trips


def test_a_minari_folder_reads_back_exactly(folder, demonstrations):
    for path in (folder, folder / "data", folder / "data" / "main_data.hdf5", str(folder)):
        again = read(path)
        assert again.env_id == ENV
        assert all(same(a, b) for a, b in zip(again.episodes, demonstrations.episodes, strict=True))


def test_minari_opens_what_we_write(folder, demonstrations, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder.parents[1]))
    dataset = minari.load_dataset("test/cheetah-v0")
    assert dataset.env_spec.id == ENV
    assert (dataset.total_episodes, dataset.total_steps) == (3, 36)
    assert dataset.action_space == ACTIONS
    np.testing.assert_array_equal(dataset[1].observations, demonstrations.episodes[1].observations)
    assert [m["seed"] for m in dataset.storage.get_episode_metadata(range(3))] == [5, 6, 7]
    assert "test/cheetah-v0" in minari.list_local_datasets()


def test_a_minari_id_reads_from_its_local_folder(folder, demonstrations, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder.parents[1]))
    again = read("test/cheetah-v0", num_demos=2)
    assert again.source == "test/cheetah-v0"
    assert all(same(a, b) for a, b in zip(again.episodes, demonstrations.episodes[:2], strict=True))


def test_more_than_ten_episodes_keep_their_order(tmp_path):
    many = make_demonstrations(17, 6, episodes=12, length=2)
    folder = save_minari(tmp_path, "test/many-v0", Demonstrations(ENV, many.episodes, "random"))
    assert all(same(a, b) for a, b in zip(read(folder).episodes, many.episodes, strict=True))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    ends=st.lists(st.sampled_from([(True, False), (False, True), (True, True)]), min_size=4, max_size=4),
    seed=st.integers(0, 100),
)
def test_npz_round_trip(tmp_path, lengths, ends, seed):
    draw = np.random.default_rng(seed)
    episodes = [
        Episode(
            draw.normal(size=(steps + 1, 17)),
            draw.uniform(-1, 1, size=(steps, 6)).astype(np.float32),
            draw.normal(size=steps),
            *end,
        )
        for steps, end in zip(lengths, ends, strict=False)
    ]
    again = read(save_npz(tmp_path / "d.npz", Demonstrations(ENV, episodes, "random")))
    assert all(same(a, b) for a, b in zip(again.episodes, episodes, strict=True))


def test_the_three_ways_to_give_ends_agree(tmp_path, demonstrations):
    flat = arrays(demonstrations)
    dones = flat.pop("dones")
    first = read(write_npz(tmp_path / "a.npz", flat | {"dones": dones}))
    for form in (
        {"episode_ends": np.array([12, 24, 36])},
        {"truncations": dones, "terminations": np.zeros_like(dones)},
        {"truncations": dones.astype(np.float32)},
    ):
        again = read(write_npz(tmp_path / "b.npz", flat | form))
        assert all(same(a, b) for a, b in zip(again.episodes, first.episodes, strict=True))


def test_terminations_tell_why_an_episode_ended(tmp_path, demonstrations):
    flat = arrays(demonstrations)
    terminations = np.zeros(36, dtype=bool)
    terminations[11] = True
    again = read(write_npz(tmp_path / "a.npz", flat | {"terminations": terminations}))
    assert [(e.terminated, e.truncated) for e in again.episodes] == [(True, False), (False, True), (False, True)]


def test_without_last_observations_the_last_action_is_dropped(tmp_path, demonstrations):
    flat = arrays(demonstrations)
    flat["observations"] = np.concatenate([e.observations[:-1] for e in demonstrations.episodes])
    again = read(write_npz(tmp_path / "a.npz", flat))
    for short, full in zip(again.episodes, demonstrations.episodes, strict=True):
        assert same(
            short,
            Episode(full.observations[:12], full.actions[:11], full.rewards[:11], terminated=False, truncated=True),
        )


def test_a_last_episode_without_an_end_counts(tmp_path, demonstrations):
    flat = arrays(demonstrations)
    flat["dones"][-1] = False
    assert [len(e) for e in read(write_npz(tmp_path / "a.npz", flat)).episodes] == [12, 12, 12]


def test_rewards_may_be_missing(tmp_path, demonstrations):
    flat = arrays(demonstrations)
    del flat["rewards"]
    assert np.isnan(read(write_npz(tmp_path / "a.npz", flat)).returns).all()


# Environments


def test_cheetah_v5_serves_v4_with_a_note(folder, capsys):
    metadata = folder / "data" / "metadata.json"
    metadata.write_text(metadata.read_text().replace("HalfCheetah-v4", "HalfCheetah-v5"))
    assert len(read(folder)) == 3
    assert "note:" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["Hopper-v5", "Walker2d-v5", "Swimmer-v4"])
def test_another_environment_is_refused(folder, other):
    metadata = folder / "data" / "metadata.json"
    metadata.write_text(metadata.read_text().replace("HalfCheetah-v4", other))
    with pytest.raises(UserError, match=f"recorded in {other}, not in HalfCheetah-v4"):
        read(folder)


def test_hopper_v5_does_not_serve_hopper_v4(folder):
    metadata = folder / "data" / "metadata.json"
    metadata.write_text(metadata.read_text().replace("HalfCheetah-v4", "Hopper-v5"))
    with pytest.raises(UserError, match="different tasks"):
        read(folder, "Hopper-v4")


def test_a_file_that_does_not_name_its_environment_is_believed(folder):
    (folder / "data" / "metadata.json").unlink()
    assert read(folder).env_id == ENV


def test_an_npz_may_name_its_environment(tmp_path, demonstrations):
    path = save_npz(tmp_path / "a.npz", demonstrations)
    with pytest.raises(UserError, match="recorded in HalfCheetah-v4"):
        read(path, "Hopper-v4")


def test_nothing_ships_for_an_unknown_environment():
    with pytest.raises(UserError, match=re.escape("no demonstrations ship for Pusher-v5")):
        read(None, "Pusher-v5")


@pytest.mark.parametrize("which", ["observation", "action"])
def test_spaces_must_be_vectors(folder, which):
    spaces = {f"{which}s": Discrete(3)}
    with pytest.raises(UserError, match=f"the {which} space must be a Box"):
        read(folder, **spaces)


# Every defect is named, with file and episode


@pytest.mark.parametrize(
    ("key", "edit", "message"),
    [
        (
            "observations",
            lambda x: x[:, :5],
            r"episode 1 of .* observations of shape \(5,\); the environment's is \(17,\)",
        ),
        ("observations", lambda x: x[:-1], r"episode 1 of .* 12 observations for 12 actions; 13 would be right"),
        (
            "observations",
            lambda x: x * np.where(np.arange(13) == 7, np.nan, 1)[:, None],
            r"not finite \(first at step 7\)",
        ),
        ("observations", lambda x: x.astype("S8"), "observations that are not real numbers"),
        ("actions", lambda x: x[:, :2], r"episode 1 of .* actions of shape \(2,\); the environment's is \(6,\)"),
        ("actions", lambda x: x + np.inf, "actions that are not finite"),
        ("actions", lambda x: np.where(np.arange(12)[:, None] == 3, 1.5, x), r"out of bounds at step 3 \(by 0.5\)"),
        ("actions", lambda x: x[:0], "episode 1 of .* has no steps"),
        ("rewards", lambda x: x[:3], r"rewards of shape \(3,\)"),
        (
            "rewards",
            lambda x: np.where(np.arange(12) == 2, np.nan, x),
            r"rewards that are not finite \(first at step 2\)",
        ),
        ("truncations", lambda x: x | (np.arange(12) == 4), "ends at step 4 but goes on to step 11"),
        ("terminations", lambda x: None, "episode_1 of .* has no array 'terminations'"),
    ],
)
def test_a_defect_in_an_episode_is_named(folder, key, edit, message):
    with pytest.raises(UserError, match=message):
        read(change(folder, key, edit))
    assert len(read(folder, num_demos=1)) == 1, "episodes that are not used are not judged"


@given(excess=st.floats(0, 9e-5))
def test_rounding_beyond_the_bounds_is_clipped(excess):
    from l2l_gail.demonstrations import _within_bounds

    actions = np.array([[1 + excess, -1 - excess, 0, 0, 0, 0.5]])
    np.testing.assert_array_equal(_within_bounds(actions, ACTIONS, "here"), np.float32([[1, -1, 0, 0, 0, 0.5]]))


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.98])
def test_a_cut_off_file_is_named(folder, keep):
    file = folder / "data" / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="damaged or cut off"):
        read(folder)


def test_a_file_damaged_in_the_middle_is_named(folder):
    file = folder / "data" / "main_data.hdf5"
    with h5py.File(file) as handle:
        dataset = handle["episode_2/observations"]
        start = dataset.id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[start : start + 200] = bytes(200)
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged or cut off"):
        read(folder)


def test_damaged_metadata_is_named(folder):
    (folder / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"metadata\.json is damaged"):
        read(folder)


def test_a_file_without_episodes_is_named(folder):
    with h5py.File(folder / "data" / "main_data.hdf5", "w"):
        pass
    with pytest.raises(UserError, match="holds no episodes"):
        read(folder)


def test_a_folder_without_data_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no data/main_data\.hdf5"):
        read(tmp_path)


def test_a_minari_id_that_is_not_here_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(UserError, match="minari download mujoco/halfcheetah/expert-v0"):
        read("mujoco/halfcheetah/expert-v0")


def test_a_damaged_minari_set_is_named(folder, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder.parents[1]))
    file = folder / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(UserError, match="test/cheetah-v0"):
        read("test/cheetah-v0")
    (folder / "data" / "metadata.json").write_text("{}")
    with pytest.raises(UserError, match="test/cheetah-v0 cannot be opened"):
        read("test/cheetah-v0")


@pytest.mark.parametrize("source", ["no/such/folder", "missing.hdf5", "what is this"])
def test_a_source_of_no_kind_is_named(source):
    with pytest.raises(UserError, match="neither a folder"):
        read(source)


@pytest.mark.parametrize(
    ("number", "message"), [(0, "at least 1, not 0"), (-2, "at least 1"), (4, "holds 3 episodes, fewer")]
)
def test_a_wrong_number_of_demonstrations_is_named(folder, number, message):
    with pytest.raises(UserError, match=message):
        read(folder, num_demos=number)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a.pop("observations"), "no array 'observations'; it holds actions, dones, rewards"),
        (lambda a: a.pop("actions"), "no array 'actions'"),
        (lambda a: a.pop("dones"), "does not say where episodes end"),
        (lambda a: a.update(observations=a["observations"][:-1]), "39 .* or 36 would be right"),
        (lambda a: a.update(actions=a["actions"][:, 0]), r"actions of shape \(36,\)"),
        (lambda a: a.update(rewards=a["rewards"][1:]), r"rewards of shape \(35,\)"),
        (lambda a: a.update(dones=a["dones"][1:]), r"dones of shape \(35,\)"),
        (lambda a: a.update(episode_ends=np.array([12, 24])), "episode_ends"),
        (lambda a: a.update(episode_ends=np.array([12, 12, 36])), "episode_ends"),
        (lambda a: a.update(episode_ends=np.array([0, 12, 36])), "episode_ends"),
        (lambda a: a.update(episode_ends=np.array([1.0, 36.0])), "episode_ends"),
        (lambda a: a.update(rewards=np.array([None] * 36)), "damaged or no .npz file of plain arrays"),
        (lambda a: a.update(observations=a["observations"] * np.nan), "episode 0 of .* not finite"),
    ],
)
def test_a_defect_in_an_npz_is_named(tmp_path, demonstrations, edit, message):
    content = arrays(demonstrations)
    edit(content)
    with pytest.raises(UserError, match=message):
        read(write_npz(tmp_path / "a.npz", content))


def test_an_npz_that_is_missing_cut_off_or_empty_is_named(tmp_path, demonstrations):
    with pytest.raises(UserError, match="there is no file"):
        read(tmp_path / "missing.npz")
    path = write_npz(tmp_path / "a.npz", arrays(demonstrations))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="damaged"):
        read(path)
    empty = {"observations": np.zeros((0, 17)), "actions": np.zeros((0, 6)), "dones": np.zeros(0, bool)}
    with pytest.raises(UserError, match="holds no episodes"):
        read(write_npz(path, empty))


def test_writing_over_a_data_set_must_be_asked_for(folder, demonstrations):
    root = folder.parents[1]
    with pytest.raises(UserError, match="there already"):
        save_minari(root, "test/cheetah-v0", demonstrations)
    save_minari(root, "test/cheetah-v0", demonstrations.take(1), overwrite=True)
    assert len(read(folder)) == 1
    assert sorted(p.name for p in folder.parent.iterdir()) == ["cheetah-v0", "namespace_metadata.json"]
