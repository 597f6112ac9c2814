"""L2L in its published forms: naive, grad, 2-step and k-step (Jiang et al., 2021; details from the published code)."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bilevel import LearnedFollower
from bilevel.response import Objective
from l2l_at.attackers import PUBLISHED, PublishedAttacker, tiny
from l2l_at.attacks import evaluating
from l2l_at.data import Batch
from l2l_at.methods.base import Answer, Method
from l2l_experiment.checkpoint import load_optimizer_state, optimizer_state
from l2l_experiment.errors import UserError


class L2LGrad(Method):
    """min_θ max_φ CE(f_θ(x + δ_φ), y) with δ = ε·tanh(g_φ([x, ∇/max|∇|])): one step of full reach from zero.

    Order and modes as published. The classifier steps first, in training mode (its input gradient too), against the
    attacker in evaluation mode; then the attacker steps on the same batch, in training mode, against the classifier in
    evaluation mode, with the gradient taken anew. The classifier's loss has no clean part and there is no random start.
    Not inherited: discarded gradients are not computed, and no checkpoint is chosen on test images.
    """

    summary = "learned attacker as published: sees image and gradient, one step (Jiang et al., 2021)"
    steps = 1
    sees_gradient = True
    size = 1.0
    """Reach of one step over the radius."""
    detach_inputs = False

    def __init__(self, config, shape) -> None:
        super().__init__(config, shape)
        if self.threat.norm != "linf":
            raise UserError(f"--method {config.method} as published knows linf only; use l2l for {self.threat.norm}")
        channels = shape[0]
        inputs = 2 * channels if self.sees_gradient else channels
        if config.attacker == "tiny":
            network = tiny(inputs, channels, config.attacker_width, zero_head=False)
        else:
            network = PUBLISHED[config.attacker](inputs, channels)
        self.rule = PublishedAttacker(
            network,
            self.chosen("attack_size", self.size) * self.threat.radius,
            sees_gradient=self.sees_gradient,
            scale=self.chosen("gradient_scale", "batch"),
            detach_inputs=self.detach_inputs,
        )
        self.follower = LearnedFollower(
            self.rule,
            torch.optim.Adam(self.rule.parameters(), lr=config.attacker_rate, weight_decay=config.attacker_decay),
            steps=self.chosen("attack_steps", self.steps),
            clip_norm=math.inf,
        )

    @property
    def attacker(self) -> nn.Module:
        return self.rule

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        self.rule.eval()
        response = self.follower.respond(
            self._inner(model, images, labels),
            torch.zeros_like(images),
            state={"images": images},
            project=self._between_steps(images),
        )
        return self._attacked(images, response.variable) - images

    def loss(self, model: nn.Module, batch: Batch) -> Answer:
        delta = self.perturb(model, batch.images, batch.labels)
        return Answer(cross_entropy(model(batch.images + delta), batch.labels), delta, {})

    def improve(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        if self.config.freeze_attacker:
            return {}
        images, labels = batch.images, batch.labels

        def score(delta: Tensor) -> Tensor:
            return -cross_entropy(model(self._attacked(images, delta)), labels)

        self.rule.train()
        inner = self._inner(model, images, labels)
        with evaluating(model):
            _, figures = self.follower.fit(
                [inner] * self.follower.steps + [score],
                torch.zeros_like(images),
                state={"images": images},
                project=self._between_steps(images),
            )
        return {"loss": -figures["score"], "gradient_norm": figures["gradient_norm"]}

    def _inner(self, model: nn.Module, images: Tensor, labels: Tensor) -> Objective:
        """Minus the loss whose gradient the attacker sees: that of the image cut to [0, 1], but not through the cut."""

        def objective(delta: Tensor) -> Tensor:
            if not self.sees_gradient:
                return delta.sum()  # nobody looks at its gradient
            moved = images + delta
            return -cross_entropy(model(moved + (moved.clamp(0, 1) - moved).detach()), labels)

        return objective

    def _between_steps(self, images: Tensor):
        """What is done to the perturbation after each step: nothing, as published."""
        return None

    def _attacked(self, images: Tensor, delta: Tensor) -> Tensor:
        """The images the classifier is shown: the sum of all steps cut to ball and box, differentiably."""
        return (images + delta.clamp(-self.threat.radius, self.threat.radius)).clamp(0, 1)

    def state(self) -> tuple[dict, dict]:
        tensors, meta = optimizer_state(self.follower.optimizer)
        return {"rule": copy.deepcopy(self.rule.state_dict()), "optimizer": tensors}, {
            "optimizer": meta,
            "skipped": self.follower.skipped,
        }

    def restore(self, tensors: dict, meta: dict) -> None:
        self.rule.load_state_dict(tensors["rule"])
        load_optimizer_state(self.follower.optimizer, tensors["optimizer"], meta["optimizer"])
        self.follower.skipped = meta["skipped"]


class L2LNaive(L2LGrad):
    """The attacker sees the image only: δ = ε·tanh(g_φ(x)); no gradient is computed for it."""

    summary = "learned attacker as published: sees the image only (Jiang et al., 2021)"
    sees_gradient = False


class L2L2Step(L2LGrad):
    """Two steps of full reach with shared weights; the attacker is trained through both, the gradients being data."""

    summary = "learned attacker as published: two steps, trained through both (Jiang et al., 2021)"
    steps = 2


class L2LKStep(L2LGrad):
    """Ten small steps (0.007 for a radius of 0.031); the attacker's inputs are detached at every step."""

    summary = "learned attacker as published: ten small steps, inputs detached (Jiang et al., 2021)"
    steps = 10
    size = 0.007 / 0.031
    detach_inputs = True

    def _between_steps(self, images: Tensor):
        return lambda delta: (images + delta).clamp(0, 1) - images
