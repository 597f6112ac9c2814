"""What a method is: how a batch becomes the classifier's loss."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from l2l_at.attacks import evaluating
from l2l_at.config import ATConfig
from l2l_at.data import Batch


class Answer(NamedTuple):
    """A method's answer to a batch."""

    loss: Tensor
    """The classifier's loss, of shape (), to be differentiated in its weights."""
    delta: Tensor
    """The perturbations it was taken on, without a graph."""
    figures: dict[str, float]
    """Figures for the log."""


class Method:
    """A hand-designed attack and the cross-entropy under it; methods say what is different.

    A method does not change the classifier's weights; it may change its own attacker in `improve`.
    """

    summary = ""
    """One line for --list."""
    defends = True
    """Whether the method claims robustness, so that losing it is worth an alarm."""

    def __init__(self, config: ATConfig, shape: tuple[int, int, int]) -> None:
        self.config, self.shape, self.threat = config, shape, config.threat

    def chosen(self, name: str, default: Any) -> Any:
        """A setting of the configuration, or the method's own value where it is left open."""
        value = getattr(self.config, name)
        return default if value is None else value

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Perturbations of the training attack, without a graph; the model is used in the mode it is in."""
        return torch.zeros_like(images)

    def loss(self, model: nn.Module, batch: Batch) -> Answer:
        """The loss of a batch; the model comes in training mode and is left in it."""
        with evaluating(model):
            delta = self.perturb(model, batch.images, batch.labels)
        return Answer(cross_entropy(model(batch.images + delta), batch.labels), delta, {})

    def improve(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        """The attacker's own learning, after the classifier's step on the same batch; figures for the log."""
        return {}

    @property
    def attacker(self) -> nn.Module | None:
        """The learned attacker, if there is one."""
        return None

    def state(self) -> tuple[dict, dict]:
        """Tensors and JSON values that `restore` takes."""
        return {}, {}

    def restore(self, tensors: dict, meta: dict) -> None:
        """Continue from a `state`."""

    def to(self, device: torch.device) -> "Method":
        """Move the attacker."""
        if self.attacker is not None:
            self.attacker.to(device)
        return self
