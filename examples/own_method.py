"""A method of adversarial training of your own: a follower that finds perturbations, and the classifier's loss."""

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_at.batches import Batch
from l2l_at.cli import main as train
from l2l_at.methods import METHODS, Follower, Method, Recipe


class Corners(Follower):
    """The worst of a few random corners of the ball: no gradient at all."""

    @torch.no_grad()
    def perturb(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        images, labels = batch.images, batch.labels
        tries = [self.threat.project(self.threat.radius * torch.randn_like(images).sign(), images) for _ in range(5)]
        losses = torch.stack([cross_entropy(model(images + d), labels, reduction="none") for d in tries])
        return torch.stack(tries)[losses.argmax(0), torch.arange(len(labels))]


def loss(model: nn.Module, batch: Batch, delta: torch.Tensor) -> torch.Tensor:
    """Half clean, half perturbed."""
    return 0.5 * sum(cross_entropy(model(batch.images + d), batch.labels) for d in (0 * delta, delta))


METHODS["corners"] = Recipe("the worst of five random corners", "an example", lambda c, _: Method(Corners(c), loss))

if __name__ == "__main__":
    train(sys.argv[1:] or ["--dataset", "digits", "--method", "corners"])
