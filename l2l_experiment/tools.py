"""The training tools by the kind that a run's record names; this package runs them and imports none of them."""

import importlib
from types import ModuleType

from l2l_experiment.errors import UserError

TOOLS = {"gail": "l2l_gail", "at": "l2l_at"}


def module(kind: str, part: str) -> ModuleType:
    """A tool's module, e.g. `cli` (`parse`, `main`) or `diagnosis` (`diagnose`); UserError for an unknown kind."""
    if kind not in TOOLS:
        raise UserError(f"{kind!r} is no training tool; there are {', '.join(TOOLS)}")
    return importlib.import_module(f"{TOOLS[kind]}.{part}")
