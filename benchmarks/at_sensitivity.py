"""How much a setting matters in adversarial training: heat maps and the worst case over the setting's values."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from at_tables import after_both

from l2l_experiment.setting_figures import heat_map

SWEPT = {"step-length": "attack_size", "attacker-rate": "attacker_rate", "random-start": "attacker_rate"}
NAMES = {"attack_size": "step size over ε, as the attacker starts", "attacker_rate": "the attacker's learning rate"}
DEFAULT_SIZE = 0.75
Cells = dict[tuple[str, str], list[float]]  # accuracies under APGD-CE and APGD-T by row and column


def collect(runs: dict[str, Any], setting: str) -> Cells:
    """Accuracies by row (who, and at which radius) and value of the setting; a frozen attacker has no rate."""
    found: dict[tuple[str, float, float], list[float]] = defaultdict(list)
    for run in runs.values():
        settings = run["settings"]
        who = "frozen" if settings["freeze_attacker"] else "l2l"
        value = float(settings[setting] or DEFAULT_SIZE)
        if setting == "attacker_rate" and who == "frozen":
            value = 0.0
        found[who, float(settings["eps"]), value].append(after_both(run))
    if setting == "attacker_rate":
        return {
            (f"ε = {eps:g}", "frozen" if not value else f"{value:g}"): found[who, eps, value]
            for who, eps, value in sorted(found, key=lambda key: (key[1], key[2]))
        }
    return {(f"{who}, ε = {eps:g}", f"{value:g}"): found[who, eps, value] for who, eps, value in sorted(found)}


def table(cells: Cells) -> list[str]:
    """The figure of merit: the worst value's mean, the worst run, and the value that tuning would have chosen."""
    lines = ["| | n | worst value, mean % | worst run, % | best value, mean % |", "|---" * 5 + "|"]
    for row in dict.fromkeys(row for row, _ in cells):
        by_value = {column: scores for (other, column), scores in cells.items() if other == row}
        means = {column: float(np.mean(scores)) for column, scores in by_value.items()}
        worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        lowest = min(min(scores) for scores in by_value.values())
        count = f"{sum(map(len, by_value.values()))} over {len(means)} values"
        lines.append(
            f"| {row} | {count} | {means[worst]:.1f} at {worst} | {lowest:.1f} | {means[best]:.1f} at {best} |"
        )
    return lines


def draw(cells: Cells, setting: str, path_stem: Path) -> list[str]:
    """The heat map; returns the line that shows it."""
    means = [float(np.mean(scores)) for scores in cells.values()]
    by_row = setting == "attacker_rate"  # its rows are radii, which are not compared
    limits = (-10, 0) if by_row else (10 * np.floor(min(means) / 10), 10 * np.ceil(max(means) / 10))
    png, _ = heat_map(
        cells,
        path_stem,
        title="digits, ℓ∞: accuracy on test images under APGD-CE and APGD-T, %",
        xlabel=NAMES[setting],
        ylabel="",
        limits=limits,
        by_row=by_row,
    )
    return ["", f"![accuracy over {NAMES[setting]}](at/{png.name})"]
