"""Output that may fail: a pipe that is closed (`command | head`, a `tee` that Ctrl-C ends), a full disk, no stream."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _SafeStream:
    """A stream that goes on into nothing once it cannot be written to any more, or where there is none."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115

    def write(self, text: str) -> int:
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        self._attempt("flush")

    def _attempt(self, method: str, *arguments: str) -> None:
        try:
            getattr(self._stream, method)(*arguments)
        except (OSError, ValueError):  # ValueError: it was closed
            with contextlib.suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self._stream.fileno())
                os.close(nothing)
                self._stream.flush()  # what it still held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def ignore_output_errors() -> Iterator[None]:
    """Within the block stdout and stderr that are closed, full or missing stop nothing: work can still be saved."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_SafeStream, before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
