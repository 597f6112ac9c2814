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
from torch import Tensor, nn

from l2l_at.threat import Threat

AUTOATTACK = {"quick": ("apgd-ce", "apgd-t"), "standard": ("apgd-ce", "apgd-t", "fab-t", "square")}
FOOLBOX = "foolbox-pgd50"
TOLERANCE = 1e-4  # of the radius: what rounding may leave outside the ball


@dataclass(frozen=True)
class Attacked:
    """What an attack did to a batch."""

    fooled: Tensor  # bool, shape (batch,): a perturbation in the threat model was found that changes the prediction
    messages: tuple[str, ...]  # What the attack's own checks had to say


def attack(name: str, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, *, seed: int) -> Attacked:
    """Run one attack on images that the model gets right; what it returns is checked here again. The model must be in
    evaluation mode. Random generators, tracing and log handlers are left as they were."""
    with _isolated() as messages:
        torch.manual_seed(seed)
        run = _foolbox if name == FOOLBOX else _autoattack
        attacked = run(name, model, images, labels, threat, seed).detach()
    inside = threat.size(attacked - images) <= threat.radius * (1 + TOLERANCE)
    inside &= ((attacked >= -1e-6) & (attacked <= 1 + 1e-6)).flatten(1).all(1)
    with torch.no_grad():
        wrong = model(attacked).argmax(1) != labels
    if outside := int((~inside).sum()):
        messages.append(f"{name} left the threat model on {outside} images, which are counted as not fooled")
    return Attacked(wrong & inside, tuple(dict.fromkeys(messages)))


def package_of(name: str) -> str:
    package = "foolbox" if name == FOOLBOX else "pyautoattack"
    return f"{package} {importlib.metadata.version(package)}"


def _autoattack(name: str, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
    from pyautoattack import AutoAttack, checks

    # The counters behind its check for dynamic defences are never reset: one such model would taint all later ones.
    for key in checks.funcs:
        checks.funcs[key] = 0
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[threat.norm]
    adversary = AutoAttack(model, norm=norm, eps=threat.radius, seed=seed, version="standard", device=images.device)
    adversary.attacks_to_run = [name]  # with the settings that "standard" gives it
    attacked, _ = adversary.run_standard_evaluation(images, labels, batch_size=len(images))
    return attacked


def _foolbox(name: str, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int) -> Tensor:
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
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
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
