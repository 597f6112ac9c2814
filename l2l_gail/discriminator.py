"""The follower's variable: a discriminator, and the objective it answers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from l2l_gail.config import GAILConfig


class Discriminator(nn.Module):
    """A tanh network from a transition (filtered observation, action) to the logit of "this is the expert".

    With `spectral_norm` each weight matrix is divided by its largest singular value (Miyato et al., 2018), from
    singular vectors that `refresh` improves by power iteration; between two refreshes they are constants.
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...], *, spectral_norm: bool = False) -> None:
        super().__init__()
        sizes = [inputs, *hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.spectral_norm = spectral_norm
        if spectral_norm:
            for index, layer in enumerate(self.layers):
                self.register_buffer(f"left_{index}", F.normalize(torch.randn(layer.out_features), dim=0))
                self.register_buffer(f"right_{index}", F.normalize(torch.randn(layer.in_features), dim=0))
            self.refresh(iterations=15)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (batch,), of transitions of shape (batch, inputs)."""
        for index, layer in enumerate(self.layers):
            weight = layer.weight
            if self.spectral_norm:
                left, right = getattr(self, f"left_{index}"), getattr(self, f"right_{index}")
                weight = weight / (left @ weight @ right)
            x = F.linear(x, weight, layer.bias)
            x = x.tanh() if index < len(self.layers) - 1 else x
        return x.squeeze(-1)

    @torch.no_grad()
    def refresh(self, iterations: int = 1) -> None:
        """Bring the singular vectors up to date; call it once a round, outside the objective."""
        if not self.spectral_norm:
            return
        for index, layer in enumerate(self.layers):
            right = getattr(self, f"right_{index}")
            for _ in range(iterations):
                left = F.normalize(layer.weight @ right, dim=0)
                right = F.normalize(layer.weight.T @ left, dim=0)
            getattr(self, f"left_{index}").copy_(left)
            getattr(self, f"right_{index}").copy_(right)


class Batch(NamedTuple):
    """What one discriminator step sees, every random draw included, so that its objective is a function."""

    expert: Tensor
    """Expert transitions, shape (batch, inputs)."""
    policy: Tensor
    """Policy transitions, same shape."""
    mixing: Tensor
    """Numbers in [0, 1], shape (batch, 1), that place the interpolates."""


def draw(expert: Tensor, policy: Tensor, size: int, generator: torch.Generator) -> Batch:
    """`size` transitions of each kind, drawn with replacement from rows of `expert` and `policy`."""
    rows_expert = torch.randint(len(expert), (size,), generator=generator).to(expert.device)
    rows_policy = torch.randint(len(policy), (size,), generator=generator).to(policy.device)
    mixing = torch.rand(size, 1, generator=generator).to(expert.device)
    return Batch(expert[rows_expert], policy[rows_policy], mixing)


def objective(discriminator: Discriminator, batch: Batch, config: GAILConfig) -> Callable[[dict[str, Tensor]], Tensor]:
    """The discriminator's loss on a batch as a function of its named weights.

    Binary cross-entropy summed over the two kinds (2·log 2 = 1.386 at chance; Ho and Ermon, 2016), plus the switched-on
    regularisers: gradient penalty (Gulrajani et al., 2017), entropy bonus, mixup, label smoothing. The penalty is part
    of the objective, so a learned follower answers a problem that has a finite optimum.
    """
    smooth = config.label_smoothing
    buffers = dict(discriminator.named_buffers())

    def loss(weights: dict[str, Tensor]) -> Tensor:
        def logits_of(x: Tensor) -> Tensor:
            return functional_call(discriminator, (weights, buffers), (x,))

        size = len(batch.expert)
        if config.mixup:
            logits = logits_of(torch.lerp(batch.policy, batch.expert, batch.mixing))
            labels = smooth + (1 - 2 * smooth) * batch.mixing.squeeze(1)
            total = 2 * F.binary_cross_entropy_with_logits(logits, labels)
        else:
            logits = logits_of(torch.cat([batch.expert, batch.policy]))
            labels = torch.full_like(logits, 1 - smooth)
            labels[size:] = smooth
            total = 2 * F.binary_cross_entropy_with_logits(logits, labels)
        if config.entropy_bonus:
            total = total - config.entropy_bonus * bernoulli_entropy(logits).mean()
        if config.gradient_penalty:
            points = torch.lerp(batch.policy, batch.expert, batch.mixing).requires_grad_()
            (gradient,) = torch.autograd.grad(logits_of(points).sum(), points, create_graph=True)
            norm = (gradient.square().sum(1) + 1e-12).sqrt()  # a derivative also where the gradient is zero
            total = total + config.gradient_penalty * (norm - config.gradient_target).square().mean()
        return total

    return loss


def bernoulli_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of a Bernoulli variable with the given logits, same shape."""
    return F.softplus(logits) - logits * torch.sigmoid(logits)


@torch.no_grad()
def health(discriminator: Discriminator, expert: Tensor, policy: Tensor) -> dict[str, float]:
    """How well the discriminator tells the two apart: loss without regularisers, accuracies, entropy, logits."""
    on_expert, on_policy = discriminator(expert), discriminator(policy)
    loss = F.softplus(-on_expert).mean() + F.softplus(on_policy).mean()
    accuracy_expert, accuracy_policy = (on_expert > 0).float().mean(), (on_policy <= 0).float().mean()
    return {
        "disc_loss": float(loss),
        "disc_acc": float(0.5 * (accuracy_expert + accuracy_policy)),
        "disc_acc_expert": float(accuracy_expert),
        "disc_acc_gen": float(accuracy_policy),
        "disc_entropy": float(bernoulli_entropy(torch.cat([on_expert, on_policy])).mean()),
        "logit_gap": float(on_expert.mean() - on_policy.mean()),
    }
