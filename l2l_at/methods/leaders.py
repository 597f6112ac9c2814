"""The classifier's losses: what is done with the perturbations that a follower found.

A leader is a function `(model, batch, delta) -> loss` of shape (); `functools.partial` fixes whatever else it takes.
Nothing in it is detached unless it says so."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2l_at.attacks import at_least_float32
from l2l_at.batches import Batch
from l2l_at.methods.base import Leader


def cross_entropy(smoothing: float = 0.0, clean_share: float = 0.0) -> Leader:
    """Mean CE on the perturbed images; `clean_share` of it on the clean ones instead. Labels may be smoothed."""

    def loss(model: nn.Module, batch: Batch, delta: Tensor) -> Tensor:
        def entropy(images: Tensor) -> Tensor:
            return functional.cross_entropy(model(images), batch.labels, label_smoothing=smoothing)

        attacked = entropy(batch.images + delta)
        return attacked if not clean_share else clean_share * entropy(batch.images) + (1 - clean_share) * attacked

    return loss


def clean(model: nn.Module, batch: Batch, delta: Tensor) -> Tensor:
    """Mean CE on the clean images."""
    return functional.cross_entropy(model(batch.images), batch.labels)


def trades(model: nn.Module, batch: Batch, delta: Tensor, *, beta: float) -> Tensor:
    """CE(x) + β·KL(p(x) ‖ p(x + δ)), means over the batch (Zhang et al., 2019)."""
    logits, attacked = model(batch.images), model(batch.images + delta)
    return functional.cross_entropy(logits, batch.labels) + beta * divergence(logits, attacked).mean()


def mart(model: nn.Module, batch: Batch, delta: Tensor, *, beta: float) -> Tensor:
    """BCE(x + δ) + β·mean of KL(p(x) ‖ p(x + δ))·(1 − p_y(x)) (Wang et al., 2020). BCE is −log p_y − log(1 − the
    largest other probability), at the perturbed images."""
    logits, attacked = model(batch.images), model(batch.images + delta)
    other = attacked.softmax(1).scatter(1, batch.labels[:, None], 0).amax(1)
    margin = functional.cross_entropy(attacked, batch.labels) - (1.0001 - other).log().mean()
    weight = 1.0000001 - true_class_probability(logits, batch.labels)
    return margin + beta * (divergence(logits, attacked) * weight).mean()


def arow(model: nn.Module, batch: Batch, delta: Tensor, *, strength: float, smoothing: float, weight: str) -> Tensor:
    """LS-CE(x) + λ·mean of KL(p(x) ‖ p(x + δ))·(1 − p_y(x + δ)) (Yang et al., 2023). λ is the published code's, twice
    the paper's. With `weight="clean"` the weight is p_y(x), the code's variant CoW. Smoothed labels give the true class
    its share of the uniform mass too. Nothing is detached: the gradient flows through the weight as well."""
    logits, attacked = model(batch.images), model(batch.images + delta)
    of_clean = weight == "clean"
    probability = true_class_probability(logits if of_clean else attacked, batch.labels)
    factor = probability if of_clean else 1 - probability
    entropy = functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
    return entropy + strength * (divergence(logits, attacked) * factor).mean()


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target) ‖ softmax(logits)) a sample, (batch,); targets stay off 0, where p·log p has no slope."""
    probabilities = at_least_float32(target).softmax(1).clamp(min=1e-8)
    return (probabilities * (probabilities.log() - torch.log_softmax(at_least_float32(logits), dim=1))).sum(1)


def true_class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The probability of each image's label, shape (batch,)."""
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
