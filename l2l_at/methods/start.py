"""Where a training attack begins, and the objective that it lowers."""

from typing import Literal

import torch
from torch import Tensor, nn

from bilevel.response import Objective
from l2l_at.attacks import minus_divergence, minus_loss
from l2l_at.batches import PADDING, Batch, crop_indices_of, gather_crop, scatter_crop
from l2l_at.config import ATConfig
from l2l_at.parallel import gather
from l2l_at.threat import Threat

StartName = Literal["zero", "noise", "random", "last"]


class Start(nn.Module):
    """First perturbations of a batch: `zero`, a little `noise`, a `random` point, or the `last` ones of its images.

    `noise` is for objectives that have no gradient at the clean image, such as TRADES' divergence. `last` goes on from
    where the attack on the same training image ended an epoch before, moved along with the augmentation (ATTA, Zheng et
    al., 2020; FGSM-PGI, Jia et al., 2022, for one signed step), and is never reset; images never attacked before begin
    at random. What is remembered is rounded to 1/127 of the radius, a byte a pixel."""

    def __init__(self, name: StartName, threat: Threat) -> None:
        super().__init__()
        self.name, self.threat = name, threat
        # int8, shape (training images, channels, padded height, padded width): perturbations of unmoved images.
        self.register_buffer("kept", None)
        self.register_buffer("seen", None)  # bool, shape (training images,): whether there has been an attack on it

    def prepare(self, count: int, shape: tuple[int, int, int]) -> None:
        """Make room for so many training images of shape (channels, height, width), if any is needed."""
        if self.name == "last":
            channels, height, width = shape
            self.kept = torch.zeros(count, channels, height + 2 * PADDING, width + 2 * PADDING, dtype=torch.int8)
            self.seen = torch.zeros(count, dtype=torch.bool)

    def forward(self, batch: Batch) -> Tensor:
        """Perturbations inside the threat model, shape of the images, without a graph."""
        images, threat = batch.images, self.threat
        if self.name == "zero":
            return torch.zeros_like(images)
        if self.name == "noise":
            return threat.project(0.001 * torch.randn_like(images), images)
        fresh = threat.random_start(images)
        if self.kept is None or batch.rows is None:
            return fresh
        last = gather_crop(self.kept[batch.rows], crop_indices_of(batch)).to(images.dtype) * (threat.radius / 127)
        known = self.seen[batch.rows]
        return torch.where(known[:, None, None, None], threat.project(last, images), fresh)

    def remember(self, batch: Batch, delta: Tensor) -> None:
        """Keep what the attack on these training images ended with, if the next one begins there."""
        if self.kept is None or batch.rows is None:
            return
        last = (delta.detach() * (127 / self.threat.radius)).round().to(torch.int8)
        rows, frame, last = (gather(part) for part in (batch.rows, crop_indices_of(batch), last))
        self.kept[rows] = scatter_crop(self.kept[rows], frame, last)
        self.seen[rows] = True


def make_start(config: ATConfig, default: StartName, inner: str) -> Start:
    """The start that a configuration asks for, or the default; zero is `noise` where KL is to be raised."""
    name = config.attack_start or default
    return Start("noise" if name == "zero" and inner == "kl" else name, config.threat)


def objective(inner: str, model: nn.Module, batch: Batch, *, per_sample: bool = False) -> Objective:
    """What an attack lowers: minus the cross-entropy (`ce`), or minus the divergence from the clean prediction. `each`:
    one value a sample, not their sum."""
    if inner == "kl":
        return minus_divergence(model, batch.images, per_sample=per_sample)
    return minus_loss(model, batch.images, batch.labels, per_sample=per_sample)
