"""Checkpoints come back exactly, appear whole or not at all, and survive damage."""

import contextlib
import json
import math
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2l_experiment import checkpoint
from l2l_experiment.errors import UserError

KEYS = st.text(max_size=4) | st.integers(-9, 9) | st.sampled_from(["a.b", "a/b", "/", "", "'/'", "__metadata__", "ü"])
DTYPES = st.sampled_from(["float64", "float32", "float16", "int64", "int32", "uint8", "uint16", "uint32", "bool"])
SHAPES = st.sampled_from([(), (0,), (3,), (2, 0), (2, 3)])
ARRAYS = st.builds(
    lambda dtype, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype), DTYPES, SHAPES
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
TREES = st.recursive(
    PLAIN | ARRAYS | ARRAYS.map(torch.from_numpy),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(left, right):
    """Same types, values, keys, and keys in the same order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return [*map(repr, left)] == [*map(repr, right)] and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor | np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())
    return left == right or (math.isnan(left) and math.isnan(right))


def names(folder):
    return sorted(os.listdir(folder / "checkpoints"))


def save(folder, step):
    return checkpoint.save(folder, {"w": torch.full((4,), float(step)), "step": step}, step)


def step_of(folder):
    tree = checkpoint.latest(folder)
    assert tree["w"].tolist() == [tree["step"]] * 4
    return tree["step"]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES)
def test_any_tree_comes_back_exactly(tmp_path, tree):
    checkpoint.save(tmp_path, tree, step=0)
    assert same(tree, checkpoint.latest(tmp_path))


def test_strided_shared_and_trained_tensors_come_back(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    tree = {"t": base.T, "again": [base, base[0]], "p": torch.nn.Parameter(base), "h": base.to(torch.bfloat16)}
    checkpoint.save(tmp_path, tree, step=0)
    assert same(tree | {"p": base}, checkpoint.latest(tmp_path))
    checkpoint.save(tmp_path, {"array": np.arange(6).reshape(2, 3).T, "scalar": np.float32(0.5)}, step=1)
    assert same(checkpoint.latest(tmp_path), {"array": np.arange(6).reshape(2, 3).T, "scalar": 0.5})


def test_what_is_loaded_is_writable_and_outlives_its_file(tmp_path):
    checkpoint.save(tmp_path, {"w": torch.ones(4), "array": np.ones(4)}, step=1)
    tree = checkpoint.latest(tmp_path)
    (file,) = tmp_path.glob("checkpoints/*/tensors.safetensors")
    with file.open("r+b") as opened:  # in place, where a mapped file would change under the tensors
        opened.write(bytes(file.stat().st_size))
    tree["w"].add_(1)
    tree["array"] += 1
    assert tree["w"].tolist() == tree["array"].tolist() == [2.0] * 4


def test_what_cannot_be_kept_is_refused(tmp_path):
    for tree, told in (({"schedule": len}, "cannot keep a builtin"), ({(1, 2): 3}, "keys"), ({True: 1}, "keys")):
        with pytest.raises(TypeError, match=told):
            checkpoint.save(tmp_path, tree, step=2)
    assert not list(tmp_path.iterdir())


def test_it_opens_without_unpickling(tmp_path, monkeypatch):
    path = save(tmp_path, 12)
    assert path == tmp_path / "checkpoints" / "step_000000012"
    assert sorted(os.listdir(path)) == ["SHA256SUMS", "meta.json", "tensors.safetensors"]
    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, None)
    assert step_of(tmp_path) == 12


def test_the_newest_are_kept_and_a_future_that_was_given_up_goes(tmp_path):
    for step in (0, 9, 100, 1_000_000_000, 2_000_000_000):  # ten digits too: by number, not by name
        save(tmp_path, step)
    assert names(tmp_path) == ["step_1000000000", "step_2000000000"]
    assert step_of(tmp_path) == 2_000_000_000
    save(tmp_path, 1_500_000_000)
    assert names(tmp_path) == ["step_1000000000", "step_1500000000"]
    save(tmp_path, 1_400_000_000)
    checkpoint.save(tmp_path, {"new": True}, step=1_400_000_000)  # the same step again
    assert names(tmp_path) == ["step_1000000000", "step_1400000000"]
    assert checkpoint.latest(tmp_path) == {"new": True}


class Killed(BaseException):
    """Nothing cleans up behind it."""


CALLS = [(Path, "mkdir"), (Path, "write_bytes"), (checkpoint, "sync")]
CALLS += [(os, "replace"), (shutil, "rmtree")]


@pytest.mark.parametrize("step", [1, 2])  # a checkpoint in the place of one, and another one
def test_a_kill_before_any_call_of_a_save_loses_no_finished_one(tmp_path, monkeypatch, capsys, step):
    def dying(call, count):
        def replacement(*args, **options):
            if not next(count):
                raise Killed
            return call(*args, **options)

        return replacement

    killed = True
    for before in range(20):
        save(tmp_path, 1)
        assert not list(tmp_path.glob("checkpoints/.tmp_*"))
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            count = iter(range(before, -100, -1))
            for owner, name in CALLS:
                patch.setattr(owner, name, dying(getattr(owner, name), count))
            save(tmp_path, step)
            killed = False
        assert step_of(tmp_path) in (1, step)
    assert not killed  # in the end it has more calls to live than it makes
    assert capsys.readouterr().err == ""


def test_a_save_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "sync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["step_000000001"]
    assert step_of(tmp_path) == 1


def swap(path):
    other = checkpoint.save(path.parents[1] / "other", {"v": torch.zeros(2)}, step=0)
    (path / "tensors.safetensors").write_bytes((other / "tensors.safetensors").read_bytes())


TENSORS, META, SUMS = checkpoint.TENSORS, checkpoint.META, checkpoint.SUMS
DAMAGE = {
    "no checksums": lambda path: (path / SUMS).unlink(),
    "cut-off tensors": lambda path: (path / TENSORS).write_bytes((path / TENSORS).read_bytes()[:-3]),
    "another checkpoint's tensors": swap,
    "no meta": lambda path: (path / META).unlink(),
    "cut-off meta": lambda path: (path / META).write_text('{"format": 2, "st'),
    "meta of another kind": lambda path: (path / META).write_text("[]"),
    "binary meta": lambda path: (path / META).write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, capsys, damage):
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    assert step_of(tmp_path) == 1
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: passing over the damaged checkpoint")
    assert "step_000000002" in warning


@pytest.mark.parametrize("step", [-2, 1.5, 3, None])
def test_one_that_says_another_step_than_its_folder_is_damaged(tmp_path, capsys, step):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    parts = {META: json.dumps(json.loads((path / META).read_text()) | {"step": step}).encode()}
    (path / META).write_bytes(parts[META])
    (path / SUMS).write_bytes(checkpoint._sums(parts | {TENSORS: (path / TENSORS).read_bytes()}))
    assert step_of(tmp_path) == 1
    assert f"of step {step!r}" in capsys.readouterr().err


OWN = {"steps": 0, "mean": np.zeros(3), "moments": {}, "last": None, "envs": [{"elapsed": 4}], "warm": True}
FITS = [{"steps": 7, "moments": {"a": np.ones(2)}, "last": np.ones(5)}, {"mean": torch.ones(3)}, {"mean": None}, {}]
MISFITS = [
    ({"steps": -1}, "/steps is -1"),
    ({"steps": 0.5}, "/steps is 0.5"),
    ({"steps": True}, "/steps is True"),
    ({"mean": np.zeros((3, 1))}, "/mean has another shape"),
    ({"mean": "x"}, "/mean has another shape"),
    ({"envs": [{"elapsed": "x"}]}, "/envs/0/elapsed is 'x'"),
]


def test_a_state_fits_another_or_the_place_is_named():
    for changes in FITS:
        checkpoint.check_compatible(OWN | changes, OWN)
    for changes, told in MISFITS:
        with pytest.raises(ValueError, match=told):
            checkpoint.check_compatible(OWN | changes, OWN)


def test_none_that_can_be_used_is_the_users_to_know(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in "):
        checkpoint.latest(tmp_path)
    path = save(tmp_path, 1)
    (path / TENSORS).unlink()
    with pytest.raises(UserError, match="only damaged checkpoints in "):
        checkpoint.latest(tmp_path)
    for other, told in ((1, r"l2l 0\.1"), (2, "another version")):
        path = save(tmp_path, 1)
        (path / SUMS).unlink()  # older ones have none
        (path / META).write_text(json.dumps({"format": other, "step": 1, "meta": {}}))
        with pytest.raises(UserError, match=f"written by {told}.*; open it with that version"):
            checkpoint.latest(tmp_path)


def test_every_flipped_bit_is_noticed(tmp_path, capsys):
    path = save(tmp_path, 1)
    for name in (TENSORS, META, SUMS):
        whole = (path / name).read_bytes()
        for place in range(0, len(whole) * 8, 7):
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            (path / name).write_bytes(damaged)
            with pytest.raises(UserError, match="only damaged checkpoints"):
                checkpoint.latest(tmp_path)
        (path / name).write_bytes(whole)
    assert step_of(tmp_path) == 1
