"""Every defect of a file of demonstrations is named, with file and episode."""

import contextlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l_experiment.errors import UserError
from l2l_gail.recording import save_minari
from tests.l2l_gail.files import ACTIONS, arrays, change, read, write_npz


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


def test_a_file_that_only_has_the_name_of_an_npz_is_named(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="no .npz file"):
        read(tmp_path / "a.npz")


@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_damaged_compressed_npz_is_named_or_read(tmp_path_factory, at, change_by):
    """Any flipped byte is either told in a sentence or does no harm; a traceback it never is."""
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    rng = np.random.default_rng(0)
    np.savez_compressed(
        path,
        observations=rng.normal(size=(20, 17)),
        actions=rng.uniform(-1, 1, (20, 6)),
        episode_ends=np.array([20]),
    )
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= change_by
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        read(path)


def test_small_whole_numbers_as_rewards_keep_the_return(tmp_path):
    ends = np.array([20])
    rewards = np.full(20, 200, dtype=np.uint8)
    np.savez(
        tmp_path / "a.npz",
        observations=np.zeros((20, 17)),
        actions=np.zeros((20, 6)),
        rewards=rewards,
        episode_ends=ends,
    )
    assert read(tmp_path / "a.npz").returns.tolist() == [4000]
