"""A learned follower: an update rule with weights, and the fit of those weights."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from bilevel.response import Objective, Projection, Response, detach, unroll
from bilevel.rules import State, UpdateRule
from bilevel.tree import Variable, flatten, map_tensors


class LearnedFollower:
    """A learned update rule and its optimiser (Jiang et al., 2021: the follower's step is itself a network).

    `rule` is an `UpdateRule` that is also an `nn.Module`; `optimizer` holds the rule's parameters; `steps` (at least 1)
    is how many steps an answer takes; gradients of the rule are clipped to the norm `clip_norm`. `skipped` counts the
    fits whose score or gradient was not finite and which therefore left the rule as it was."""

    def __init__(
        self, rule: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int, clip_norm: float = 1.0
    ) -> None:
        if steps < 1:
            raise ValueError(f"a learned follower takes at least 1 step, got {steps}")
        if not clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, got {clip_norm}")
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if not any(id(weight) in held for weight in rule.parameters()):
            raise ValueError("the optimizer holds no parameter of the rule, which would never learn")
        self.rule, self.optimizer, self.steps, self.clip_norm = rule, optimizer, steps, clip_norm
        self.skipped = 0

    def respond(
        self, objective: Objective, start: Variable, *, state: State = None, project: Projection | None = None
    ) -> Response:
        """The detached answer for the leader."""
        return unroll(objective, self.rule, start, steps=self.steps, state=state, project=project)

    @torch.enable_grad()
    def fit(
        self,
        objectives: Sequence[Objective],
        start: Variable,
        *,
        state: State = None,
        project: Projection | None = None,
        score: Literal["final", "mean"] = "final",
        rule: UpdateRule | None = None,
    ) -> tuple[Response, dict[str, float]]:
        """Answer, then take one optimiser step on the rule's weights to lower the score of that answer.

        `objectives` are `steps + 1` scalar functions of the variable: step k goes down the k-th, and the point it
        reaches is scored on the next one, which step k has not seen. `final` scores the last point only, `mean` all.
        `rule` is the learned rule together with what it looks at besides its arguments, where that changes from call to
        call (an attacker and the images it is shown); its weights must be those of `self.rule`. Whatever history
        `start` and `state` bring is cut: the fit sees its own steps only. The returned response is detached, made with
        the rule as it was before this fit, and can be committed as it is; after a skipped fit look first whether it is
        finite itself. The figures are `score`, `gradient_norm` (before clipping), `skipped` (1.0 if the fit was not
        applied) and `last_step`, the Euclidean length of the last step."""
        objectives = list(objectives)
        if len(objectives) != self.steps + 1:
            raise ValueError(f"fit needs steps + 1 = {self.steps + 1} objectives, got {len(objectives)}")
        if score not in ("final", "mean"):
            raise ValueError(f"score must be 'final' or 'mean', not {score!r}")
        rule = rule or self.rule
        state = rule.init(start) if state is None else state
        response, trace, scores = detach(Response(start, state, torch.empty(0))), [], []
        for step, objective in enumerate(objectives[:-1]):
            before = response.variable
            response = unroll(
                objective, rule, response.variable, steps=1, state=response.state, project=project, through="rule"
            )
            trace.append(response.trace)
            if score == "mean" or step == self.steps - 1:
                scores.append(objectives[step + 1](response.variable))
        total = torch.stack(scores).mean()
        parameters = [p for p in self.rule.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, parameters, materialize_grads=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.where(total.isfinite(), gradient, torch.nan)
        norm, applied = self.step()
        moved = map_tensors(lambda new, old: (new - old).detach(), response.variable, before)
        told = (one.detach().to(norm.device, torch.float64) for one in (total, norm, flatten(moved).norm()))
        # Together, so that a GPU is waited for once.
        figures = dict(zip(("score", "gradient_norm", "last_step"), torch.stack([*told]).tolist(), strict=True))
        return detach(response._replace(trace=torch.cat(trace))), figures | {"skipped": float(not applied)}

    def step(self) -> tuple[torch.Tensor, bool]:
        """Clip the gradients that the rule's weights hold, take an optimiser step with them and clear them.

        Returns their norm before clipping, shape (), and whether the step was taken: it is not if the norm is NaN or
        infinite."""
        gradients = [p.grad for p in self.rule.parameters() if p.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        applied = bool(norm.isfinite())
        if applied:
            # Not `clip_grad_norm_`: its 1e-6 beside the norm would change every clipped fit's digits.
            scale = (self.clip_norm / (norm + 1e-12)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(scale)
            self.optimizer.step()
        else:
            self.skipped += 1
        self.optimizer.zero_grad(set_to_none=True)
        return norm, applied

    def state_dict(self) -> dict[str, Any]:
        """The rule's weights, its optimiser's memory and the count of skipped fits."""
        return {"rule": self.rule.state_dict(), "optimizer": self.optimizer.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rule.load_state_dict(state["rule"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.skipped = int(state["skipped"])
