"""How a gradient becomes a step: the update rules that a follower may use.

A rule is a pure pair `init`/`update`, so that hand-designed and learned rules look the same from outside. `update` returns
the step to *add* to the variable; the hand-designed rules here all go downhill.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from bilevel._tree import Variable, map_tensors

State = Any


class UpdateRule(Protocol):
    """One player's step."""

    def init(self, variable: Variable) -> State:
        """Fresh memory (momenta, step count) for `variable`: nested dicts of Tensors, possibly empty."""

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        """The step to add to `variable`, and the next memory. Pure: nothing is edited in place."""


@dataclass(frozen=True)
class GradientStep:
    """Plain gradient descent, step −rate·g."""

    rate: float

    def init(self, variable: Variable) -> State:
        return {}

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        return map_tensors(lambda g: -self.rate * g, gradient), state


@dataclass(frozen=True)
class SignStep:
    """Step −size·sign(g), as in PGD (Madry et al., 2018). Its derivative with respect to g is zero everywhere: an answer
    differentiated through it keeps nothing of the gradient."""

    size: float

    def init(self, variable: Variable) -> State:
        return {}

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        return map_tensors(lambda g: -self.size * g.sign(), gradient), state


@dataclass(frozen=True)
class SteepestStep:
    """Steepest descent in an ℓ∞, ℓ2 or ℓ1 ball of radius `size` (Shaham et al., 2015).

    A Tensor's first dimension counts samples, and each sample has a ball of its own. A zero gradient gives a zero step.
    Not for weights: a weight matrix has no sample dimension.
    """

    norm: Literal["linf", "l2", "l1"]
    size: float

    def init(self, variable: Variable) -> State:
        return {}

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        return map_tensors(self._step, gradient), state

    def _step(self, gradient: Tensor) -> Tensor:
        if self.norm == "linf":
            return -self.size * gradient.sign()
        flat = gradient.flatten(1)
        if self.norm == "l2":
            length = flat.norm(dim=1, keepdim=True)
            unit = flat / torch.where(length > 0, length, torch.ones_like(length))
        elif self.norm == "l1":
            largest = flat.abs().argmax(dim=1, keepdim=True)
            unit = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
        else:
            raise ValueError(f"norm must be 'linf', 'l2' or 'l1', not {self.norm!r}")
        return -self.size * unit.view_as(gradient)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015), in the form of torch.optim.Adam without weight decay."""

    rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def init(self, variable: Variable) -> State:
        return {
            "count": torch.zeros((), dtype=torch.float64),
            "mean": map_tensors(torch.zeros_like, variable),
            "square": map_tensors(torch.zeros_like, variable),
        }

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        count = state["count"] + 1
        mean = map_tensors(lambda m, g: m.lerp(g, 1 - self.betas[0]), state["mean"], gradient)
        square = map_tensors(
            lambda v, g: torch.addcmul(v * self.betas[1], g, g, value=1 - self.betas[1]), state["square"], gradient
        )
        step = map_tensors(lambda m, v: -self.rate * adam_direction(m, v, count, self.betas, self.eps), mean, square)
        return step, {"count": count, "mean": mean, "square": square}


def adam_direction(mean: Tensor, square: Tensor, count: Tensor, betas: tuple[float, float], eps: float) -> Tensor:
    """Bias-corrected mean over bias-corrected root mean square: Adam's step for a rate of −1, shape of `mean`."""
    step = float(count)
    return mean / (1 - betas[0] ** step) / (square.sqrt() / (1 - betas[1] ** step) ** 0.5 + eps)
