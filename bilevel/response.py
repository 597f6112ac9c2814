"""What the follower answers, and how the answer differentiates.

The answer's autograd history *is* the chosen approximation of the best-response Jacobian, so that the leader only
writes `loss(response.variable).backward()`."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bilevel.rules import State, UpdateRule
from bilevel.tree import Variable, detach_tree, leaves, map_tensors, rebuild, require_tensors

Objective = Callable[[Variable], Tensor]
Projection = Callable[[Variable], Variable]


class Response(NamedTuple):
    """A follower's answer."""

    variable: Variable
    """The answer itself; its autograd history is the chosen derivative."""
    state: State
    """The rule's memory, to carry on or to drop."""
    trace: Tensor
    """The objective at each point visited before the answer, shape (steps,), without a graph."""


def unroll(
    objective: Objective,
    rule: UpdateRule,
    start: Variable,
    *,
    steps: int,
    state: State = None,
    project: Projection | None = None,
    through: Literal["nothing", "rule", "everything"] = "nothing",
) -> Response:
    """Take `steps` steps of `rule` downhill on `objective(variable)`, projecting after each.

    `through` chooses the derivative that the answer carries:

    - `nothing`: none (PGD, or any leader that cannot differentiate). The cheapest.
    - `rule`: through the steps with their gradients treated as data. Fits a learned rule (Jiang et al., 2021). Not for
      a hypergradient: it drops the objective's dependence on the leader.
    - `everything`: through the gradients too, the unrolled hypergradient (Maclaurin et al., 2015). One step with
      `GradientStep` is FAST-BAT (Zhang et al., 2022). Memory grows with `steps`; a rule that takes signs keeps nothing.

    `objective` must return a scalar that depends on every tensor of the variable. `start` and `state` keep their own
    history under `rule` and `everything`. Nothing is stored between calls. Raises ValueError for a negative `steps`, an
    unknown `through`, a `start` without tensors and an objective of another kind; TypeError for what is no tensor;
    RuntimeError within `torch.inference_mode()`."""
    require_tensors(start, "the variable")
    if not leaves(start):
        raise ValueError("the variable holds no tensors")
    if not hasattr(steps, "__index__") or steps < 0:
        raise ValueError(f"steps must be a whole number, 0 or more, got {steps!r}")
    if through not in ("nothing", "rule", "everything"):
        raise ValueError(f"through must be 'nothing', 'rule' or 'everything', not {through!r}")
    variable, trace = start, []
    state = rule.init(detach_tree(start)) if state is None else state
    require_tensors(state, "the rule's memory")
    if through == "nothing":
        variable, state = detach_tree(variable), detach_tree(state)
    for _ in range(steps):
        value, gradient = value_and_gradient(objective, variable, differentiable=through == "everything")
        with torch.set_grad_enabled(through != "nothing"):
            step, state = rule.update(gradient, state, variable)
            variable = map_tensors(torch.add, variable, step)
            if project is not None:
                variable = project(variable)
        trace.append(value.detach())
    return Response(variable, state, torch.stack(trace) if trace else leaves(start)[0].new_zeros(0))


def value_and_gradient(objective: Objective, variable: Variable, *, differentiable: bool) -> tuple[Tensor, Variable]:
    """The objective and its gradient at `variable`; the gradient is data unless `differentiable`."""
    _require_gradients()
    with torch.enable_grad():
        if differentiable:
            point = map_tensors(lambda v: v if v.requires_grad else v.detach().requires_grad_(), variable)
        else:
            point = map_tensors(lambda v: v.detach().requires_grad_(), variable)
        value = objective(point)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"the objective must return a scalar tensor, got {got}")
        if not value.requires_grad:
            raise ValueError("the objective does not depend on the variable, or cuts the gradient")
        gradients = torch.autograd.grad(value, leaves(point), create_graph=differentiable, allow_unused=True)
        if any(gradient is None for gradient in gradients):
            raise ValueError("the objective does not depend on every tensor of the variable")
    return value, rebuild(variable, list(gradients))


def _require_gradients() -> None:
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode() forbids gradients, which a response needs; use torch.no_grad()")


def implicit(objective: Objective, solution: Variable, solve: Callable) -> Variable:
    """Return `solution` unchanged, with a backward pass by the implicit function theorem.

    At a stationary point ∇objective = 0 the response's derivative is −H⁻¹ ∂∇objective, with H the Hessian at
    `solution`. `solve(matvec, b)` from `bilevel.solvers` answers H x = b. `objective` must be twice differentiable in
    the variable. Gives first derivatives only. Not for a solution far from stationary: the derivative is then biased,
    and nothing warns of it. RuntimeError within `torch.inference_mode()`."""
    _require_gradients()
    point = map_tensors(lambda v: v.detach().requires_grad_(), solution)
    with torch.enable_grad():
        gradients = torch.autograd.grad(objective(point), leaves(point), create_graph=True)

    def inverse_hessian(cotangents: list[Tensor]) -> list[Tensor]:
        def matvec(vector: Variable) -> Variable:
            products = torch.autograd.grad(
                gradients, leaves(point), leaves(vector), retain_graph=True, materialize_grads=True
            )
            return rebuild(point, list(products))

        return leaves(solve(matvec, rebuild(point, cotangents)))

    # d(answer) = -H^-1 d(gradient): the answer is `point` minus a function of `gradients` whose value is zero and whose
    # backward pass is the solve. `point` is a leaf of its own, so nothing but the leader is reached through them.
    with torch.enable_grad():  # as `unroll` does, whatever the caller's mode
        return rebuild(point, list(_ImplicitGradient.apply(inverse_hessian, *leaves(detach_tree(point)), *gradients)))


class _ImplicitGradient(torch.autograd.Function):
    """Forward: `solution`. Backward: the cotangents times −H⁻¹, passed to the gradients of the objective there."""

    @staticmethod
    def forward(ctx: Any, inverse_hessian: Callable, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.inverse_hessian = inverse_hessian
        half = len(tensors) // 2
        return tuple(value.clone() for value in tensors[:half])

    @staticmethod
    @once_differentiable  # the solve leaves no graph: a second derivative would be silently wrong
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        solved = ctx.inverse_hessian(list(cotangents))
        return (None, *(None for _ in cotangents), *(-vector for vector in solved))


def detach(response: Response) -> Response:
    """Cut every graph: the only way to carry a response on to the next round without keeping this one alive."""
    return Response(detach_tree(response.variable), detach_tree(response.state), response.trace)
