"""Hand-designed followers: projected steepest steps (PGD and its one-step relatives)."""

from typing import Any

import torch
from torch import Tensor, nn

from bilevel import SignStep, unroll
from l2l_at.attacks import apgd, descend, minus_loss, steepest
from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.methods.base import Follower
from l2l_at.methods.start import StartName, make_start, objective


class Steepest(Follower):
    """`steps` projected steepest steps of `size`·radius, from a `Start`. `inner` is what the steps raise: the
    cross-entropy, or the divergence from the clean prediction. With `training` the classifier stays in training mode
    while it is attacked. The configuration may change steps, size, start and `inner`."""

    def __init__(
        self,
        config: ATConfig,
        *,
        steps: int = 10,
        size: float = 0.25,
        start: StartName = "random",
        inner: str = "ce",
        training: bool = False,
    ) -> None:
        super().__init__(config)
        self.steps, self.size = config.attack_steps or steps, config.attack_step_size or size
        self.inner, self.training_mode = config.inner or inner, training
        self.start = make_start(config, start, self.inner)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        inner, start = objective(self.inner, model, batch), self.start(batch)
        return descend(inner, start, batch.images, self.threat, steps=self.steps, size=self.size)


class AutoPGD(Follower):
    """Auto-PGD: steps that halve by themselves. The configuration may change steps, start and `inner`."""

    def __init__(self, config: ATConfig, *, steps: int = 10) -> None:
        super().__init__(config)
        self.steps, self.inner = config.attack_steps or steps, config.inner or "ce"
        self.start = make_start(config, "random", self.inner)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        inner, start = objective(self.inner, model, batch, per_sample=True), self.start(batch)
        return apgd(inner, start, batch.images, self.threat, steps=self.steps)


class Nothing(Follower):
    """No perturbation."""

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.images)


class Noisy(Follower):
    """N-FGSM (de Jorge et al., 2022): uniform noise of k times the radius, then one signed step, not cut to the ball.
    Noise and step are each cut to the box [0, 1] alone, so perturbations reach (k + 1) radii. The gradient is taken at
    the noisy image, in training mode, as in the published code."""

    training_mode = True

    def __init__(self, config: ATConfig) -> None:
        super().__init__(config)
        self.noise, self.size = config.noise or 2.0, config.attack_step_size or 1.0

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        images, reach = batch.images, self.noise * self.threat.radius

        def boxed(delta: Tensor) -> Tensor:
            return (images + delta).clamp(0, 1) - images

        noise = boxed(torch.empty_like(images).uniform_(-reach, reach))
        rule = SignStep(self.size * self.threat.radius)
        return unroll(minus_loss(model, images, batch.labels), rule, noise, steps=1, project=boxed).variable


class Free(Follower):
    """Free adversarial training (Shafahi et al., 2019): the perturbation steps on the classifier's own backward pass.
    A batch is seen several times in a row; the perturbation lives on, over replays and over batches. It is projected
    before the loss, not inside its graph (the published code cuts to [0, 1] inside, which hides gradients there)."""

    single_process = True

    def __init__(self, config: ATConfig) -> None:
        super().__init__(config)
        self.size = config.attack_step_size or 1.0
        self.kept: Tensor | None = None
        self.leaf: Tensor | None = None

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        """One step from zero: for images that are not the batch at hand there is nothing to go on from."""
        start = torch.zeros_like(batch.images)
        return descend(minus_loss(model, *batch[:2]), start, batch.images, self.threat, steps=1, size=self.size)

    def respond(self, model: nn.Module, batch: Batch) -> Tensor:
        kept = torch.zeros_like(batch.images) if self.kept is None else self.kept.to(batch.images.device)
        self.leaf = self.threat.project(kept, batch.images).requires_grad_()
        return self.leaf

    def update(self, model: nn.Module, batch: Batch) -> dict[str, float | Tensor]:
        rule = steepest(self.threat, self.size, batch.images)
        up, _ = rule.update(-self.leaf.grad, {}, self.leaf)  # the leader goes down this loss
        self.kept, self.leaf = self.threat.project(self.leaf.detach() + up, batch.images), None
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]
