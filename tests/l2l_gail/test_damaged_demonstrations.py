"""Every defect of demonstrations is named, with file and episode."""

import contextlib
import io
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import save_npz
from tests.l2l_gail.conftest import arrays, make_demonstrations
from tests.l2l_gail.test_demonstrations import read

STEP = np.arange(12)


@pytest.mark.parametrize(
    ("key", "edit", "message"),
    [
        ("observations", lambda x: x[:, :5], r"observations of shape \(5,\); the environment's is \(17,\)"),
        ("observations", lambda x: x[:-1], "12 observations for 12 actions; 13 would be right"),
        ("observations", lambda x: x * np.where(np.arange(13) == 7, np.nan, 1)[:, None], "NaN .*first at step 7"),
        ("observations", lambda x: x + 1e30 * (np.arange(13) == 7)[:, None], r"1e\+18 and more \(first at step 7"),
        ("actions", lambda x: np.where(STEP[:, None] == 3, 1.5, x), r"out of bounds at step 3 \(by 0.5\)"),
        ("actions", lambda x: x[:0], "has no steps"),
        ("terminations", lambda x: None, "has no array 'terminations'"),
    ],
)
def test_a_defect_in_an_episode_is_named(folder, key, edit, message):
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        group = file["episode_1"]
        values = group[key][()]
        del group[key]
        if (edited := edit(values)) is not None:
            group[key] = edited
    with pytest.raises(UserError, match=f"episode.1 of .*{message}"):
        read(folder)
    assert len(read(folder, num_demos=1)) == 1, "episodes that are not used are not judged"


@pytest.mark.parametrize(("name", "kept"), [("main_data.hdf5", 4000), ("metadata.json", 1)])
def test_a_damaged_file_is_named(folder, name, kept):
    path = folder / "data" / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=f"{name}.* damaged"):
        read(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", r"no data/main_data\.hdf5"),
        ("mujoco/halfcheetah/expert-v0", "minari download mujoco/halfcheetah/expert-v0"),
        ("missing.npz", "there is no file"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path, monkeypatch, source, message):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(UserError, match=message):
        read(source or tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a.pop("observations"), "no array 'observations'; it holds actions, dones, rewards"),
        (lambda a: a.pop("dones"), "does not say where episodes end"),
        (lambda a: a.update(observations=a["observations"][:-1]), "39 .* or 36 would be right"),
        (lambda a: a.update(actions=a["actions"][:, 0]), r"actions of shape \(\); the environment's is \(6,\)"),
        (lambda a: a.update(episode_ends=np.array([12, 12, 36])), "episode_ends"),
        (lambda a: a.update(observations=[a["observations"][:12], a["observations"][12:]]), "join the episodes"),
        (lambda a: a.update({name: values[:0] for name, values in a.items()}), "holds no episodes"),
    ],
)
def test_a_defect_in_arrays_is_named(demonstrations, edit, message):
    content = arrays(demonstrations)
    edit(content)
    with pytest.raises(UserError, match=message):
        read(content)


@pytest.mark.parametrize(("change", "kept"), [({}, 2000), ({"rewards": np.array([None] * 36)}, None)])
def test_a_damaged_or_pickled_npz_is_named(tmp_path, demonstrations, change, kept):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays(demonstrations) | change)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="damaged or no .npz file of plain arrays"):
        read(path)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_flipped_byte_is_named_or_does_no_harm(tmp_path_factory, at, change_by):
    """A traceback it never is."""
    path = save_npz(tmp_path_factory.mktemp("npz") / "a.npz", make_demonstrations(17, 6, episodes=1, length=20))
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= change_by
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        read(path)


def test_a_flat_file_of_d4rl_is_read(tmp_path, demonstrations):
    flat, file = arrays(demonstrations), tmp_path / "d4rl.hdf5"
    last = np.flatnonzero(flat["dones"])
    with h5py.File(file, "w") as handle:
        count = len(flat["actions"])
        seen = np.delete(flat["observations"], last + 1 + np.arange(len(last)), axis=0)
        for name, values in (("observations", seen), ("actions", flat["actions"]), ("rewards", flat["rewards"])):
            handle[name] = values
        handle["terminals"], handle["timeouts"] = np.zeros(count, bool), flat["dones"]
    found = read(file)
    assert [len(episode) for episode in found.episodes] == [11, 11, 11]  # the last action leads nowhere known
    np.testing.assert_allclose(found.returns, demonstrations.returns)


def _declare(group, name, **how):
    shape, dtype = group[name].shape, group[name].dtype
    del group[name]
    group.create_dataset(name, **({"shape": shape, "dtype": dtype} | how))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda group, path: _declare(group, "rewards", shape=(10**9,), chunks=True), "declares 8,000,000,000 bytes"),
        (lambda group, path: _declare(group, "rewards", external=[("/etc/hostname", 0, 96)]), "stored in another file"),
        (lambda group, path: _declare(group, "rewards", dtype=h5py.string_dtype()), "no.* real numbers"),
    ],
)
def test_an_array_that_lies_elsewhere_or_is_larger_than_its_file(folder, change, message):
    path = folder / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        change(file["episode_1"], path)
    with pytest.raises(UserError, match=message):
        read(folder)


def test_links_and_dictionaries_are_named(folder, tmp_path):
    path = folder / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        group = file["episode_1"]
        del group["rewards"]
        group["rewards"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/rewards")
    with pytest.raises(UserError, match="'rewards' .* is a link"):
        read(folder)
    with h5py.File(path, "a") as file:
        group = file["episode_1"]
        del group["observations"], group["rewards"]
        group["rewards"] = np.zeros(12)
        group.create_group("observations")["joints"] = np.zeros(3)
    with pytest.raises(UserError, match=r"observations that are a dictionary or tuple"):
        read(folder)


def test_an_npz_whose_header_asks_for_more_than_it_holds(tmp_path, demonstrations):
    path, header = tmp_path / "demos.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 17)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", header.getvalue())
    with pytest.raises(UserError, match="declares 136,000,000,000,000 bytes, and holds others"):
        read(path)
    flat = arrays(demonstrations)
    ends = np.flatnonzero(flat.pop("dones")) + 1
    for kind, told in ((ends.astype(float), None), (ends + 0.5, "whole numbers"), (ends.astype(str), "whole numbers")):
        np.savez(path, **flat, episode_ends=kind)
        if told is None:
            assert len(read(path)) == 3
        else:
            with pytest.raises(UserError, match=told):
                read(path)


@pytest.mark.parametrize("header", ["{'descr': '<f8', (", "{'descr': '<f8', 'shape': (3,", "((((", "'", "\x00" * 20])
def test_a_header_that_is_no_python_is_damage(tmp_path, header):
    text = header.ljust(117) + "\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("observations.npy", member)
    with pytest.raises(UserError, match=r"d.npz is damaged or no \.npz file"):
        read(tmp_path / "d.npz")
