"""The residual learned follower: steps that start as soft sign steps and learn a correction."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bilevel import LearnedFollower, SignStep, unroll
from l2l_at.attackers import ResidualAttacker
from l2l_at.attacks import evaluating
from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.methods.base import Follower
from l2l_at.methods.start import StartName, make_start, objective
from l2l_experiment.errors import UserError


class Residual(Follower):
    """δ_φ: `steps` steps of a `ResidualAttacker`, fitted to raise the very loss that the classifier lowers. Our form of
    Jiang et al. (2021). Both players' gradients come from one evaluation of the leader's loss: on every n-th batch
    (`--attacker-every`) the answer carries its derivative in φ (`through="rule"`), the classifier's backward pass fills
    the attacker's gradients too, and `update` goes up with them. With `sign_step` the learned part is only the start
    of a signed step of that many radii, which is not learned (after FGSM-SDI, Jia et al., 2022); that start is the
    network's alone (`soft_sign=False`): after one that is a sign step itself nothing is left to do."""

    def __init__(
        self,
        config: ATConfig,
        channels: int,
        *,
        steps: int = 2,
        size: float = 0.75,
        start: StartName = "last",
        inner: str = "ce",
        every: int = 4,
        sign_step: float = 0.0,
        soft_sign: bool = True,
    ) -> None:
        super().__init__(config)
        self.inner, self.sign_step, self.every = config.inner or inner, sign_step, config.attacker_every or every
        self.start = make_start(config, start, self.inner)
        self.attacker = ResidualAttacker(
            channels,
            self.threat.radius,
            (config.attack_step_size or size) * self.threat.radius,
            width=config.attacker_width,
            sees=config.attacker_sees,
            scale=config.gradient_scale or "sample",
            soft_sign=soft_sign,
        )
        if not soft_sign and self.attacker.network is None:
            raise UserError(f"--attacker-sees must name an input: --method {config.method} learns its network alone")
        self.batches = 0
        scales = [p for p in (self.attacker.log_size, self.attacker.log_sharpness) if p.requires_grad]
        weights = [] if self.attacker.network is None else list(self.attacker.network.parameters())
        # Two numbers have to get far in as many steps as the weights take: each fit sees one batch.
        scale_rate = config.attacker_scale_learning_rate
        groups = [
            {"params": weights, "weight_decay": config.attacker_decay},
            {"params": scales, "lr": 0.03 if scale_rate is None else scale_rate},
        ]
        optimizer = torch.optim.Adam(groups, lr=config.attacker_learning_rate, maximize=True)
        # Its gradients are clipped here, by torch's formula, which differs from the engine's in the last digits.
        self.learner = LearnedFollower(self.attacker, optimizer, steps=config.attack_steps or steps, clip_norm=math.inf)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.answer(model, batch, through="nothing")

    def respond(self, model: nn.Module, batch: Batch) -> Tensor:
        with evaluating(model):
            delta = self.answer(model, batch, through="rule" if self._fits_now() else "nothing")
        self.start.remember(batch, delta)
        return delta

    def update(self, model: nn.Module, batch: Batch) -> dict[str, float | Tensor]:
        fitting = self._fits_now()
        self.batches += 1
        if not fitting:
            return {}
        norm = nn.utils.clip_grad_norm_(self.attacker.parameters(), max_norm=1.0)
        self.learner.step()
        rule, figures = self.attacker, {"gradient_norm": norm}
        if rule.soft_sign:
            figures["size"] = rule.size / self.threat.radius * rule.log_size.detach().exp()
            figures["sharpness"] = rule.log_sharpness.detach().exp()
        return figures

    def _fits_now(self) -> bool:
        return not self.config.freeze_attacker and self.batches % self.every == 0

    def answer(self, model: nn.Module, batch: Batch, *, through: str) -> Tensor:
        """Perturbations with a derivative in φ (`through="rule"`), or with none ("nothing")."""
        inner, images = objective(self.inner, model, batch), batch.images
        kwargs = {"project": partial(self.threat.project, images=images), "through": through}
        delta = unroll(inner, self.attacker.on(images), self.start(batch), steps=self.learner.steps, **kwargs).variable
        if self.sign_step:
            delta = unroll(inner, SignStep(self.sign_step * self.threat.radius), delta, steps=1, **kwargs).variable
        return delta

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.batches = state["batches"]
