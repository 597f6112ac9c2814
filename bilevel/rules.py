"""How a gradient becomes a step: the update rules that a follower may use.

A rule is a pure pair `init`/`update`, so that hand-designed and learned rules look the same from outside. `update`
returns the step to *add* to the variable; the hand-designed rules here all go downhill."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from bilevel.tree import Variable, dot, map_tensors

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
    """Step −size·sign(g), as in PGD (Madry et al., 2018).

    Not for a hypergradient: a sign's derivative is zero, so the answer keeps nothing of the gradient."""

    size: float

    def init(self, variable: Variable) -> State:
        return {}

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        return map_tensors(lambda g: -self.size * g.sign(), gradient), state


@dataclass(frozen=True)
class SteepestStep:
    """Steepest descent in an ℓ∞, ℓ2 or ℓ1 ball of radius `size` (Shaham et al., 2015).

    A Tensor's first dimension counts samples, and each sample has a ball of its own. A zero gradient gives a zero step.
    Not for weights: a weight matrix has no sample dimension."""

    norm: Literal["linf", "l2", "l1"]
    size: float

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2", "l1"):
            raise ValueError(f"norm must be 'linf', 'l2' or 'l1', not {self.norm!r}")

    def init(self, variable: Variable) -> State:
        return {}

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        return map_tensors(self._step, gradient), state

    def _step(self, gradient: Tensor) -> Tensor:
        if self.norm == "linf":
            return -self.size * gradient.sign()
        flat = gradient.flatten(1)
        if self.norm == "l1":
            largest = flat.abs().argmax(dim=1, keepdim=True)
            unit = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
        else:
            # A confident model's gradient can be so small that its square underflows: scale the largest entry to 1.
            largest = flat.abs().amax(dim=1, keepdim=True)
            flat = flat / torch.where(largest > 0, largest, 1)
            unit = flat / flat.norm(dim=1, keepdim=True).clamp(min=1)
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
        mean = running_mean(state["mean"], gradient, self.betas[0])
        square = running_square(state["square"], gradient, self.betas[1])
        direction = adam_direction(mean, square, float(count), self.betas, self.eps)
        return map_tensors(lambda d: -self.rate * d, direction), {"count": count, "mean": mean, "square": square}


@dataclass(frozen=True)
class HypergradientAdam:
    """Adam whose rate goes down the loss, too (Adam-HD; Baydin et al., 2018).

    rate_t = rate_{t−1} + hyper_rate·g_t·d_{t−1}, with d Adam's direction: the step before went −rate·d, so that
    −g_t·d_{t−1} is the derivative of the loss with respect to its rate. `rate` is the one to start from."""

    rate: float
    hyper_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def init(self, variable: Variable) -> State:
        adam = Adam(self.rate, self.betas, self.eps).init(variable)
        rate = torch.tensor(self.rate, dtype=torch.float64)
        return adam | {"rate": rate, "direction": map_tensors(torch.zeros_like, variable)}

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        rate = state["rate"] + self.hyper_rate * dot(gradient, state["direction"]).double()
        adam = {name: state[name] for name in ("count", "mean", "square")}
        direction, adam = Adam(-1.0, self.betas, self.eps).update(gradient, adam, variable)
        step = map_tensors(lambda d: -rate.to(d) * d, direction)
        return step, adam | {"rate": rate, "direction": direction}


def running_mean(mean: Variable, gradient: Variable, beta: float) -> Variable:
    """The exponential average β·mean + (1 − β)·g."""
    return map_tensors(lambda g, m: m.lerp(g, 1 - beta), gradient, mean)


def running_square(square: Variable, gradient: Variable, beta: float) -> Variable:
    """The exponential average β·square + (1 − β)·g²."""
    return map_tensors(lambda g, v: torch.addcmul(v * beta, g, g, value=1 - beta), gradient, square)


def adam_direction(mean: Variable, square: Variable, count: float, betas: tuple[float, float], eps: float) -> Variable:
    """Bias-corrected mean over bias-corrected root mean square: Adam's step for a rate of −1."""
    unbias, unbias_root = 1 - betas[0] ** count, (1 - betas[1] ** count) ** 0.5

    def direction(m: Tensor, v: Tensor) -> Tensor:
        # A square root has no derivative at 0, where the weights of a dead unit stay; `tiny` changes no other digit.
        return m / unbias / ((v + torch.finfo(v.dtype).tiny).sqrt() / unbias_root + eps)

    return map_tensors(direction, mean, square)
