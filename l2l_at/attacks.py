"""Hand-designed attacks, written with the engine; they drive training and probes, never a reported figure."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softmax

from bilevel import SteepestStep, UpdateRule, unroll
from bilevel.response import Objective
from bilevel.rules import State
from l2l_at.threat import Threat


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode; every module gets back the mode that it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def full_precision() -> Iterator[None]:
    """CUDA's convolutions and matrix products in true single precision: by default they may round to TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def minus_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Objective:
    """δ ↦ −Σ cross-entropy(model(x + δ), y): what an attacker minimises. The sum makes each sample's gradient its own,
    whatever the batch. There is no clamp to [0, 1] in it: where pixels lie on the box it would hide the gradient, and
    the attack would be weak there. Projections keep x + δ in the box."""

    def objective(delta: Tensor) -> Tensor:
        return -cross_entropy(model(images + delta), labels, reduction="sum")

    return objective


def at_least_single(logits: Tensor) -> Tensor:
    """Half precisions as float32; float32 and float64 as they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def minus_divergence(model: nn.Module, images: Tensor) -> Objective:
    """δ ↦ −Σ KL(p(x) ‖ p(x + δ)) but for a constant, TRADES' inner objective; p(x) is a constant too, taken once."""
    with torch.no_grad():
        target = softmax(at_least_single(model(images)), dim=1)
    torch.clear_autocast_cache()  # before torch 2.10 it would keep weights without a derivative for later passes

    def objective(delta: Tensor) -> Tensor:
        return (target * log_softmax(at_least_single(model(images + delta)), dim=1)).sum()

    return objective


@dataclass(frozen=True)
class SparseStep:
    """A step of ℓ1 length `size`, spread evenly over the few entries with the largest gradients that can still move.
    The steepest ℓ1 step moves one pixel, which soon meets the box, so that many of them find next to nothing. As in
    SLIDE (Tramèr and Boneh, 2019) a `share` of the entries moves at once; those at the box that would leave it are
    passed over (Croce and Hein, 2021, on why ball and box belong together). The share was chosen on digits by APGD."""

    size: float
    images: Tensor
    share: float = 0.05

    def init(self, variable: Tensor) -> State:
        return {}

    def update(self, gradient: Tensor, state: State, variable: Tensor) -> tuple[Tensor, State]:
        moved = self.images + variable
        stuck = ((gradient < 0) & (moved >= 1)) | ((gradient > 0) & (moved <= 0))
        flat = torch.where(stuck, 0, gradient).flatten(1)
        count = max(1, round(self.share * flat.shape[1]))
        largest = flat.abs().topk(count, dim=1).indices
        signs = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
        return (-self.size / count * signs).view_as(gradient), state


def steepest(threat: Threat, size: float, images: Tensor, *, single: bool = False) -> UpdateRule:
    """The rule of steepest steps of `size`·radius; in ℓ1 sparse ones, unless a `single` step has to do it all."""
    if threat.norm == "l1" and not single:
        return SparseStep(size * threat.radius, images)
    return SteepestStep(threat.norm, size * threat.radius)


def descend(objective: Objective, start: Tensor, images: Tensor, threat: Threat, *, steps: int, size: float) -> Tensor:
    """Projected steepest steps of `size`·radius down an objective; no graph."""
    rule = steepest(threat, size, images, single=steps == 1)
    return unroll(objective, rule, start, steps=steps, project=lambda d: threat.project(d, images)).variable


def pgd(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, *, steps: int = 10, size: float = 0.25
) -> Tensor:
    """Perturbations by projected gradient descent (Madry et al., 2018) on the cross-entropy, without a graph."""
    start = threat.random_start(images)
    return descend(minus_loss(model, images, labels), start, images, threat, steps=steps, size=size)


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al., 2018) as an attack that is called with model, images and labels and
    gives perturbed images. Images lie in [0, 1], shape (batch, channels, height, width); the model is attacked in
    evaluation mode and left as it was. Nothing of ours grades a classifier: see `l2l_at.grade`."""

    threat: Threat
    steps: int = 10
    size: float = 0.25  # of a step, over the radius

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with evaluating(model):
            return images + pgd(model, images, labels, self.threat, steps=self.steps, size=self.size)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that the model gets right, in the mode it is in."""
    return float((model(images).argmax(1) == labels).float().mean())
