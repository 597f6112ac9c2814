"""Mistakes that the user can put right, and how a command reports them."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from l2l_experiment.pipes import ignore_output_errors

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """A mistake the user can put right; its text is one sentence: what is wrong, where, and what would be right."""


class Diverged(UserError):
    """Training whose weights or losses became NaN or infinite: it cannot go on, nor be resumed from there."""


def exit_on_user_error(main: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a command's `main`: UserError prints `error: SENTENCE` on stderr and exits with 2; Ctrl-C prints one
    line and exits with 130; neither shows a traceback. A reader that closes its end of a pipe stops nothing."""

    @functools.wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with ignore_output_errors():
                return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.errno is None:  # no failure of a file or a device
                raise
            place = "a file" if error.filename is None else error.filename
            told = f"{place}: {error.strerror or error}; what was saved before is whole"
            print(f"error: cannot read or write {told}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("stopped at once; the last checkpoint is kept", file=sys.stderr)
            sys.exit(130)

    return command
