"""The log of a run, `metrics.jsonl`: one JSON object a line, written, cut back to a checkpoint, and read."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from l2l_experiment.errors import UserError
from l2l_experiment.files import write_atomically

METRICS = "metrics.jsonl"
SECONDS = "time/time_elapsed"  # as Stable-Baselines3 has it: since the process began to train


class JsonLines(AbstractContextManager):
    """Appends rows of figures to a file, each on its way to disk when `write` returns.

    `after`: rows of a later step, which a run logged before it was killed and will log again, are removed first.
    """

    def __init__(self, path: Path | str, *, after: int | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            content = path.read_bytes()
            rows = [line for line, row in _rows(path, content) if after is None or row.get("step", after) <= after]
            kept = b"".join(line + b"\n" for line in rows)
            if kept != content:  # a cut-off last line would be glued to the next row
                write_atomically(path, kept)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; NaN and infinities are written as null, for JSON has no word for them."""
        if "step" in values:
            raise ValueError("'step' is the row's own column; give the value another name")
        numbers = {name: float(value) for name, value in values.items()}
        row = {"step": int(step)} | {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path | str, *, whole: bool = True) -> list[dict[str, Any]]:
    """The rows that `JsonLines` wrote, null as NaN; a cut-off last line is passed over.

    UserError if a row is damaged; or, unless the file is to be `whole`, the rows before it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; name a run's {METRICS}")
    rows = []
    for _, row in _rows(path, path.read_bytes(), whole):
        try:
            numbers = {n: math.nan if v is None else float(v) for n, v in row.items() if n != "step"}
            rows.append({"step": row["step"]} | numbers)
        except (KeyError, ValueError, TypeError, OverflowError):
            if not whole:
                break
            raise UserError(f"{path} is damaged: a row lacks its step or holds no number; restore it") from None
    return rows


def curves_of(rows: Sequence[Mapping[str, float]], tags: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Steps and values, shape (2, n), of each figure that rows hold, by the title that `tags` gives it; without those
    that never have a finite value."""
    found = {}
    for title, tag in tags.items():
        points = [(row["step"], row[tag]) for row in rows if np.isfinite(row.get(tag, np.nan))]
        if points:
            found[title] = np.array(points, dtype=np.float64).T
    return found


def _rows(path: Path, content: bytes, whole: bool = True) -> list[tuple[bytes, dict[str, Any]]]:
    """Lines and what they hold, without a cut-off last one; unless the file is to be `whole`, those before damage."""
    lines = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = row.get("step", 0) if isinstance(row, dict) else None
            if not isinstance(step, int | float) or not abs(step) < 2**63:
                raise ValueError("no object, or one with a step that is no number")
        except ValueError:
            if number == len(lines) or not whole:  # cut off in the middle, or empty as it should be
                break
            raise UserError(f"line {number} of {path} is damaged; remove it, or restore the file") from None
        rows.append((line, row))
    return rows
