"""Learned attackers: networks, and the update rules on perturbations that they make.

`attacker.on(images)` is the rule for `bilevel.unroll`. Objectives are minus the loss that the attacker raises, so the
direction of attack is minus the gradient that a rule is given."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bilevel.rules import State
from l2l_experiment.errors import UserError

Scale = Literal["sample", "batch"]
Input = Literal["image", "gradient", "delta"]


class GenBlock(nn.Module):
    """Residual block of the published attackers: BN-PReLU-conv-BN-PReLU-conv, normalisation without affine weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = []
        for width in (inputs, outputs):
            layers += [nn.BatchNorm2d(width, affine=False), nn.PReLU(), nn.Conv2d(width, outputs, 3, padding=1)]
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=1.0 if module.kernel_size == (1, 1) else math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def _stem(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU())


def _at_full_size(inputs: int, channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A published attacker without its unused scale parameter."""
    blocks = [GenBlock(a, b) for a, b in pairwise(widths)]
    stem, head = _stem(inputs, widths[0], 1), nn.Conv2d(widths[-1], channels, 3, padding=1)
    return nn.Sequential(stem, *blocks, nn.BatchNorm2d(widths[-1], affine=False), head)


# The attacker of every published training script (1,747,851 weights for CIFAR with a gradient as input), and a smaller.
wide = partial(_at_full_size, widths=(64, 128, 256, 128, 64))
two_layer = partial(_at_full_size, widths=(64, 128, 64))


class Slim(nn.Module):
    """The published slim attacker: 1,434,359 weights at half the resolution, a fifth of the wide one's cost."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        down = _stem(inputs, 128, 2), GenBlock(128, 256), GenBlock(256, 128), nn.BatchNorm2d(128, affine=False)
        up = nn.ConvTranspose2d(128, 16, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        self.body = nn.Sequential(*down, *up)
        self.head = nn.Conv2d(16 + inputs, channels, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.head(torch.cat([self.body(x), x], dim=1))


def tiny(inputs: int, channels: int, width: int = 32, *, zero_head: bool = True) -> nn.Sequential:
    """Three convolutions without normalisation; 13 thousand weights for CIFAR at the default width."""
    head = nn.Conv2d(width, channels, 3, padding=1)
    if zero_head:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    first, second = nn.Conv2d(inputs, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), head)


PUBLISHED = {"wide": wide, "slim": Slim, "two-layer": two_layer}
AttackerName = Literal["wide", "slim", "two-layer", "tiny"]


def normalised(gradient: Tensor, scale: Scale, *, by: Literal["largest", "mean"]) -> Tensor:
    """A gradient over its largest or mean absolute entry, of each sample or of the whole batch; zero stays zero."""
    size = gradient.abs()
    dims = (1, 2, 3) if scale == "sample" else (0, 1, 2, 3)
    unit = size.amax(dims, keepdim=True) if by == "largest" else size.mean(dims, keepdim=True)
    return gradient / torch.where(unit > 0, unit, 1)


@dataclass(frozen=True)
class OnImages:
    """The update rule that an attacker is on a batch of images."""

    attacker: nn.Module
    images: Tensor

    def init(self, variable: Tensor) -> State:
        return {}

    def update(self, gradient: Tensor, state: State, variable: Tensor) -> tuple[Tensor, State]:
        return self.attacker(self.images, variable, gradient), state


class Attacker(nn.Module):
    """A network that makes a step from images, their perturbations so far and the objective's gradient there."""

    def on(self, images: Tensor) -> OnImages:
        return OnImages(self, images)


class PublishedAttacker(Attacker):
    """The step size·tanh(network([x + δ, ĝ])) (Jiang et al., 2021; gradient and scale as in the published code).

    ĝ is the gradient of the loss over its largest absolute entry, in the whole batch as published; without
    `sees_gradient` the network sees the image alone. With `detach_inputs` a step learns from what it adds only."""

    def __init__(
        self,
        network: nn.Module,
        size: float,
        *,
        sees_gradient: bool = True,
        scale: Scale = "batch",
        detach_inputs: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.size, self.scale = network, size, scale
        self.sees_gradient, self.detach_inputs = sees_gradient, detach_inputs

    def forward(self, images: Tensor, delta: Tensor, gradient: Tensor) -> Tensor:
        inputs = (images + delta).clamp(0, 1)
        if self.sees_gradient:
            inputs = torch.cat([inputs, normalised(-gradient, self.scale, by="largest")], dim=1)
        return self.size * self.network(inputs.detach() if self.detach_inputs else inputs).tanh()


class ResidualAttacker(Attacker):
    """The step eᵃ·size·tanh(2eᵇ·clip(ĝ, ±3) + h(x + δ, ĝ, δ/radius)): a soft sign step, and what is learned of it. ĝ is
    the gradient of the loss over its mean absolute entry. The logarithms a of the length and b of the sharpness and the
    head of the network h start at zero, so that training starts from the hand-designed step. Our design; what it keeps
    of Jiang et al. (2021) is an attacker that sees the gradient and learns with the classifier. Without any input that
    it `sees` there is no h. With `soft_sign=False` the step is size·tanh(h), from a random head."""

    def __init__(
        self,
        channels: int,
        radius: float,
        size: float,
        *,
        width: int = 32,
        sees: tuple[Input, ...] = get_args(Input),
        scale: Scale = "sample",
        soft_sign: bool = True,
    ) -> None:
        super().__init__()
        if unknown := set(sees) - set(get_args(Input)):
            raise UserError(f"an attacker can see {', '.join(get_args(Input))}, not {', '.join(sorted(unknown))}")
        self.radius, self.size, self.sees, self.scale, self.soft_sign = radius, size, sees, scale, soft_sign
        self.network = tiny(channels * len(sees), channels, width, zero_head=soft_sign) if sees else None
        self.log_size = nn.Parameter(torch.zeros(()), requires_grad=soft_sign)
        self.log_sharpness = nn.Parameter(torch.zeros(()), requires_grad=soft_sign)

    def forward(self, images: Tensor, delta: Tensor, gradient: Tensor) -> Tensor:
        direction = normalised(-gradient, self.scale, by="mean").clamp(-3, 3)
        raw = 2 * self.log_sharpness.exp() * direction if self.soft_sign else torch.zeros_like(direction)
        if self.network is not None:
            seen = {"image": images + delta, "gradient": direction, "delta": delta / self.radius}
            raw = raw + self.network(torch.cat([seen[name] for name in self.sees], dim=1))
        return self.size * self.log_size.exp() * raw.tanh()
