"""Checkpoints: folders that appear whole or not at all, and that open without unpickling anything.

A checkpoint is `checkpoints/step_000123456/` with `tensors.safetensors` and `meta.json`.
"""

import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from l2l_experiment.errors import UserError
from l2l_experiment.files import sync
from l2l_experiment.state import join, load_optimizer_state, optimizer_state, rng_state, set_rng_state, split

__all__ = [
    "exists",
    "join",
    "latest",
    "load_optimizer_state",
    "optimizer_state",
    "rng_state",
    "save",
    "set_rng_state",
    "split",
]

FORMAT = 1
_NAME = re.compile(r"step_(\d+)(\.replaced)?")
_TEMPORARY = ".tmp_"


def save(folder: Path | str, tensors: Mapping[str, Any], meta: Mapping[str, Any], step: int, keep: int = 2) -> Path:
    """Write a checkpoint of `step` and return its folder.

    `tensors`: nested dicts with string keys, of Tensors (any device) and numpy arrays; `meta`: what JSON can hold. When
    the new checkpoint stands, the `keep` newest up to `step` stay; older ones go, and so do those of later steps: they
    belong to a future that was given up when the run resumed from before it. One process at a time may save.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step must be at least 0 and keep at least 1, got step {step} and keep {keep}")
    leaves = dict(_walk(tensors, ""))
    flat = {pointer: leaf for pointer, leaf in leaves.items() if leaf is not None}
    # safetensors sorts its names, but a dict of weights may mean something by its order.
    order = [[pointer, leaf is not None] for pointer, leaf in leaves.items()]
    text = json.dumps({"format": FORMAT, "step": step, "order": order, "meta": meta})
    root = Path(folder) / "checkpoints"
    target = root / f"step_{step:09d}"
    temporary = root / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        safetensors.torch.save_file(flat, temporary / "tensors.safetensors")
        (temporary / "meta.json").write_text(text, encoding="utf-8")
        for path in (temporary / "tensors.safetensors", temporary / "meta.json", temporary):
            sync(path)
        if target.exists():
            # A folder cannot be renamed onto a full one: the old one steps aside, where `latest` still finds it.
            aside = target.with_name(f"{target.name}.replaced")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(target, aside)
        os.replace(temporary, target)
        sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"cannot write a checkpoint into {root}: {error}") from error
    kept = [path for path in _found(root) if path == target or _order(path) < (step, False)][:keep]
    for path in root.iterdir():
        if path.name.startswith(_TEMPORARY) or (_NAME.fullmatch(path.name) and path not in kept):
            shutil.rmtree(path, ignore_errors=True)
    return target


def exists(folder: Path | str) -> bool:
    """Whether a run has saved any checkpoint, usable or not."""
    return bool(_found(Path(folder) / "checkpoints"))


def latest(folder: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(tensors, meta)` of the newest usable checkpoint: nested dicts of CPU Tensors, and what JSON held.

    A damaged one is passed over with a warning on stderr; UserError if none can be used.
    """
    root = Path(folder) / "checkpoints"
    candidates = _found(root)
    for path in candidates:
        try:
            return _load(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            print(f"warning: passing over the damaged checkpoint {path} ({error})", file=sys.stderr)
    what = "only damaged checkpoints" if candidates else "no checkpoint"
    raise UserError(f"there is {what} in {root}; name the folder of a run that saved one, or start a new run")


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    wrapper = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    if wrapper["format"] != FORMAT:
        raise ValueError(f"its format is {wrapper['format']!r}, this version reads {FORMAT}")
    # Read, not memory-mapped: the file may be deleted while the tensors live.
    flat = safetensors.torch.load((path / "tensors.safetensors").read_bytes())
    leaves = {pointer: flat[pointer] if full else None for pointer, full in wrapper["order"]}
    return _nest(leaves), wrapper["meta"]


def _found(root: Path) -> list[Path]:
    """Folders of checkpoints, newest first."""
    paths = [path for path in root.iterdir() if _NAME.fullmatch(path.name)] if root.is_dir() else []
    return sorted(paths, key=_order, reverse=True)


def _order(path: Path) -> tuple[int, bool]:
    """Step, then whether it is the current one of that step."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), match[2] is None


def _walk(node: Any, pointer: str) -> Iterator[tuple[str, Tensor | None]]:
    """Leaves by their JSON pointer (RFC 6901), copied to the CPU; None for an empty dict.

    A pointer starts with a slash, so that no key can collide with safetensors' own "__metadata__".
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str):
                raise TypeError(f"a checkpoint's keys must be strings, got {key!r} below {pointer or 'the top'}")
            yield from _walk(value, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
        if not node:
            yield pointer, None
    elif isinstance(node, Tensor):
        # A contiguous copy of its own: safetensors takes neither strided tensors nor two that share memory.
        yield pointer, node.detach().cpu().clone(memory_format=torch.contiguous_format)
    elif isinstance(node, np.ndarray | np.generic):
        yield pointer, torch.from_numpy(np.array(node, order="C"))
    else:
        raise TypeError(f"a checkpoint holds Tensors and numpy arrays, got a {type(node).__name__} at {pointer!r}")


def _nest(leaves: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """The inverse of `_walk`."""
    nested: dict[str, Any] = {}
    for pointer, leaf in leaves.items():
        keys = [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]
        if not keys:
            continue  # the top itself is empty
        node = nested
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = {} if leaf is None else leaf
    return nested
