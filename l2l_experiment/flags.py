"""Checks of flags that the parser of the command line does not make."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from l2l_experiment.errors import UserError


def value_of(flag: str, argv: Sequence[str], default: str) -> str:
    """What stands behind a flag: some flags (environment, data set) decide the defaults of all others.

    Of a flag that is given twice the last counts, as for the parser.
    """
    value = default
    for index, token in enumerate(argv):
        if token == flag and index + 1 < len(argv):
            value = argv[index + 1]
        if token.startswith(flag + "="):
            value = token.removeprefix(flag + "=")
    return value


def require_finite(settings: Any) -> None:
    """UserError that names the flag if a field of a dataclass instance is a float, but infinite or no number."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{field.name.replace('_', '-')} must be a finite number, got {value}")
