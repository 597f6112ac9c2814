"""L2L with a residual attacker: steps that start as soft sign steps and learn a correction."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bilevel import unroll
from l2l_at.attackers import ResidualAttacker
from l2l_at.attacks import evaluating, minus_loss
from l2l_at.data import Batch
from l2l_at.methods.base import Answer, Method
from l2l_experiment.checkpoint import load_optimizer_state, optimizer_state


class L2L(Method):
    """min_θ max_φ CE(f_θ(x + δ_φ(x, ∇)), y), δ by a few steps of a learned rule.

    Our residual form of Jiang et al. (2021), see `ResidualAttacker`. Both players' gradients come from one evaluation
    of the loss: on the batches on which the attacker is fitted, the answer carries the derivative in φ
    (`through="rule"`).
    """

    summary = "learned attacker, residual: soft sign steps plus a learned correction (ours, after Jiang et al., 2021)"

    def __init__(self, config, shape) -> None:
        super().__init__(config, shape)
        self.steps = self.chosen("attack_steps", 2)
        self.random_start = self.chosen("random_start", True)
        self.rule = ResidualAttacker(
            shape[0],
            self.threat.radius,
            self.chosen("attack_size", 0.75) * self.threat.radius,
            width=config.attacker_width,
            sees=config.attacker_sees,
            scale=self.chosen("gradient_scale", "sample"),
        )
        self.learns = self.rule.network is not None and not config.freeze_attacker
        # The attacker goes up the loss that the classifier goes down.
        self.optimizer = (
            torch.optim.Adam(
                self.rule.parameters(), lr=config.attacker_rate, weight_decay=config.attacker_decay, maximize=True
            )
            if self.learns
            else None
        )
        self.batches = 0

    @property
    def attacker(self) -> nn.Module:
        return self.rule

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return self._answer(model, images, labels, through="nothing").detach()

    def loss(self, model: nn.Module, batch: Batch) -> Answer:
        fitting = self._fits_now()
        with evaluating(model):
            delta = self._answer(model, batch.images, batch.labels, through="rule" if fitting else "nothing")
        return Answer(cross_entropy(model(batch.images + delta), batch.labels), delta.detach(), {})

    def improve(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        fitting = self._fits_now()
        self.batches += 1
        if not fitting:
            return {}
        norm = nn.utils.clip_grad_norm_(self.rule.parameters(), max_norm=1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"gradient_norm": float(norm)}

    def _fits_now(self) -> bool:
        return self.learns and self.batches % self.config.attacker_every == 0

    def _answer(self, model: nn.Module, images: Tensor, labels: Tensor, *, through: str) -> Tensor:
        start = self.threat.random_start(images) if self.random_start else torch.zeros_like(images)
        response = unroll(
            minus_loss(model, images, labels),
            self.rule,
            start,
            steps=self.steps,
            state={"images": images},
            project=lambda delta: self.threat.project(delta, images),
            through=through,
        )
        return response.variable

    def state(self) -> tuple[dict, dict]:
        tensors, meta = optimizer_state(self.optimizer) if self.optimizer else ({}, None)
        return {"rule": copy.deepcopy(self.rule.state_dict()), "optimizer": tensors}, {
            "optimizer": meta,
            "batches": self.batches,
        }

    def restore(self, tensors: dict, meta: dict) -> None:
        self.rule.load_state_dict(tensors.get("rule", {}))
        if self.optimizer:
            load_optimizer_state(self.optimizer, tensors["optimizer"], meta["optimizer"])
        self.batches = meta["batches"]
