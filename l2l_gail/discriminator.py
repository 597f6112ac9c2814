"""Discriminators: networks that tell the expert's transitions from the policy's."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2l_experiment.errors import UserError
from l2l_gail.config import GAILConfig
from l2l_gail.environments import Environment


class Columns(Protocol):
    """Sizes of the parts of an input, as `l2l_gail.inputs.Inputs` has them."""

    observation: int
    action: int
    size: int
    shaped: bool
    states: bool


class Discriminator(nn.Module):
    """A tanh network from a transition (filtered observation, action) to the logit of "this is the expert".

    With `spectral_norm` each weight matrix is divided by its largest singular value (Miyato et al., 2018), from
    singular vectors that `refresh` improves by power iteration; between two refreshes they are constants."""

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


class ConvDiscriminator(nn.Module):
    """Convolutions over the frames of a transition, then a tanh network that also sees the rest (an action).

    `frame`: (C, H, W) of one frame, at least 36 × 36; `frames`: how many each input starts with, 2 for observation and
    next observation; `observation`: columns of one, its pixels and then those that are none (whether it is the
    absorbing state); `rest`: columns after the observations. Three strided convolutions, as the policy's of Mnih et al.
    (2015) but half as wide; tanh, because the gradient penalty needs second derivatives."""

    def __init__(
        self, frame: tuple[int, int, int], frames: int, observation: int, rest: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        channels, self.height, self.width = frame
        self.channels, self.frames, self.observation = channels * frames, frames, observation
        self.pixels = math.prod(frame)
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(self.channels, 16, 8, stride=4), nn.Tanh()),
            *(nn.Conv2d(16, 32, 4, stride=2), nn.Tanh()),
            *(nn.Conv2d(32, 32, 3), nn.Tanh(), nn.Flatten()),
        )
        seen = self.convolutions(torch.zeros(1, self.channels, self.height, self.width)).shape[1]
        self.head = Discriminator(seen + frames * (observation - self.pixels) + rest, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (batch,), of transitions of shape (batch, frames·observation + rest), pixels in [0, 1]."""
        count = self.frames * self.observation
        observations = x[:, :count].view(len(x), self.frames, self.observation)
        frames = observations[..., : self.pixels].reshape(-1, self.channels, self.height, self.width)
        others = observations[..., self.pixels :].flatten(1)
        return self.head(torch.cat([self.convolutions(frames), others, x[:, count:]], dim=1))


class AIRLDiscriminator(nn.Module):
    """AIRL's logit f(s, a, s′) − log π(a|s), f = g + γ·h(s′) − h(s) (Fu et al., 2018): D = exp f / (exp f + π).

    g is a network of (s, a), or of s alone, whose reward can carry over to other dynamics; h, the shaping, one of s.
    h is 0 after an episode that terminated."""

    constants = 2  # columns at the end that are no inputs of a network: the gradient penalty leaves them out

    def __init__(self, columns: Columns, hidden: tuple[int, ...], gamma: float, *, state_only: bool) -> None:
        super().__init__()
        self.observation, self.action, self.gamma = columns.observation, columns.action, gamma
        self.state_only = state_only
        self.g = Discriminator(columns.observation + (0 if state_only else columns.action), hidden)
        self.h = Discriminator(columns.observation, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (batch,), of transitions with the columns of `l2l_gail.inputs.Inputs`."""
        now = x[:, : self.observation]
        start = self.observation + self.action
        following, (goes_on, log_prob) = x[:, start : start + self.observation], x[:, -2:].T
        return self.reward(x) + self.gamma * goes_on * self.h(following) - self.h(now) - log_prob

    def reward(self, x: Tensor) -> Tensor:
        """g alone, shape (batch,)."""
        return self.g(x[:, : self.observation + (0 if self.state_only else self.action)])


def make_discriminator(env: Environment, columns: Columns, config: GAILConfig) -> nn.Module:
    """The discriminator that the settings name, for inputs of these columns."""
    if columns.shaped:
        state_only = config.disc_form == "airl-state"
        return AIRLDiscriminator(columns, config.disc_hidden, config.gamma, state_only=state_only)
    if env.observations.image:
        if config.spectral_norm:
            raise UserError("--spectral-norm is for the discriminator of vectors, and these observations are images")
        frames = 2 if columns.states else 1
        rest = columns.size - frames * columns.observation
        return ConvDiscriminator(env.observations.shape, frames, columns.observation, rest, config.disc_hidden)
    return Discriminator(columns.size, config.disc_hidden, spectral_norm=config.spectral_norm)
