"""Helpers that let the engine treat one Tensor and a dict of named Tensors alike. Nested dicts are walked too."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Variable = Tensor | dict[str, Tensor]


def map_tensors(function: Callable, tree: Any, *others: Any) -> Any:
    """Apply `function` to the tensors that stand in the same place of every tree."""
    if isinstance(tree, dict):
        return {key: map_tensors(function, tree[key], *(other[key] for other in others)) for key in tree}
    return function(tree, *others)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in the order of its keys."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    return [tree]


def rebuild(template: Any, values: list[Tensor]) -> Any:
    """The inverse of `leaves`: the tree `template` with `values` in place of its tensors."""
    remaining = iter(values)
    return map_tensors(lambda _: next(remaining), template)


def detach_tree(tree: Any) -> Any:
    """The same values without any graph behind them."""
    return map_tensors(lambda tensor: tensor.detach(), tree)


def dot(left: Variable, right: Variable) -> Tensor:
    """The inner product of two variables of one structure, shape ()."""
    return sum((a * b).sum() for a, b in zip(leaves(left), leaves(right), strict=True))
