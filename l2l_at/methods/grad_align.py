"""GradAlign: one signed step, and a penalty on gradients that turn inside the ball (Andriushchenko et al., 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.methods.base import Follower


class GradAlign(Follower):
    """Both players of GradAlign: `respond` is FGSM from zero, `leader` adds λ·(1 − mean cos(∇(x), ∇(x + η))).
    η is uniform in the ball. The gradient at x is a constant, and it is the one that FGSM's step was made of; that at
    x + η is differentiated twice. λ is 0.2·10^((255 ε − 8)/8), which is the published table for radii from 2/255 to
    16/255, and 2, its last entry, beyond. Training mode throughout, as published."""

    def __init__(self, config: ATConfig) -> None:
        super().__init__(config)
        table = 0.2 * 10 ** ((255 * self.threat.radius - 8) / 8)
        self.strength = min(table, 2.0) if config.regularisation is None else config.regularisation
        self.gradient: Tensor | None = None

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.step(input_gradient(model, *batch[:2]), batch.images)

    def respond(self, model: nn.Module, batch: Batch) -> Tensor:
        self.gradient = input_gradient(model, *batch[:2])
        return self.step(self.gradient, batch.images)

    def step(self, gradient: Tensor, images: Tensor) -> Tensor:
        return self.threat.project(self.threat.radius * gradient.sign(), images)

    def leader(self, model: nn.Module, batch: Batch, delta: Tensor) -> Tensor:
        noise = torch.empty_like(batch.images).uniform_(-self.threat.radius, self.threat.radius)  # not cut to the box
        turned = input_gradient(model, batch.images + noise, batch.labels, differentiable=True)
        aligned = functional.cosine_similarity(self.gradient.flatten(1), turned.flatten(1), dim=1)
        loss = functional.cross_entropy(model(batch.images + delta), batch.labels)
        return loss + self.strength * (1 - aligned.mean())


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor, *, differentiable: bool = False) -> Tensor:
    """The gradient of each sample's cross-entropy in its image, shape of the images."""
    point = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = functional.cross_entropy(model(point), labels, reduction="sum")
        return torch.autograd.grad(loss, point, create_graph=differentiable)[0]
