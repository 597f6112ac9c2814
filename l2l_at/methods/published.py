"""L2L's followers in their published forms: naive, grad, 2-step and k-step (Jiang et al., 2021)."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bilevel import LearnedFollower, unroll
from bilevel.response import Objective
from l2l_at import parallel
from l2l_at.attackers import PUBLISHED, PublishedAttacker, tiny
from l2l_at.attacks import evaluating
from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.methods.base import Follower


class Published(Follower):
    """δ_φ: `steps` steps ε·size·tanh(g_φ([x + δ, ∇/max|∇|])) from zero; their sum is cut to ball and box. Order and
    modes as in the published code. The classifier steps first, in training mode (its input gradient too), against the
    attacker in evaluation mode; then the attacker steps on the same batch, in training mode, against the classifier in
    evaluation mode, with the gradient taken anew. The attacker is trained through all steps; gradients are data. Naive:
    `sees_gradient=False`. k-step: `detach_inputs`, and each step is cut to the box. Not inherited: gradients that are
    computed and discarded, and the division by a vanishing gradient."""

    training_mode = True

    def __init__(
        self,
        config: ATConfig,
        channels: int,
        *,
        steps: int = 1,
        size: float = 1.0,
        sees_gradient: bool = True,
        detach_inputs: bool = False,
    ) -> None:
        super().__init__(config)
        inputs = 2 * channels if sees_gradient else channels
        networks = PUBLISHED | {"tiny": partial(tiny, width=config.attacker_width, zero_head=False)}
        self.attacker = PublishedAttacker(
            networks[config.attacker](inputs, channels),
            (config.attack_step_size or size) * self.threat.radius,
            sees_gradient=sees_gradient,
            scale=config.gradient_scale or "batch",
            detach_inputs=detach_inputs,
        )
        rate, decay = config.attacker_learning_rate, config.attacker_decay
        optimizer = torch.optim.Adam(self.attacker.parameters(), lr=rate, weight_decay=decay)
        self.learner = LearnedFollower(self.attacker, optimizer, steps=config.attack_steps or steps, clip_norm=math.inf)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        images, inner = batch.images, self._inner(model, *batch[:2])
        self.attacker.eval()
        start, steps = torch.zeros_like(images), self.learner.steps
        response = unroll(inner, start=start, steps=steps, **self._on(images))
        return self._attacked(images, response.variable) - images

    def update(self, model: nn.Module, batch: Batch) -> dict[str, float | Tensor]:
        if self.config.freeze_attacker:
            return {}
        images, labels = batch.images, batch.labels

        def score(delta: Tensor) -> Tensor:
            own = -cross_entropy(model(self._attacked(images, delta)), labels)
            return own + (parallel.mean(own) - own.detach())  # in value that of all processes, which decide alike

        self.attacker.train()
        objectives = [self._inner(model, images, labels)] * self.learner.steps + [score]
        with evaluating(model):
            _, figures = self.learner.fit(objectives, torch.zeros_like(images), **self._on(images))
        return {"loss": -figures["score"], "gradient_norm": figures["gradient_norm"]}

    def _inner(self, model: nn.Module, images: Tensor, labels: Tensor) -> Objective:
        """Minus the loss whose gradient the attacker sees: that of the image cut to [0, 1], but not through the cut."""

        def objective(delta: Tensor) -> Tensor:
            if not self.attacker.sees_gradient:
                return delta.sum()  # nobody looks at its gradient
            moved = images + delta
            return -cross_entropy(model(moved + (moved.clamp(0, 1) - moved).detach()), labels)

        return objective

    def _on(self, images: Tensor) -> dict[str, Any]:
        """The attacker as a rule, and what is done to perturbations between steps: a cut, in the k-step form alone."""

        def boxed(delta: Tensor) -> Tensor:
            return (images + delta).clamp(0, 1) - images

        return {"rule": self.attacker.on(images), "project": boxed if self.attacker.detach_inputs else None}

    def _attacked(self, images: Tensor, delta: Tensor) -> Tensor:
        """The images the classifier is shown: the sum of all steps cut to ball and box, differentiably."""
        return (images + delta.clamp(-self.threat.radius, self.threat.radius)).clamp(0, 1)
