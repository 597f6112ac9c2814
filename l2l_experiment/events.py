"""Logs: TensorBoard event files and `metrics.jsonl`, read, written, and cut back to a checkpoint."""

import json
import math
import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_ndarray

from l2l_experiment.errors import UserError
from l2l_experiment.files import write_atomically

METRICS = "metrics.jsonl"
SECONDS = "time/time_elapsed"  # as Stable-Baselines3 has it: since the process began to train


def trim(folder: Path | str, last_step: int) -> None:
    """Make the logs in `folder` and below end at `last_step`, the step of the checkpoint that a run resumes from.

    What a killed run logged after its last checkpoint will be logged again: event files lose every event of a later
    step, `metrics.jsonl` every such row, both a cut-off end. Events behind damage in the middle of a file cannot be
    told apart and are lost, with a warning. Events without a step (file version, hyper-parameters) stay. Call it before
    a writer is opened. Files that need no change are not touched. A TensorBoard that is open meanwhile follows by
    itself; only with `--load_fast false` must it be started again.
    """
    for path in _event_files(folder):
        content = path.read_bytes()
        kept = _events_up_to(path, content, last_step)
        if kept != content:
            write_atomically(path, kept)
    for path in sorted(Path(folder).rglob(METRICS)):
        content = path.read_bytes()
        rows = [line for line, row in _rows(path, content) if row.get("step", last_step) <= last_step]
        kept = b"".join(line + b"\n" for line in rows)
        if kept != content:
            write_atomically(path, kept)


def read_scalars(folder: Path | str, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """`(steps, values)` of a scalar in the event files in `folder` and below, by rising step; empty if there is none.

    Of two values for one step the one written later counts.
    """
    return read_timed(folder, tag)[:2]


def read_timed(folder: Path | str, tag: str, *, whole: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The same with the seconds of writing at each value, and how many values were logged again for the same step; the
    time between two event files, when nobody wrote, is not counted.

    UserError if the scalar lies in several folders below `folder`, for those are several runs, and with `whole` if a
    file is cut off or damaged.
    """
    points: dict[int, tuple[float, float]] = {}
    doubled = 0
    before, name, holder = 0.0, tag.encode(), None
    for path in _event_files(folder):
        first = last = None
        plugin = ""  # a writer may name it at a tag's first value only
        for data in _records_with(name, path.read_bytes(), path if whole else None):
            try:
                event = Event.FromString(data)
            except DecodeError as error:
                if whole:
                    raise UserError(f"{path} is damaged: it holds a record that is no event") from error
                break
            first, last = first or event.wall_time, event.wall_time
            for value in event.summary.value:
                if value.tag != tag:
                    continue
                plugin = value.metadata.plugin_data.plugin_name or plugin
                if (number := _number(value, plugin)) is not None:
                    if holder not in (None, path.parent):
                        raise UserError(
                            f"{folder} holds several runs ({holder} and {path.parent}); name them one by one"
                        )
                    holder = path.parent
                    doubled += event.step in points
                    points[event.step] = (number, before + event.wall_time - first)
        before += (last or 0.0) - (first or 0.0)
    steps = sorted(points)
    values, seconds = (np.array([points[step][part] for step in steps], dtype=np.float64) for part in (0, 1))
    return np.array(steps, dtype=np.int64), values, seconds, doubled


def _number(value: Summary.Value, plugin: str) -> float | None:
    """The number that a value holds, if it is a scalar; PyTorch and TensorFlow write it differently."""
    if value.HasField("simple_value"):
        return value.simple_value
    return float(make_ndarray(value.tensor).item()) if plugin == "scalars" and value.HasField("tensor") else None


class JsonLines:
    """Appends rows of figures to a file, one JSON object a line, each on its way to disk when `write` returns."""

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (whole := _whole(path)) != path.read_bytes():
            write_atomically(path, whole)  # else the next row would be glued to the cut-off one
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; a value that is not finite is written as null, for JSON has no word for it."""
        if "step" in values:
            raise ValueError("'step' is the row's own column; give the value another name")
        numbers = {name: float(value) for name, value in values.items()}
        row = {"step": int(step)} | {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            raise UserError(
                f"{path} is damaged: a row without a step, or with a value that is no number; restore it"
            ) from None
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


def _whole(path: Path) -> bytes:
    return b"".join(line + b"\n" for line, _ in _rows(path, path.read_bytes()))


def _event_files(folder: Path | str) -> list[Path]:
    """Event files in `folder` and below, those of one folder oldest first: a name holds time, process and number."""

    def age(path: Path) -> tuple[Path, list[int | str]]:
        return path.parent, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

    return sorted(Path(folder).rglob("events.out.tfevents.*"), key=age)


def _records_with(name: bytes, content: bytes, whole: Path | None) -> Iterator[bytes]:
    """The data of an event file's first record and of those that hold `name`, up to a cut-off or damaged one; that is a
    UserError if the file is to be `whole`.

    As TensorBoard's loader has it, but only what is handed out is checked, for checksums in Python would take most of
    the time: damage inside the name itself hides a record. A record is a length of 8 bytes, 4 of its checksum, the
    data, 4 of its checksum.
    """
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + 12 + length
        if not length or end + 4 > len(content):  # no event is empty: zeros are what a power cut leaves
            break
        data = content[start + 12 : end]
        if start == 0 or name in data:
            if struct.unpack_from("<I", content, end) != (masked_crc32c(data),):
                break
            yield data
        start = end + 4
    if whole and start != len(content):
        raise UserError(f"{whole} is cut off or damaged at byte {start}; restore it, or add --unfinished")


def _events_up_to(path: Path, content: bytes, last_step: int) -> bytes:
    """The file's records of steps up to `last_step`, byte by byte as they were.

    TensorBoard's loader finds the records, checks them and stops at a cut-off one. On disk a record has 12 bytes before
    its data (length and checksum) and 4 behind (checksum). A step that was never set reads as 0 and so stays.
    """
    kept, offset = [], 0
    for data in RawEventFileLoader(str(path)).Load():
        end = offset + 12 + len(data) + 4
        if Event.FromString(data).step <= last_step:
            kept.append(content[offset:end])
        offset = end
    if not _is_tail(content[offset:]):
        lost = f"{path} is damaged at byte {offset} of {len(content)}; its events from there on are lost"
        warnings.warn(lost, stacklevel=3)
    return b"".join(kept)


def _is_tail(rest: bytes) -> bool:
    """Whether the rest of a file is what a kill or a power cut leaves: nothing, part of a record, or zeros."""
    if len(rest) < 12 or not any(rest):
        return True
    return 12 + struct.unpack_from("<Q", rest)[0] + 4 > len(rest)
