"""What a method is: a follower that answers a batch with perturbations, and a leader's loss on them."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bilevel import LearnedFollower
from l2l_at.attacks import evaluating
from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.methods.start import Start
from l2l_experiment.errors import UserError

Leader = Callable[[nn.Module, Batch, Tensor], Tensor]  # model, batch, perturbations -> the classifier's loss, ()


class Follower(Protocol):
    """Finds perturbations; inherit from it, and override what differs from a follower that learns nothing."""

    checked: bool = False  # Whether its perturbations have been looked at, which the first batch's are
    attacker: nn.Module | None = None  # The learned attacker, if there is one
    learner: LearnedFollower | None = None  # What fits the attacker
    start: Start | None = None  # Where its attack begins, if that is a matter of choice
    training_mode: bool = False  # Whether the classifier is in training mode while it is attacked for its step
    single_process: bool = False  # Whether it needs whole batches, and so one process only

    def __init__(self, config: ATConfig) -> None:
        self.config, self.threat = config, config.threat

    @property
    def skipped(self) -> int:
        """Fits of the attacker that were left out because its gradient was NaN or infinite."""
        return 0 if self.learner is None else self.learner.skipped

    def prepare(self, count: int, shape: tuple[int, int, int]) -> None:
        """Allocate state for `count` training images of shape (channels, height, width)."""
        if self.start is not None:
            self.start.prepare(count, shape)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        """Detached perturbations, shape of the images. Uses the model in its current mode; changes no state."""
        raise NotImplementedError

    def respond(self, model: nn.Module, batch: Batch) -> Tensor:
        """Perturbations for a training step of the classifier, differentiable where the method needs it. The model is
        passed in training mode and left in it."""
        with nullcontext() if self.training_mode else evaluating(model):
            delta = self.perturb(model, batch)
        if self.start is not None:
            self.start.remember(batch, delta)
        return delta

    def update(self, model: nn.Module, batch: Batch) -> dict[str, float | Tensor]:
        """The follower's own learning, after the classifier's step on the same batch; figures for the log."""
        return {}

    def warm_start(self, state: dict[str, Any], source: str) -> None:
        """Load the attacker's weights from another run's `state_dict`; optimiser and stored perturbations are fresh."""
        if self.learner is None:
            raise UserError(f"--attacker-from is for methods that learn an attacker, not {self.config.method}")
        own, theirs = self.learner.rule.state_dict(), state.get("learner", {}).get("rule", {})
        if {name: value.shape for name, value in theirs.items()} != {name: value.shape for name, value in own.items()}:
            raise UserError(f"{source} has no attacker of this shape: use its --method, --attacker… and data set")
        self.learner.rule.load_state_dict(theirs)

    def state_dict(self) -> dict[str, Any]:
        """What it has learned and remembers, as a tree for a checkpoint."""
        return {name: getattr(self, name).state_dict() for name in ("learner", "start") if getattr(self, name)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in {"learner", "start"} & state.keys():
            getattr(self, name).load_state_dict(state[name])

    def to(self, device: torch.device) -> None:
        for part in (self.attacker, self.start):
            if part is not None:
                part.to(device)


class MethodOutput(NamedTuple):
    """A batch's loss and perturbations."""

    loss: Tensor  # The classifier's loss, shape (), to be differentiated
    delta: Tensor  # The perturbations it was taken on, without a graph


def require_perturbations(delta: Any, images: Tensor) -> None:
    """UserError unless these are perturbations of the images that keep them in [0, 1]."""
    if not isinstance(delta, Tensor) or delta.shape != images.shape or delta.dtype != images.dtype:
        got = f"{delta.dtype} of shape {tuple(delta.shape)}" if isinstance(delta, Tensor) else type(delta).__name__
        raise UserError(
            f"a follower answers with {images.dtype} perturbations of shape {tuple(images.shape)}, not {got}"
        )
    moved = images + delta.detach()
    low, high = float(moved.min()), float(moved.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN is neither
        raise UserError(
            f"a follower's perturbations must keep images in [0, 1]; image + perturbation reaches from {low:g} to "
            f"{high:g}. Return the perturbation, not the image, and project it: self.threat.project(delta, images)"
        )


@dataclass(frozen=True)
class Method:
    """Two players: how perturbations are found, and what the classifier's loss on them is."""

    follower: Follower
    leader: Leader
    replays: int = 1  # How many steps in a row see the same batch
    double_backward: bool = False  # Whether the loss differentiates a gradient: the classifier then cannot be compiled
    defends: bool = True  # Whether the method claims robustness, so that losing it is worth an alarm

    def loss(self, model: nn.Module, batch: Batch) -> MethodOutput:
        """The loss of a batch; the model comes in training mode."""
        delta = self.follower.respond(model, batch)
        if not self.follower.checked:
            require_perturbations(delta, batch.images)
            self.follower.checked = True
        return MethodOutput(self.leader(model, batch, delta), delta.detach())
