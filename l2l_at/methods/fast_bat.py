"""FAST-BAT: one gradient step whose dependence on the classifier is kept (Zhang et al., 2022)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bilevel import GradientStep, implicit, scaled_identity, unroll
from bilevel.response import Objective
from l2l_at.attacks import minus_loss
from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.methods.base import Follower

TOLERANCE = 1e-7  # of the published code: nearer to its bound than this, a coordinate is active


class FastBAT(Follower):
    """δ* = P(z − η·∇ℓ(z)), ℓ = −Σ CE: the answer to ℓ linearised at z plus a proximal term, with its derivative in θ.

    z is a plain gradient step of η from a random start. The derivative is −(1/λ)·∇_θ∇_δ ℓ(z) on the coordinates that
    are not at their bounds. If λ = 1/η that is the derivative of the step itself (`unroll(..., through="everything")`);
    the published code takes λ = 10 and η = 5000/255 (ε ≤ 8/255) or 2000/255, so that its derivative is damped against
    its own step (`implicit` with a masked multiple of the identity). Both are settings here: `--bat-step-size` is η and
    `--bat-lambda` is λ, 0 for 1/η. η presumes summed losses and pixels in [0, 1]. Training mode throughout."""

    def __init__(self, config: ATConfig) -> None:
        super().__init__(config)
        default = 5000 / 255 if self.threat.radius <= 8 / 255 + 1e-9 else 2000 / 255
        self.step_size = config.bat_step_size or default

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        objective, start = minus_loss(model, *batch[:2]), self.threat.random_start(batch.images)
        return self._descend(objective, start, batch.images, steps=2)

    def respond(self, model: nn.Module, batch: Batch) -> Tensor:
        objective, images = minus_loss(model, *batch[:2]), batch.images
        point = self._descend(objective, self.threat.random_start(images), images)
        if not self.config.bat_lambda:
            return self._descend(objective, point, images, through="everything")
        at = point.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(at), at, create_graph=True)
        answer = self.threat.project(at.detach() - self.step_size * gradient.detach(), images)
        low, high = -images.clamp(max=self.threat.radius), (1 - images).clamp(max=self.threat.radius)
        free = ((answer > low + TOLERANCE) & (answer < high - TOLERANCE)).to(answer.dtype)
        # The proximal term's gradient does not depend on the classifier, so the linear part is all there is to solve.
        solver = scaled_identity(1 / self.config.bat_lambda, mask=free)
        return implicit(lambda delta: (gradient * delta).sum(), answer, solver)

    def _descend(self, objective: Objective, start: Tensor, images: Tensor, steps: int = 1, **kwargs: Any) -> Tensor:
        rule, project = GradientStep(self.step_size), partial(self.threat.project, images=images)
        return unroll(objective, rule, start, steps=steps, project=project, **kwargs).variable
