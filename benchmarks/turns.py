"""Things measured in turns within one process: only their ratios mean something beyond this machine."""

import statistics
from typing import Any


def ratio(measured: dict[str, list[float]], name: str, base: str) -> float:
    """Median over turns of what was measured of one over what was measured of another in the same turn."""
    return statistics.median(a / b for a, b in zip(measured[name], measured[base], strict=True))


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
        ratios = [value / other for value, other in zip(values, measured[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        median = statistics.median(values)
        summary[name] = {unit: median, "ratio": middle, "quartiles": [low, high]}
        print(f"{name:12}{median:18.5g}{middle:15.2f}{low:9.2f}–{high:.2f}{len(values):6}")
    return summary
