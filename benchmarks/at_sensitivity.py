"""How much a setting matters in adversarial training: heat maps, curves, and the worst case over its values."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from at_tables import after_both

from l2l_experiment.setting_figures import heat_map, over_setting

SWEPT = {"step-length": "attack_size", "attacker-rate": "attacker_rate", "random-start": "attacker_rate"}
NAMES = {"attack_size": "step size over ε, as the attacker starts", "attacker_rate": "the attacker's learning rate"}
DEFAULT_SIZE = 0.75
FROZEN = "frozen"
Cells = dict[tuple[str, str], list[float]]  # accuracies under APGD-CE and APGD-T by row and column


def collect(runs: dict[str, Any], setting: str) -> Cells:
    """Accuracies by row (who, and at which radius) and value of the setting; a frozen attacker has no rate."""
    found: dict[tuple[str, float, float], list[float]] = defaultdict(list)
    for run in runs.values():
        settings = run["settings"]
        who = FROZEN if settings["freeze_attacker"] else "l2l"
        value = float(settings[setting] or DEFAULT_SIZE)
        if setting == "attacker_rate" and who == FROZEN:
            value = 0.0
        found[who, float(settings["eps"]), value].append(after_both(run))
    if setting == "attacker_rate":
        return {
            (f"ε = {eps:g}", FROZEN if not value else f"{value:g}"): found[who, eps, value]
            for who, eps, value in sorted(found, key=lambda key: (key[1], key[2]))
        }
    return {(f"{who}, ε = {eps:g}", f"{value:g}"): found[who, eps, value] for who, eps, value in sorted(found)}


def apart(cells: Cells) -> dict[str, dict[str, list[float]]]:
    """Scores by row and value, a row's frozen runs as a row of their own before it."""
    found: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (row, value), scores in cells.items():
        beside = (row, FROZEN) in cells
        name = f"{FROZEN}, {row}" if value == FROZEN else f"l2l, {row}" if beside else row
        found[name][value] = scores
    return dict(found)


def table(cells: Cells) -> list[str]:
    """The figure of merit: the worst value's mean, the worst run, and the value that tuning would have chosen.

    A frozen attacker has no rate, and is no value of the learned one's: it has a row of its own.
    """
    lines = ["| | n | worst value, mean % | worst run, % | best value, mean % |", "|---" * 5 + "|"]
    for row, by_value in apart(cells).items():
        means = {column: float(np.mean(scores)) for column, scores in by_value.items()}
        worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        lowest = min(min(scores) for scores in by_value.values())
        count = f"{sum(map(len, by_value.values()))}" + f" over {len(means)} values" * (len(means) > 1)
        low, high = (f"{means[value]:.1f}" + f" at {value}" * (value != FROZEN) for value in (worst, best))
        lines.append(f"| {row} | {count} | {low} | {lowest:.1f} | {high} |")
    return lines


def draw(cells: Cells, setting: str, path_stem: Path) -> list[str]:
    """The heat map and a curve for each radius; returns the lines that show them."""
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
    lines = ["", f"![accuracy over {NAMES[setting]}](at/{png.name})"]
    rows = apart(cells)
    for radius in dict.fromkeys(row.split(", ")[-1] for row in rows):
        lines += draw_curve({row: found for row, found in rows.items() if row.endswith(radius)}, setting, path_stem)
    return lines


def draw_curve(rows: dict[str, dict[str, list[float]]], setting: str, path_stem: Path) -> list[str]:
    """Accuracy over the setting at one radius; a frozen attacker without values of its own is a line across."""
    radius = next(iter(rows)).split(", ")[-1]
    moving = {row.split(", ")[0]: by_value for row, by_value in rows.items() if by_value.keys() != {FROZEN}}
    still = {row: float(np.mean(by_value[FROZEN])) for row, by_value in rows.items() if by_value.keys() == {FROZEN}}
    png, _ = over_setting(
        moving,
        path_stem.with_name(f"{path_stem.name}_{radius.removeprefix('ε = ')}"),
        title=f"digits, ℓ∞, {radius}: accuracy under APGD-CE and APGD-T, %",
        xlabel=NAMES[setting],
        ylabel="% of test images",
        reference={f"{FROZEN}, mean": score for score in still.values()},
    )
    return ["", f"![the same as a curve, {radius}](at/{png.name})"]
