"""Hand-designed attacks, written with the engine; they drive training and probes, never a reported figure."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softmax

from bilevel import SteepestStep, unroll
from bilevel.response import Objective
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
    """δ ↦ −Σ cross-entropy(model(x + δ), y): what an attacker goes down.

    The sum makes each sample's gradient its own, whatever the batch. There is no clamp to [0, 1] in it: where pixels
    lie on the box it would hide the gradient, and the attack would be weak there. Projections keep x + δ in the box.
    """

    def objective(delta: Tensor) -> Tensor:
        return -cross_entropy(model(images + delta), labels, reduction="sum")

    return objective


def minus_divergence(model: nn.Module, images: Tensor) -> Objective:
    """δ ↦ −Σ KL(p(x) ‖ p(x + δ)), the inner objective of TRADES; p(x) is a constant, taken once."""
    with torch.no_grad():
        target = softmax(model(images).float(), dim=1)

    def objective(delta: Tensor) -> Tensor:
        # KL but for a constant of δ.
        return (target * log_softmax(model(images + delta).float(), dim=1)).sum()

    return objective


def descend(objective: Objective, start: Tensor, images: Tensor, threat: Threat, *, steps: int, size: float) -> Tensor:
    """Projected steepest steps of `size`·radius down an objective; no graph."""
    rule = SteepestStep(threat.norm, size * threat.radius)
    return unroll(objective, rule, start, steps=steps, project=lambda d: threat.project(d, images)).variable


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    steps: int = 10,
    size: float = 0.25,
    random_start: bool = True,
) -> Tensor:
    """Perturbations by projected gradient descent (Madry et al., 2018) on the cross-entropy; no graph.

    The model is used in the mode it is in.
    """
    start = threat.random_start(images) if random_start else torch.zeros_like(images)
    return descend(minus_loss(model, images, labels), start, images, threat, steps=steps, size=size)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that the model gets right, in the mode it is in."""
    return float((model(images).argmax(1) == labels).float().mean())
