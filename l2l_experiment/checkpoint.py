"""Checkpoints: a tree of values in a folder that appears whole or not at all, and opens without unpickling anything.

A checkpoint is `checkpoints/step_000123456/` with `tensors.safetensors`, `meta.json` and `SHA256SUMS`, the checksums of
both as `sha256sum -c` reads them. Its tree may hold dicts (keys strings or integers), lists, tuples, Tensors, numpy
arrays, numbers, strings, booleans and None: what `state_dict` of a module or an optimiser returns, and more."""

import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from l2l_experiment.errors import UserError
from l2l_experiment.files import sync

FORMAT = 3  # 2 had no checksums
CHECKPOINTS = "checkpoints"  # the folder in a run's folder
META, TENSORS, SUMS = "meta.json", "tensors.safetensors", "SHA256SUMS"
_NAME = re.compile(r"step_(\d+)(\.replaced)?")
_KINDS = {"list": list, "tuple": tuple}


def save(folder: Path | str, tree: Any, step: int) -> Path:
    """Write a checkpoint of `step`, at least 0, and return its folder.

    Keeps this checkpoint and the one before it. Deletes older ones, and those of later steps, which a resumed run will
    make again. One process at a time may save. TypeError for a tree that holds
    anything else than the above, UserError if it cannot be written."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"format": FORMAT, "step": step, "tree": _describe(tree, tensors)})
    parts = {META: text.encode(), TENSORS: safetensors.torch.save(tensors)}
    root = Path(folder) / CHECKPOINTS
    target = root / f"step_{step:09d}"
    temporary = root / f".tmp_{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, data in (parts | {SUMS: _sums(parts)}).items():
            (temporary / name).write_bytes(data)
        for path in (*temporary.iterdir(), temporary):
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
    kept = [path for path in _found(root) if path == target or _order(path) < (step, False)][:2]
    for path in {*_found(root), *root.glob(".tmp_*")} - {*kept}:
        shutil.rmtree(path, ignore_errors=True)
    return target


def exists(folder: Path | str) -> bool:
    """Whether a run has saved any checkpoint, usable or not."""
    return bool(_found(Path(folder) / CHECKPOINTS))


def latest(folder: Path | str) -> Any:
    """The tree of the newest usable checkpoint, its tensors on the CPU.

    A damaged one is passed over with a warning on stderr; UserError if none can be used."""
    root = Path(folder) / CHECKPOINTS
    candidates = _found(root)
    for path in candidates:
        try:
            # Read, not memory-mapped: the file may be deleted while the tensors live.
            parts = {name: (path / name).read_bytes() for name in (META, TENSORS)}
            if not (path / SUMS).exists():
                _require_format(json.loads(parts[META]), path)
            if (path / SUMS).read_bytes() != _sums(parts):
                raise ValueError(f"its content does not have the checksums in {SUMS}")
            meta = json.loads(parts[META])
            _require_format(meta, path)
            if meta["step"] != _order(path)[0]:
                raise ValueError(f"it says that it is of step {meta['step']!r}")
            return _build(meta["tree"], safetensors.torch.load(parts[TENSORS]))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            print(f"warning: passing over the damaged checkpoint {path} ({error})", file=sys.stderr)
    what = "only damaged checkpoints" if candidates else "no checkpoint"
    raise UserError(f"there is {what} in {root}; name the folder of a run that saved one, or start a new run")


def check_compatible(found: Any, own: Any, where: str = "") -> None:
    """ValueError, which names the place, unless a tree fits the one that it is to replace: arrays of the same shape,
    whole numbers of the same sign. What one of them lacks is not compared: an optimiser starts without moments."""
    place = where or "the state"
    if isinstance(own, dict) and isinstance(found, dict):
        for key in own.keys() & found.keys():
            check_compatible(found[key], own[key], f"{where}/{key}")
    elif isinstance(own, list | tuple) and isinstance(found, list | tuple):
        for index, (theirs, ours) in enumerate(zip(found, own, strict=False)):
            check_compatible(theirs, ours, f"{where}/{index}")
    elif isinstance(own, Tensor | np.ndarray):
        if found is not None and 0 not in own.shape and getattr(found, "shape", None) != own.shape:
            raise ValueError(f"{place} has another shape than {tuple(own.shape)}")
    elif type(own) is int and found is not None and (type(found) is not int or found < min(own, 0)):
        raise ValueError(f"{place} is {found!r}, which is no count")


def _sums(parts: Mapping[str, bytes]) -> bytes:
    """The content of SHA256SUMS."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in parts.items()).encode()


def _require_format(meta: Mapping[str, Any], path: Path) -> None:
    """UserError if a checkpoint is whole, but of another version."""
    if meta["format"] != FORMAT:
        other = "l2l 0.1" if meta["format"] == 1 else f"another version (format {meta['format']!r}, not {FORMAT})"
        raise UserError(f"{path} was written by {other}; open it with that version")


def _found(root: Path) -> list[Path]:
    """Folders of checkpoints, newest first."""
    return sorted((path for path in root.glob("*") if _NAME.fullmatch(path.name)), key=_order, reverse=True)


def _order(path: Path) -> tuple[int, bool]:
    """Step, then whether it is the current one of that step."""
    step, replaced = _NAME.fullmatch(path.name).groups()
    return int(step), replaced is None


def _describe(node: Any, tensors: dict[str, Tensor], where: str = "") -> list[Any]:
    """A node as `[what it is, content]`, so that tuples come back as tuples and integer keys as integers; its tensors
    go into `tensors`, by their place in the tree."""
    if isinstance(node, Tensor | np.ndarray):
        # A contiguous copy of its own: safetensors takes neither strided tensors nor two that share memory.
        array, name = isinstance(node, np.ndarray), where or "/"
        kept = torch.from_numpy(np.array(node, order="C")) if array else node.detach().cpu()
        tensors[name] = kept.clone(memory_format=torch.contiguous_format)
        return ["array" if array else "tensor", name]
    if isinstance(node, dict):
        if wrong := [key for key in node if type(key) not in (str, int)]:
            raise TypeError(f"a state's keys must be strings or integers, not {wrong[0]!r}")
        return ["dict", [[key, _describe(value, tensors, f"{where}/{key!r}")] for key, value in node.items()]]
    if isinstance(node, list | tuple):
        items = [_describe(value, tensors, f"{where}/{i}") for i, value in enumerate(node)]
        return ["list" if isinstance(node, list) else "tuple", items]
    if isinstance(node, np.generic):
        node = node.item()
    if node is None or isinstance(node, bool | int | float | str):
        return ["value", node]
    raise TypeError(f"cannot keep a {type(node).__name__} in a checkpoint: {node!r}")


def _build(description: list[Any], tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_describe`."""
    kind, content = description
    if kind in ("tensor", "array"):
        return tensors[content] if kind == "tensor" else tensors[content].numpy().copy()
    if kind == "dict":
        return {key: _build(value, tensors) for key, value in content}
    return _KINDS[kind](_build(value, tensors) for value in content) if kind in _KINDS else content
