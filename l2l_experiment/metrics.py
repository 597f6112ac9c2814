"""The log of a run, `metrics.jsonl`: one JSON object a line, written, cut back to a checkpoint, and read."""

import json
import math
import os
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
            rows = [line + b"\n" for line, row in _rows(path) if after is None or row["step"] <= after]
            if (kept := b"".join(rows)) != path.read_bytes():  # a cut-off last line would be glued to the next row
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

    def sync(self) -> None:
        """Write all rows to the disk (fsync), before a checkpoint is saved that refers to them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path | str, *, strict: bool = True) -> list[dict[str, Any]]:
    """The rows that `JsonLines` wrote, null as NaN; a cut-off last line is passed over. Rows of one step that follow
    each other (a round's, an evaluation's) become one, in which the later value counts.

    UserError if a row is damaged; without `strict`, the rows before it instead."""
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}; name a run's {METRICS}")
    rows: list[dict[str, Any]] = []
    for _, row in _rows(Path(path), strict):
        if rows and rows[-1]["step"] == row["step"]:
            rows[-1] |= row
        else:
            rows.append(row)
    return rows


def missing(path: Path | str, step: int, every: int) -> list[int]:
    """The steps up to `step` of which a log that has a row each `every` steps has none, as after a power cut."""
    logged = {row["step"] for _, row in _rows(Path(path))} if Path(path).is_file() else set()
    return [step for step in range(every, step + 1, every) if step not in logged]


def curves_of(rows: Sequence[Mapping[str, float]], tags: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Steps and values, shape (2, n), of each figure that rows hold, by the title that `tags` gives it; without those
    that never have a finite value."""
    found = {}
    for title, tag in tags.items():
        if points := [(row["step"], row[tag]) for row in rows if np.isfinite(row.get(tag, np.nan))]:
            found[title] = np.array(points, dtype=np.float64).T
    return found


def _rows(path: Path, strict: bool = True) -> list[tuple[bytes, dict[str, Any]]]:
    """Lines with what they hold."""
    rows, lines = [], path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            row = {name: math.nan if value is None else float(value) for name, value in content.items()}
            if not abs(row["step"]) < 2**63:
                raise ValueError("a step that is no number")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            if number == len(lines) or not strict:  # cut off in the middle, or empty as it should be
                break
            raise UserError(f"line {number} of {path} is damaged; remove it, or restore the file") from None
        rows.append((line, row | {"step": content["step"]}))
    return rows
