"""Adapters to attacks that are not ours: pyautoattack and foolbox, each isolated from the process."""

import contextlib
import importlib.metadata
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from l2l_at.answers import Classifier, correct
from l2l_at.threat import Threat
from l2l_experiment.errors import UserError

AUTOATTACK = {"quick": ("apgd-ce", "apgd-t"), "standard": ("apgd-ce", "apgd-t", "fab-t", "square")}
FOOLBOX = "foolbox-pgd50"
TOLERANCE = 1e-4  # of the radius: what rounding may leave outside the ball


@dataclass(frozen=True)
class Attacked:
    """What an attack did to a batch."""

    fooled: Tensor  # bool, shape (batch,): a perturbation in the threat model was found that changes the prediction
    messages: tuple[str, ...]  # What the attack's own checks had to say


def attack(name: str, model: Classifier, images: Tensor, labels: Tensor, threat: Threat, *, seed: int) -> Attacked:
    """Run one attack on images that the model gets right; what it returns is checked here again. The model must be in
    evaluation mode. Random generators, tracing and log handlers are left as they were. UserError if the attack fails.

    Where the attack meets an answer that is not finite, it runs again with a class for such answers: an attack that
    compares NaN with a label may take it for a right answer."""
    for nonfinite_class in (False, True):
        model.nonfinite_class, model.nonfinite_count = nonfinite_class, 0
        with _isolated() as messages:
            torch.manual_seed(seed)
            run = _foolbox if name == FOOLBOX else _autoattack
            try:
                attacked = run(name, model, images, labels, threat, seed).detach()
            except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
                shape = tuple(images.shape[1:])
                detail = str(error).splitlines()[0] if str(error) else "no detail"
                raise UserError(
                    f"{name} fails in {threat.norm} on images of shape {shape} ({type(error).__name__}: {detail}); "
                    "attacks that finished are saved if `path` was given"
                ) from error
        if not model.nonfinite_count:
            break
        messages.append(f"{name} met NaN or infinite answers of the model; they count as wrong")
    model.nonfinite_class = False
    inside = threat.size(attacked - images) <= threat.radius * (1 + TOLERANCE)
    inside &= ((attacked >= -1e-6) & (attacked <= 1 + 1e-6)).flatten(1).all(1)
    with torch.no_grad():
        wrong = ~correct(model(attacked), labels)
    if outside := int((~inside).sum()):
        messages.append(f"{name} left the threat model on {outside} images, which are counted as not fooled")
    return Attacked(wrong & inside, tuple(dict.fromkeys(messages)))


def package_of(name: str) -> str:
    package = "foolbox" if name == FOOLBOX else "pyautoattack"
    return f"{package} {importlib.metadata.version(package)}"


def _autoattack(name: str, model: Classifier, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
    from pyautoattack import AutoAttack, checks

    # The counters behind its check for dynamic defences are never reset: one such model would taint all later ones.
    for key in checks.funcs:
        checks.funcs[key] = 0
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[threat.norm]
    adversary = AutoAttack(model, norm=norm, eps=threat.radius, seed=seed, version="standard", device=images.device)
    adversary.attacks_to_run = [name]  # with the settings that "standard" gives it
    with torch.no_grad():
        others = model(images[:1]).shape[1] - 1
    for targeted in (adversary.apgd_targeted, adversary.fab):
        targeted.n_target_classes = min(targeted.n_target_classes, others)
    attacked, _ = adversary.run_standard_evaluation(images, labels, batch_size=len(images))
    return attacked


def _foolbox(name: str, model: Classifier, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
    import foolbox

    kinds = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD, "l1": foolbox.attacks.L1PGD}
    adversary = kinds[threat.norm](steps=50, rel_stepsize=2.5 / 50, random_start=True)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    _, clipped, _ = adversary(wrapped, images, labels, epsilons=threat.radius)
    return clipped


@contextlib.contextmanager
def _isolated() -> Iterator[list[str]]:
    """Collects what the attack says, and undoes what it does to the process."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("auto-attack"), Collect(level=logging.WARNING)
    tracing, python, numpy = sys.gettrace(), random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield messages
        messages.extend(str(item.message) for item in caught if issubclass(item.category, UserWarning))
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        sys.settrace(tracing)
