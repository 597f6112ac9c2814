"""A look at the command line before the real parser runs."""

from collections.abc import Sequence


def value_of(flag: str, argv: Sequence[str], default: str) -> str:
    """What stands behind a flag: some flags (environment, data set) decide the defaults of all others."""
    for index, token in enumerate(argv):
        if token == flag and index + 1 < len(argv):
            return argv[index + 1]
        if token.startswith(flag + "="):
            return token.removeprefix(flag + "=")
    return default
