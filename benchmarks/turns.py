"""Things measured in turns within one process: only their ratios mean something beyond this machine."""

import statistics
from typing import Any


def ratios(measured: dict[str, list[float]], name: str, base: str) -> list[float]:
    """What was measured of one over what was measured of another in the same turn."""
    return [one / other for one, other in zip(measured[name], measured[base], strict=True)]


def table(record: dict[str, Any], raw: str, base: str, unit: str, column: str, digits: int) -> list[str]:
    """A record's summary: `raw` names its measurements, `unit` the medians, which `column` heads."""
    turns = len(record[raw][base])
    lines = [f"| {record['device']}, n = {turns} turns | {column} | ratio to {base} | quartiles |", "|---" * 4 + "|"]
    for name, row in record["summary"].items():
        low, high = row["quartiles"]
        lines.append(f"| {name} | {row[unit]:.{digits}f} | {row['ratio']:.2f} | {low:.2f}–{high:.2f} |")
    return lines


def compare(measured: dict[str, list[float]], base: str, unit: str) -> dict[str, dict[str, Any]]:
    """Print and return each name's median, and its ratio to `base` in the same turn: median and quartiles."""
    summary = {}
    print(f"{'':12}{unit.replace('_', ' '):>18}{f'ratio to {base}':>15}{'quartiles':>16}{'n':>5}")
    for name, values in measured.items():
        each = ratios(measured, name, base)
        low, middle, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
        median = statistics.median(values)
        summary[name] = {unit: median, "ratio": middle, "quartiles": [low, high]}
        print(f"{name:12}{median:18.5g}{middle:15.2f}{low:9.2f}–{high:.2f}{len(values):6}")
    return summary
