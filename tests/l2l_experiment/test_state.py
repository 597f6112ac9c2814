"""Generators and optimisers continue bit for bit, and other trees come back exactly as they were."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from l2l_experiment import checkpoint

PLAIN = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5)
TREE = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


def through_disk(folder, tensors, meta):
    checkpoint.save(folder, tensors, meta, step=1)
    return checkpoint.latest(folder)


def draws():
    generator = np.random  # the global one is what is under test
    return [random.gauss(0, 1), random.random(), *generator.standard_normal(3), *torch.randn(3).tolist()]


def test_generators_continue_bit_by_bit(tmp_path):
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    draws()  # an odd number of gaussians: the second of a pair waits inside the generators
    loaded = through_disk(tmp_path, *checkpoint.rng_state())
    expected = draws()
    draws()
    checkpoint.set_rng_state(*loaded)
    assert draws() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generators_and_optimizers_continue_bit_by_bit(tmp_path):
    weights = [torch.nn.Parameter(torch.randn(5, device="cuda"))]
    optimizer = torch.optim.Adam(weights, fused=True)
    train(optimizer, weights, 0, 3)
    rng, rng_meta = checkpoint.rng_state()
    state, state_meta = checkpoint.optimizer_state(optimizer)
    tensors = {"rng": rng, "optimizer": state, "weight": weights[0]}
    tensors, meta = through_disk(tmp_path, tensors, {"rng": rng_meta, "optimizer": state_meta})
    train(optimizer, weights, 3, 6)
    expected = torch.randn(4, device="cuda")

    resumed = [torch.nn.Parameter(tensors["weight"].cuda())]
    other = torch.optim.Adam(resumed, fused=True)
    checkpoint.load_optimizer_state(other, tensors["optimizer"], meta["optimizer"])
    train(other, resumed, 3, 6)
    checkpoint.set_rng_state(tensors["rng"], meta["rng"])
    assert torch.equal(resumed[0], weights[0])
    assert torch.equal(torch.randn(4, device="cuda"), expected)


def parameters():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(()))]


def train(optimizer, weights, start, stop):
    for step in range(start, stop):
        optimizer.zero_grad()
        (sum((weight - step).square().sum() for weight in weights)).backward()
        optimizer.step()


OPTIMIZERS = {
    "adam": lambda w: torch.optim.Adam(w, lr=0.1),
    "amsgrad, two groups": lambda w: torch.optim.Adam([{"params": w[:1], "lr": 0.3}, {"params": w[1:]}], amsgrad=True),
    "adamw": lambda w: torch.optim.AdamW(w, lr=torch.tensor(0.1), capturable=False, foreach=False),
    "sgd": lambda w: torch.optim.SGD(w, lr=0.1),
    "momentum": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda w: torch.optim.RMSprop(w, lr=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_an_optimizer_continues_bit_by_bit(tmp_path, make):
    weights = parameters()
    optimizer = make(weights)
    train(optimizer, weights, 0, 5)
    optimizer.param_groups[0]["lr"] = 0.05  # a schedule has moved it
    tensors, meta = checkpoint.optimizer_state(optimizer)
    tensors, meta = through_disk(
        tmp_path, {"optimizer": tensors, "weights": dict(zip("ab", weights, strict=True))}, meta
    )
    train(optimizer, weights, 5, 10)

    resumed = [torch.nn.Parameter(tensors["weights"][name]) for name in "ab"]
    other = make(resumed)
    checkpoint.load_optimizer_state(other, tensors["optimizer"], meta)
    train(other, resumed, 5, 10)
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
    assert other.param_groups[0].get("betas") == optimizer.param_groups[0].get("betas")
    assert json.dumps(checkpoint.optimizer_state(other)[1]) == json.dumps(checkpoint.optimizer_state(optimizer)[1])


def test_an_optimizers_state_is_a_copy():
    weights = parameters()
    optimizer = torch.optim.Adam(weights)
    train(optimizer, weights, 0, 1)
    tensors, meta = checkpoint.optimizer_state(optimizer)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    twin = torch.optim.Adam(weights)
    checkpoint.load_optimizer_state(twin, tensors, meta)
    train(optimizer, weights, 1, 3)
    train(twin, weights, 1, 3)
    assert all(torch.equal(before[name], tensors[name]) for name in before)


@given(TREE)
def test_any_plain_tree_comes_back_exactly(tree):
    tensors, meta = checkpoint.split(tree)
    again = checkpoint.join(tensors, json.loads(json.dumps(meta)))
    assert again == tree
    assert repr(again) == repr(tree)  # tells 1 from 1.0 and True, and a tuple from a list


def test_a_tree_with_tensors_and_arrays_comes_back(tmp_path):
    tree = {
        "weights": [torch.arange(3.0), (torch.tensor(2, dtype=torch.int64),)],
        7: {"mask": np.array([True, False]), "scalar": np.float32(0.5), "empty": {}},
    }
    tensors, meta = checkpoint.split(tree)
    again = checkpoint.join(*through_disk(tmp_path, tensors, meta))
    assert torch.equal(again["weights"][0], tree["weights"][0])
    assert torch.equal(again["weights"][1][0], tree["weights"][1][0])
    assert again[7]["mask"].dtype == np.bool_
    assert again[7]["mask"].tolist() == [True, False]
    assert again[7]["scalar"] == 0.5
    assert again[7]["empty"] == {}


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(TypeError, match="cannot keep a function"):
        checkpoint.split({"schedule": lambda progress: progress})
    with pytest.raises(TypeError, match="keys"):
        checkpoint.split({(1, 2): 3})
