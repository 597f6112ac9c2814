"""Helpers that let the engine treat one Tensor and a dict of named Tensors alike. Nested dicts are walked too."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Variable = Tensor | dict[str, Tensor]


def map_tensors(function: Callable, tree: Any, *others: Any) -> Any:
    """Apply `function` to the tensors that stand in the same place of every tree; the order is that of `tree`."""
    if isinstance(tree, dict):
        return {key: map_tensors(function, tree[key], *(other[key] for other in others)) for key in tree}
    return function(tree, *others)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in the order of its keys."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    return [tree]


def require_tensors(tree: Any, what: str) -> None:
    """TypeError unless this is a tensor, or nested dicts of tensors."""
    for leaf in leaves(tree):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"{what} must be a tensor, or nested dicts of tensors; it holds a {type(leaf).__name__}")


def rebuild(template: Any, values: list[Tensor]) -> Any:
    """The inverse of `leaves`: the tree `template` with `values` in place of its tensors."""
    remaining = iter(values)
    return map_tensors(lambda _: next(remaining), template)


def flatten(tree: Any) -> Tensor:
    """All entries of a tree in one vector, tensor after tensor."""
    return torch.cat([leaf.flatten() for leaf in leaves(tree)])


def unflatten(template: Any, vector: Tensor) -> Any:
    """The inverse of `flatten`."""
    pieces = vector.split([leaf.numel() for leaf in leaves(template)])
    return rebuild(template, [piece.view_as(leaf) for piece, leaf in zip(pieces, leaves(template), strict=True)])


def detach_tree(tree: Any) -> Any:
    """The same values without any graph behind them."""
    return map_tensors(lambda tensor: tensor.detach(), tree)


def dot(left: Variable, right: Variable) -> Tensor:
    """The inner product of two variables of one structure, shape ()."""
    return sum(leaves(map_tensors(lambda a, b: (a * b).sum(), left, right)))
