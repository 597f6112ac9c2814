"""Training the discriminator: minibatches, the loss on them, and metrics of how well it classifies."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from l2l_gail.config import GAILConfig


class Batch(NamedTuple):
    """What one discriminator step sees, every random draw included, so that its objective is a function."""

    expert: Tensor  # transitions, shape (batch, inputs)
    policy: Tensor  # transitions, same shape
    mixing: Tensor  # numbers in [0, 1], shape (batch, 1), that place the interpolates


class Drawable(Protocol):
    """Rows that can be counted and picked: a tensor, or `l2l_gail.reward_model.LazyInputs`."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Tensor) -> Tensor: ...


def draw(expert: Drawable, policy: Drawable, size: int, generator: torch.Generator) -> Batch:
    """`size` transitions of each kind, drawn with replacement from rows of `expert` and `policy`."""
    rows_expert, rows_policy = (torch.randint(len(kind), (size,), generator=generator) for kind in (expert, policy))
    mixing, seen = torch.rand(size, 1, generator=generator), expert[rows_expert]
    return Batch(seen, policy[rows_policy], mixing.to(seen.device))


def objective(discriminator: nn.Module, batch: Batch, config: GAILConfig) -> Callable[[dict[str, Tensor]], Tensor]:
    """The discriminator's loss on a batch as a function of its named weights.

    Binary cross-entropy summed over the two kinds (2·log 2 = 1.386 at chance; Ho and Ermon, 2016), or the difference of
    mean logits, policy's less expert's (`wasserstein`), plus the switched-on regularisers: gradient penalty (Gulrajani
    et al., 2017), the controller (k/2)·E[(D − ½)²] summed over the two kinds (Luo et al., 2024), entropy bonus, mixup,
    label smoothing. The penalty is part of the objective, so a learned follower answers a problem that has a finite
    optimum."""
    smooth, buffers = config.label_smoothing, dict(discriminator.named_buffers())
    constants = getattr(discriminator, "constants", 0)  # columns that are no inputs of a network
    between = torch.lerp(batch.policy, batch.expert, batch.mixing)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        def logits_of(x: Tensor) -> Tensor:
            return functional_call(discriminator, (weights, buffers), (x,))

        if config.mixup:
            logits = logits_of(between)
            labels = smooth + (1 - 2 * smooth) * batch.mixing.squeeze(1)
        else:
            logits = logits_of(torch.cat([batch.expert, batch.policy]))
            labels = torch.full_like(logits, 1 - smooth)
            labels[len(batch.expert) :] = smooth
        if config.disc_loss == "wasserstein":
            total = 2 * ((1 - 2 * labels) * logits).mean()
        else:
            total = 2 * F.binary_cross_entropy_with_logits(logits, labels)
        if config.disc_control:
            total = total + config.disc_control * (torch.sigmoid(logits) - 0.5).square().mean()
        if config.entropy_bonus:
            total = total - config.entropy_bonus * bernoulli_entropy(logits).mean()
        if config.gradient_penalty:
            points = between.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(logits_of(points).sum(), points, create_graph=True)
            if constants:
                gradient = gradient[:, :-constants]
            norm = (gradient.square().sum(1) + 1e-12).sqrt()  # a derivative also where the gradient is zero
            total = total + config.gradient_penalty * (norm - config.gradient_target).square().mean()
        return total

    return loss


def bernoulli_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of a Bernoulli variable with the given logits, same shape."""
    return F.softplus(logits) - logits * torch.sigmoid(logits)


@torch.no_grad()
def disc_stats(discriminator: nn.Module, expert: Tensor, policy: Tensor) -> dict[str, float]:
    """How well the discriminator tells the two apart: loss without regularisers, accuracies, entropy, logits."""
    on_expert, on_policy = discriminator(expert), discriminator(policy)
    loss = F.softplus(-on_expert).mean() + F.softplus(on_policy).mean()
    accuracy_expert, accuracy_policy = (on_expert > 0).float().mean(), (on_policy <= 0).float().mean()
    figures = {
        "loss": loss,
        "acc": 0.5 * (accuracy_expert + accuracy_policy),
        "acc_expert": accuracy_expert,
        "acc_gen": accuracy_policy,
        "entropy": bernoulli_entropy(torch.cat([on_expert, on_policy])).mean(),
        "logit_gap": on_expert.mean() - on_policy.mean(),
    }
    return dict(zip(figures, torch.stack([*figures.values()]).tolist(), strict=True))  # a GPU is waited for once
