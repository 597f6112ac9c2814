"""The figures of README and docs: learning curves, scores over a setting, scores against a cost, a run's diagnosis."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import Row
from records import key, label, load

from l2l_compare.figures import frontier, learning_curves
from l2l_compare.setting_figures import over_setting

Spec = Mapping[str, Any]
Rows = Sequence[tuple[str, Row]]


def draw(stem: Path, spec: Spec, rows: Rows) -> None:
    """Draw `stem.png`: what `kind` says, with the groups `rows`."""
    KINDS[spec["kind"]](stem, spec, rows, {name: spec[name] for name in ("title", "xlabel", "ylabel") if name in spec})


def curves(stem: Path, spec: Spec, rows: Rows, labels: Spec) -> None:
    """A figure over steps, and as lines across the means of what `reference` names."""
    transform = np.log10 if spec.get("log10") else np.asarray
    groups = {
        name: [(steps, spec.get("factor", 1) * transform(values)) for steps, values in _of(row, spec["tag"])]
        for name, row in rows
    }
    reference = {
        name: float(np.mean([value for _, row in rows for value in row.own.values(path)]))
        for name, path in spec.get("reference", {}).items()
    }
    learning_curves(groups, stem, reference=reference, **labels)


def _of(row: Row, tag: str) -> list[Any]:
    return [run["curves"][tag] for run in row.own.runs if tag in run["curves"]]


def setting(stem: Path, spec: Spec, rows: Rows, labels: Spec) -> None:
    """Scores of each row over the values of a setting."""
    groups = {}
    for name, row in rows:
        values = sorted({key(run, spec["over"]) for run in row.own.runs})
        groups[name] = {label(value): row.where({spec["over"]: value}).own.values(spec["value"]) for value in values}
    over_setting(groups, stem, **labels)


def costs(stem: Path, spec: Spec, rows: Rows, labels: Spec) -> None:
    """Scores of each row against what it costs, of rows whose cost was measured."""
    known = {name: row for name, row in rows if row.own.values("cost")}
    points = {name: (float(row.get("cost.median")), row.own.values(spec["value"])) for name, row in known.items()}
    frontier(points, stem, **labels)


def diagnosis(stem: Path, spec: Spec, rows: Rows, labels: Spec) -> None:
    """One of the figures that scripts/diagnose.py made of a run."""
    drawing = load(spec["record"])["drawings"][spec["drawing"]]
    learning_curves(drawing["curves"], stem, **{**drawing["labels"], **labels})


KINDS = {"curves": curves, "setting": setting, "frontier": costs, "diagnosis": diagnosis}
