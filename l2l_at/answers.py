"""What a classifier answers, checked before it is trained on or attacked: shapes, classes, numbers that are finite."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l2l_experiment.errors import UserError

MIN_CLASSES = 4  # classes: the targeted loss of AutoAttack divides by a difference of the first, third and fourth logit
NONFINITE_LOGIT = -1e9  # of the class that stands for NaN, where the answer is finite


class Classifier(nn.Module):
    """Wraps any callable from images to logits as a module; takes an output's `.logits`, or a tuple's first entry.

    With `nonfinite_class` one class is appended, and predicted wherever a logit is NaN or infinite, so that no attack
    counts such an output as correct. `nonfinite_count` counts these images."""

    def __init__(self, model: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.nonfinite_class, self.nonfinite_count = model, False, 0

    def forward(self, images: Tensor) -> Tensor:
        logits = logits_of(self.model(images)).float()
        finite = logits.isfinite().all(1, keepdim=True)
        self.nonfinite_count = self.nonfinite_count + (~finite).sum()  # a tensor: a GPU need not be waited for
        if not self.nonfinite_class:
            return logits
        logits = torch.where(finite, logits, torch.zeros_like(logits))
        return torch.cat([logits, torch.where(finite, NONFINITE_LOGIT, -NONFINITE_LOGIT).to(logits)], 1)


def logits_of(answer: Any) -> Tensor:
    """Logits, shape (n, classes), of what a model returned; UserError for anything else."""
    answer = getattr(answer, "logits", answer)
    answer = answer[0] if isinstance(answer, tuple | list) and answer else answer
    if not isinstance(answer, Tensor) or answer.dim() != 2:
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise UserError(f"the model must answer images with logits of shape (n, classes), got {found}")
    return answer


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Which predictions are correct, bool of shape (n,); one with a NaN or infinite logit never is."""
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)


@torch.no_grad()
def check_model(
    model: Callable[[Tensor], Any], images: Tensor, *, classes: int | None = None, logits_only: bool = False
) -> int:
    """Run one forward pass and return the number of classes. UserError if the output does not have shape (n, classes),
    is finite for no image, or, with `logits_only`, is not the logits tensor itself."""
    try:
        answer = model(images)
        logits = logits_of(answer)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = tuple(images.shape)
        raise UserError(f"the model cannot take images of shape {shape}: {str(error).splitlines()[0]}") from error
    if logits_only and answer is not logits:
        raise UserError(
            f"a model that is trained must answer with its logits alone, not with a {type(answer).__name__}"
        )
    if len(logits) != len(images) or classes not in (None, logits.shape[1]):
        wanted = (len(images), classes or "classes")
        raise UserError(f"the model answers {len(images)} images with shape {tuple(logits.shape)}, not {wanted}")
    if not logits.isfinite().all(1).any():
        raise UserError("the model answers with NaN or infinite logits on every image: its weights may have diverged")
    return logits.shape[1]


def images_of(images: Any) -> Tensor:
    """Images as float32 of shape (n, channels, height, width), with no history; UserError if they are anything else."""
    found = torch.as_tensor(images)
    if not found.is_floating_point() or found.dim() != 4 or not found.numel():
        told = f"{found.dtype} of shape {tuple(found.shape)}"
        raise UserError(f"images must be floats in [0, 1] of shape (n, channels, height, width), got {told}")
    found = found.detach().float().clone()  # a copy: one that was made in inference mode would take no gradient
    if not found.isfinite().all() or found.min() < 0 or found.max() > 1:
        reach = f"these reach from {float(found.min()):g} to {float(found.max()):g}"
        raise UserError(f"images must lie in [0, 1], {reach}; normalisation belongs inside the model")
    return found


def labels_of(labels: Any, count: int, classes: int, device: torch.device) -> Tensor:
    """Labels as int64 of shape (count,), from any kind of integers, one-hot rows or a column; UserError otherwise."""
    found = torch.as_tensor(np.asarray(labels) if isinstance(labels, list) else labels).detach().to(device)
    if found.dim() == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.dim() == 2 and found.shape[1] == classes and bool(((found == 0) | (found == 1)).all()):
        if not (found.sum(1) == 1).all():
            raise UserError("one-hot labels must have a single 1 in each row")
        found = found.argmax(1)
    if found.dim() != 1 or len(found) != count or not count:
        raise UserError(f"grading needs as many labels as images, and some; got {tuple(found.shape)} for {count}")
    whole = found.long().clone()
    if found.dtype == torch.bool or bool((whole != found).any()):
        raise UserError(f"labels must be whole numbers, got {found.dtype}")
    if whole.min() < 0 or whole.max() >= classes:
        raise UserError(f"labels must lie in [0, {classes}), these reach from {whole.min()} to {whole.max()}")
    return whole
