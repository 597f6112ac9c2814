"""Scalars in TensorBoard event files, whoever wrote them."""

import re
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from l2l_experiment.errors import UserError

Logged = list[tuple[float, float, float]]  # steps, values and hours in the order of writing
FRAME = 16  # bytes of a record beside its data: length and two checksums


def reader(folder: Path, *, strict: bool = True) -> Callable[[str], Logged]:
    """Read the event files in a folder and below; the function that it gives knows the values of each tag.

    Hours are those of writing; the time between two files, when nobody wrote, is left out. UserError if a file is cut
    off or damaged, unless `strict` is off: then it is read up to there; and, of the function, if the tag is in several
    folders, for those are several runs."""

    def age(path: Path) -> list[int | str]:  # a name holds time, process and number
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

    files = {path: _load(path, strict) for path in sorted(folder.rglob("events.out.tfevents.*"), key=age)}

    def logged(tag: str) -> Logged:
        found, before = [], 0.0
        points = {path: scalars for path, file in files.items() if (scalars := _scalars(file, tag))}
        if len(places := sorted({path.parent for path in points})) > 1:
            raise UserError(f"{folder} holds several runs ({places[0]} and {places[1]}); name them one by one")
        for path, scalars in points.items():
            first = files[path].FirstEventTimestamp()
            found += [(float(step), value, (before + time - first) / 3600) for step, time, value in scalars]
            before += scalars[-1][1] - first
        return found

    return logged


def _load(path: Path, strict: bool) -> EventAccumulator:
    if strict:  # the accumulator stops at damage without a word
        end = sum(FRAME + len(data) for data in RawEventFileLoader(str(path)).Load())
        if end != path.stat().st_size:
            raise UserError(f"{path} is cut off or damaged at byte {end}; restore it, or add --unfinished")
    file = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    try:
        file.Reload()
    except DecodeError as error:
        if strict:
            raise UserError(f"{path} is damaged: it holds a record that is no event") from error
    return file


def _scalars(file: EventAccumulator, tag: str) -> Logged:
    """Steps, times and values of a scalar; TensorFlow writes it as a tensor."""
    tags = file.Tags()
    if tag in tags["scalars"]:
        return [(point.step, point.wall_time, point.value) for point in file.Scalars(tag)]
    if tag in tags["tensors"] and file.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
        return [(p.step, p.wall_time, float(make_ndarray(p.tensor_proto).item())) for p in file.Tensors(tag)]
    return []
