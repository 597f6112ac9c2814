"""The state of generators, optimisers and other state_dicts, as tensors and JSON, exactly."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

Tensors = dict[str, Any]  # nested dicts of Tensors
Meta = dict[str, Any]  # whatever JSON can hold


def rng_state() -> tuple[Tensors, Meta]:
    """State of the generators of python, numpy (the global one), torch, and every CUDA device."""
    version, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002  libraries in the loop still draw from it
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "torch": torch.get_rng_state(),
        "cuda": {},
    }
    if torch.cuda.is_available():
        tensors["cuda"] = {str(i): state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    meta = {
        "python": {"version": version, "gauss": gauss},
        "numpy": {"position": legacy["state"]["pos"], "has_gauss": legacy["has_gauss"], "gauss": legacy["gauss"]},
    }
    return tensors, meta


def set_rng_state(tensors: Tensors, meta: Meta) -> None:
    """The inverse of `rng_state`; CUDA devices that this machine does not have are passed over."""
    python, legacy = meta["python"], meta["numpy"]
    random.setstate((python["version"], tuple(tensors["python"].tolist()), python["gauss"]))
    words = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, legacy["position"], legacy["has_gauss"], legacy["gauss"]))  # noqa: NPY002
    torch.set_rng_state(tensors["torch"].cpu())
    if torch.cuda.is_available():
        for index, state in tensors["cuda"].items():
            if int(index) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state.cpu(), int(index))


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, Meta]:
    """A copy of the state of any torch optimiser: memory and settings (learning rates among them)."""
    return split(optimizer.state_dict())


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Tensors, meta: Meta) -> None:
    """The inverse of `optimizer_state`, into an optimiser over the same parameters: it goes on bit-equal."""
    optimizer.load_state_dict(join(tensors, meta))


def split(tree: Any) -> tuple[Tensors, Meta]:
    """Tensors and all the rest of a state_dict-like tree, copied.

    The tree may hold dicts (keys strings or integers), lists, tuples, Tensors, numpy arrays, numbers, strings, booleans
    and None. `meta` is the tree with each of its nodes as one `[what it is, content]` pair, so that `join` gives back
    tuples as tuples and integer keys as integers, which JSON by itself would not. TypeError for anything else.
    """
    tensors: dict[str, Tensor] = {}

    def store(tensor: Tensor) -> str:
        name = str(len(tensors))
        tensors[name] = tensor
        return name

    def describe(node: Any) -> list[Any]:
        if isinstance(node, Tensor):
            return ["tensor", store(node.detach().clone())]
        if isinstance(node, np.ndarray):
            return ["array", store(torch.from_numpy(np.array(node, order="C")))]
        if isinstance(node, dict):
            if wrong := [key for key in node if type(key) not in (str, int)]:
                raise TypeError(f"a state's keys must be strings or integers, not {wrong[0]!r}")
            return ["dict", [[key, describe(value)] for key, value in node.items()]]
        if isinstance(node, list | tuple):
            return ["list" if isinstance(node, list) else "tuple", [describe(value) for value in node]]
        if isinstance(node, np.generic):
            node = node.item()
        if node is None or isinstance(node, bool | int | float | str):
            return ["value", node]
        raise TypeError(f"cannot keep a {type(node).__name__} in a checkpoint: {node!r}")

    return tensors, {"tree": describe(tree)}


def join(tensors: Tensors, meta: Meta) -> Any:
    """The inverse of `split`; the result shares no memory with `tensors`."""

    def build(description: list[Any]) -> Any:
        what, content = description
        if what == "tensor":
            return tensors[content].clone()
        if what == "array":
            return tensors[content].cpu().numpy().copy()
        if what == "dict":
            return {key: build(value) for key, value in content}
        if what in ("list", "tuple"):
            values = [build(value) for value in content]
            return values if what == "list" else tuple(values)
        return content

    return build(meta["tree"])
