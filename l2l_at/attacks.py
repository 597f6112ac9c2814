"""Hand-designed attacks, written with the engine; they drive training and probes, never a reported figure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, softmax

from bilevel import SteepestStep, UpdateRule, unroll
from bilevel.response import Objective
from bilevel.rules import State
from l2l_at.answers import Classifier, check_model, images_of, labels_of
from l2l_at.threat import Threat
from l2l_experiment.errors import UserError


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


def minus_loss(model: nn.Module, images: Tensor, labels: Tensor, *, per_sample: bool = False) -> Objective:
    """δ ↦ −Σ cross-entropy(model(x + δ), y): what an attacker minimises. The sum makes each sample's gradient its own,
    whatever the batch. There is no clamp to [0, 1] in it: where pixels lie on the box it would hide the gradient, and
    the attack would be weak there. Projections keep x + δ in the box. `per_sample`: a value for each, not their sum."""

    def objective(delta: Tensor) -> Tensor:
        return -cross_entropy(model(images + delta), labels, reduction="none" if per_sample else "sum")

    return objective


def at_least_float32(logits: Tensor) -> Tensor:
    """Half precisions as float32; float32 and float64 as they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def minus_divergence(model: nn.Module, images: Tensor, *, per_sample: bool = False) -> Objective:
    """δ ↦ −Σ KL(p(x) ‖ p(x + δ)) but for a constant, TRADES' inner objective; p(x) is a constant too, taken once.
    `per_sample`: a value for each, not their sum."""
    with torch.no_grad():
        target = softmax(at_least_float32(model(images)), dim=1)
    torch.clear_autocast_cache()  # before torch 2.10 it would keep weights without a derivative for later passes

    def objective(delta: Tensor) -> Tensor:
        values = (target * log_softmax(at_least_float32(model(images + delta)), dim=1)).sum(1)
        return values if per_sample else values.sum()

    return objective


@dataclass(frozen=True)
class SparseStep:
    """A step of ℓ1 length `size`, spread evenly over the fraction `share` of entries with the largest gradients, as in
    SLIDE (Tramèr and Boneh, 2019). The steepest ℓ1 step changes a single pixel, which soon reaches 0 or 1, so that many
    steps achieve little. Entries that would leave [0, 1] are skipped (Croce and Hein, 2021, on treating ball and box
    together). `share` was tuned on digits with APGD."""

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


@torch.no_grad()
def apgd(objectives: Objective, start: Tensor, images: Tensor, threat: Threat, *, steps: int) -> Tensor:
    """Auto-PGD (Croce and Hein, 2020): steps of 2·radius with momentum, halved for each sample by itself where they no
    longer help; the best perturbation that was met. No step size to choose. Norms ℓ∞ and ℓ2.

    `objectives` gives one value a sample, to be lowered. The step is halved, and the sample goes on from its best
    perturbation, if at most three quarters of the steps since the last check lowered its objective, or if neither
    the step nor the best value has changed since. Checks follow each other after 22 %, then 19, 16, … 6 % of the steps,
    as in the published code; at least one step lies between two of them."""
    rule, delta = SteepestStep(threat.norm, threat.radius), start
    value, gradient = _values_and_gradients(objectives, delta)
    best, best_value, best_gradient, last = delta, value, gradient, delta
    size, falls, checked = torch.full_like(value, 2.0), torch.zeros_like(value), value
    halved, until, window = torch.ones_like(value, dtype=torch.bool), 0, max(int(0.22 * steps), 1)
    for step in range(steps):
        ahead = delta + _per_sample(size) * rule.update(gradient, {}, delta)[0]
        ahead, pull = threat.project(ahead, images), 0.75 if step else 1.0
        delta, last = threat.project(delta + pull * (ahead - delta) + (1 - pull) * (delta - last), images), delta
        before, (value, gradient) = value, _values_and_gradients(objectives, delta, need_gradient=step < steps - 1)
        falls += value < before
        better = value < best_value
        best, best_gradient = (
            torch.where(_per_sample(better), new, old) for new, old in ((delta, best), (gradient, best_gradient))
        )
        best_value = torch.minimum(value, best_value)
        until += 1
        if until == window:
            halved = (falls <= 0.75 * window) | (~halved & (best_value >= checked))
            size = torch.where(halved, size / 2, size)
            delta = torch.where(_per_sample(halved), best, delta)
            gradient = torch.where(_per_sample(halved), best_gradient, gradient)
            falls, checked, until = torch.zeros_like(falls), best_value, 0
            window = max(window - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return best


def _values_and_gradients(objectives: Objective, delta: Tensor, *, need_gradient: bool = True) -> tuple[Tensor, Tensor]:
    """A sample's value each, and their gradients unless nobody needs them: then zeros."""
    if not need_gradient:
        return objectives(delta), torch.zeros_like(delta)
    with torch.enable_grad():
        point = delta.detach().requires_grad_()
        values = objectives(point)
        (gradient,) = torch.autograd.grad(values.sum(), point)
    return values.detach(), gradient


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def pgd(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, *, steps: int = 10, size: float = 0.25
) -> Tensor:
    """Perturbations by projected gradient descent (Madry et al., 2018) on the cross-entropy, without a graph."""
    start = threat.random_start(images)
    return descend(minus_loss(model, images, labels), start, images, threat, steps=steps, size=size)


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al., 2018) as an attack that is called with model, images and labels and
    gives perturbed images, float32. What it takes is what `l2l_at.grade` takes; the model is attacked in evaluation
    mode and left as it was. Nothing of ours grades a classifier: see `l2l_at.grade`."""

    threat: Threat
    steps: int = 10
    size: float = 0.25  # of a step, over the radius

    def __post_init__(self) -> None:
        if not isinstance(self.threat, Threat):
            raise UserError(f"the threat must be a Threat such as Threat('linf', 8 / 255), got {self.threat!r}")
        if self.steps < 0 or not self.size > 0:
            raise UserError(f"PGD takes 0 or more steps of a positive size, got {self.steps} of {self.size}")

    def __call__(self, model: Callable[[Tensor], Any], images: Any, labels: Any) -> Tensor:
        classifier = Classifier(model)
        with torch.inference_mode(False), torch.enable_grad(), evaluating(classifier):  # whatever the caller's mode
            images = images_of(images)
            classes = check_model(classifier, images[:1])
            labels = labels_of(labels, len(images), classes, images.device)
            return images + pgd(classifier, images, labels, self.threat, steps=self.steps, size=self.size)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that the model gets right, in the mode it is in."""
    return float((model(images).argmax(1) == labels).float().mean())
