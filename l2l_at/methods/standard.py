"""Training on clean images: no defence, the lower end of every table."""

from torch import nn
from torch.nn.functional import cross_entropy

from l2l_at.data import Batch
from l2l_at.methods.base import Answer, Method


class Standard(Method):
    """min_θ CE(f(x), y)."""

    summary = "clean images, no defence"
    defends = False

    def loss(self, model: nn.Module, batch: Batch) -> Answer:
        return Answer(cross_entropy(model(batch.images), batch.labels), batch.images.new_zeros(batch.images.shape), {})
