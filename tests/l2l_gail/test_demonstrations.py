"""Tests of demonstrations: what is read equals what was written, and every defect is named."""

import re

import minari
import numpy as np
import pytest
from gymnasium.spaces import Discrete
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import Demonstrations, Episode
from l2l_gail.recording import save_minari, save_npz
from tests.l2l_gail.conftest import make_demonstrations
from tests.l2l_gail.files import ACTIONS, ENV, arrays, read, write_npz


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
        rewards = np.append(full.rewards[:10], full.rewards[10:].sum())  # of which the return is made, for reports
        assert same(
            short, Episode(full.observations[:12], full.actions[:11], rewards, terminated=False, truncated=True)
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
