"""The methods by name; one short file each."""

from l2l_at.config import ATConfig
from l2l_at.methods.base import Answer, Method
from l2l_at.methods.fgsm_rs import FGSMRS
from l2l_at.methods.l2l import L2L
from l2l_at.methods.l2l_published import L2L2Step, L2LGrad, L2LKStep, L2LNaive
from l2l_at.methods.pgd import PGD
from l2l_at.methods.standard import Standard
from l2l_experiment.errors import UserError

__all__ = ["METHODS", "Answer", "Method", "make"]

METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "pgd": PGD,
    "fgsm-rs": FGSMRS,
    "l2l": L2L,
    "l2l-naive": L2LNaive,
    "l2l-grad": L2LGrad,
    "l2l-2step": L2L2Step,
    "l2l-kstep": L2LKStep,
}


def make(config: ATConfig, shape: tuple[int, int, int]) -> Method:
    """The method that a configuration names, for images of this shape."""
    if config.method not in METHODS:
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {config.method!r}")
    return METHODS[config.method](config, shape)
