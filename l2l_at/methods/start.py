"""Where an attack begins, and what it goes down."""

from typing import Literal

import torch
from torch import Tensor, nn

from bilevel.response import Objective
from l2l_at.attacks import minus_divergence, minus_loss
from l2l_at.config import ATConfig
from l2l_at.data import Batch, put_back, take_from
from l2l_at.threat import Threat

StartName = Literal["zero", "noise", "random", "last"]
UNSEEN = -128  # int8 entries of perturbations lie in [-127, 127]


class Start:
    """First perturbations of a batch: `zero`, a little `noise`, a `random` point, or the `last` ones of its images.

    `noise` is for objectives that have no gradient at the clean image, such as TRADES' divergence. `last` goes on from
    where the attack on the same training image ended an epoch before, moved along with the augmentation (Jia et al.,
    2022, FGSM-PGI, do so for one signed step); images never attacked before begin at random. What is remembered is
    rounded to 1/127 of the radius, a byte a pixel.
    """

    def __init__(self, name: StartName, threat: Threat) -> None:
        self.name, self.threat = name, threat
        self.kept: Tensor | None = None
        """int8, shape (images seen so far, channels, height, width): perturbations of unaugmented images."""

    def __call__(self, batch: Batch) -> Tensor:
        """Perturbations inside the threat model, shape of the images, without a graph."""
        images, threat = batch.images, self.threat
        if self.name == "zero":
            return torch.zeros_like(images)
        if self.name == "noise":
            return threat.project(0.001 * torch.randn_like(images), images)
        fresh = threat.random_start(images)
        if self.name == "random" or self.kept is None or batch.rows is None:
            return fresh
        kept = self.kept[batch.rows.clamp(max=len(self.kept) - 1)]
        known = (batch.rows < len(self.kept)) & (kept.flatten(1)[:, 0] != UNSEEN)
        last = take_from(kept.to(images.dtype) * (threat.radius / 127), batch.frame)
        return torch.where(known[:, None, None, None], threat.project(last, images), fresh)

    def remember(self, batch: Batch, delta: Tensor) -> None:
        """Keep what the attack on these training images ended with, if the next one begins there."""
        if self.name != "last" or batch.rows is None:
            return
        last = put_back((delta.detach() * (127 / self.threat.radius)).round().to(torch.int8), batch.frame)
        kept = last[:0] if self.kept is None else self.kept
        if (missing := int(batch.rows.max()) + 1 - len(kept)) > 0:
            kept = torch.cat([kept, last.new_full((missing, *last.shape[1:]), UNSEEN)])
        kept[batch.rows] = last
        self.kept = kept

    def state(self) -> dict[str, Tensor]:
        """Tensors that `restore` takes."""
        return {} if self.kept is None else {"kept": self.kept.clone()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a `state`."""
        self.kept = tensors["kept"].clone() if "kept" in tensors else None

    def to(self, device: torch.device) -> None:
        """Move what is remembered."""
        if self.kept is not None:
            self.kept = self.kept.to(device)


def make_start(config: ATConfig, default: StartName, inner: str) -> Start:
    """The start that a configuration asks for, or the default; zero is `noise` where KL is to be raised."""
    name = config.attack_start or default
    return Start("noise" if name == "zero" and inner == "kl" else name, config.threat)


def objective(inner: str, model: nn.Module, batch: Batch) -> Objective:
    """What an attack goes down: minus the cross-entropy (`ce`), or minus the divergence from the clean prediction."""
    if inner == "kl":
        return minus_divergence(model, batch.images)
    return minus_loss(model, batch.images, batch.labels)
