"""Figures as data: the curves that a diagnosis finds in a run, to be drawn now or later."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from l2l_experiment.files import write_atomically

FILE = "diagnosis.json"


class Drawing(NamedTuple):
    """Curves, and the words around them."""

    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]]  # By name; each a pair of steps and values
    labels: Mapping[str, Any]  # Keyword arguments of `l2l_compare.figures.learning_curves`


def plain(drawings: Mapping[str, Drawing], most: int | None = None) -> dict[str, Any]:
    """The drawings as plain values for JSON, numbers with five digits; of long curves `most` evenly chosen points."""

    def numbers(some: ArrayLike) -> list[float]:
        values = np.asarray(some, dtype=np.float64)
        if most is not None and len(values) > most:
            values = values[np.linspace(0, len(values) - 1, most).round().astype(int)]
        return [float(f"{value:.5g}") for value in values]

    return {
        name: {
            "curves": {title: [[*map(numbers, curve)] for curve in curves] for title, curves in drawing.curves.items()},
            "labels": dict(drawing.labels),
        }
        for name, drawing in drawings.items()
    }


def from_plain(content: Mapping[str, Any]) -> dict[str, Drawing]:
    """The drawings that `plain` wrote down."""
    return {
        name: Drawing({title: [*map(tuple, some)] for title, some in drawing["curves"].items()}, drawing["labels"])
        for name, drawing in content.items()
    }


def save(drawings: Mapping[str, Drawing], folder: Path) -> Path:
    """The numbers behind the pictures in FOLDER/diagnosis.json; returns it."""
    write_atomically(folder / FILE, (json.dumps(plain(drawings)) + "\n").encode())
    return folder / FILE
