"""Things measured in turns within one process: only their ratios mean something beyond this machine."""

import json
import statistics
from pathlib import Path
from typing import Any

from l2l_experiment import provenance


def compare(measured: dict[str, list[float]], base: str, unit: str) -> dict[str, dict[str, Any]]:
    """Print and return each name's median, and its ratio to `base` in the same turn: median and quartiles."""
    summary = {}
    print(f"{'':12}{unit.replace('_', ' '):>18}{f'ratio to {base}':>15}{'quartiles':>16}{'n':>5}")
    for name, values in measured.items():
        each = [one / other for one, other in zip(values, measured[base], strict=True)]
        low, middle, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
        median = statistics.median(values)
        summary[name] = {unit: median, "ratio": middle, "quartiles": [low, high]}
        print(f"{name:12}{median:18.5g}{middle:15.2f}{low:9.2f}–{high:.2f}{len(values):6}")
    return summary


def write(path: Path, content: dict[str, Any]) -> None:
    """A record of measurements, with where they were made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(provenance.origin() | content, indent=1) + "\n")
