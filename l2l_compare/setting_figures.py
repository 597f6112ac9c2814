"""Scores over one setting or two, in the style of `figures`: how much does it matter?"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from l2l_compare import figures
from l2l_compare.figures import COLOURS, DASHES


def over_setting(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    path_stem: Path | str,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    reference: Mapping[str, float] | None = None,
) -> Path:
    """Scores over the values of a setting, evenly spaced: `groups[name][value]` are those of its runs.

    A dot is a run, a line joins the means over all runs of a value, and the band reaches from the lowest run to the
    highest. Values come in the order in which they first appear; one without runs is left out of its group's line.
    """
    if not groups or not all(any(map(len, by_value.values())) for by_value in groups.values()):
        raise ValueError("a figure needs at least one group, and every group at least one run")
    values = list(dict.fromkeys(value for by_value in groups.values() for value in by_value))

    def draw(axes: Axes) -> None:
        for index, (name, by_value) in enumerate(groups.items()):
            # A little aside, so that groups with the same scores stay apart.
            places = {value: values.index(value) + 0.06 * (index - (len(groups) - 1) / 2) for value in by_value}
            some = {value: scores for value, scores in by_value.items() if len(scores)}
            means = [float(np.mean(scores)) for scores in some.values()]
            line = axes.plot([places[value] for value in some], means, linewidth=2.2, color=COLOURS[index], zorder=3)
            line[0].set_label(name)
            ends = [[float(end(scores)) for scores in some.values()] for end in (min, max)]
            axes.fill_between([places[value] for value in some], *ends, alpha=0.12, color=COLOURS[index], linewidth=0)
            for value, scores in some.items():
                at = [places[value]] * len(scores)
                axes.plot(at, scores, "o-", linewidth=0.7, markersize=4, alpha=0.5, color=COLOURS[index], zorder=2)
        for name, score in (reference or {}).items():
            axes.axhline(score, color="#777777", linewidth=1.2, linestyle=DASHES[1], zorder=1.5, label=name)
        axes.set_xticks(range(len(values)), values)

    counts = sorted({len(scores) for by_value in groups.values() for scores in by_value.values() if len(scores)})
    runs = " or ".join(map(str, counts))
    return figures.save(
        draw,
        path_stem,
        title,
        xlabel,
        ylabel,
        f"line: mean over runs; dots: single runs, {runs} at a value; band: lowest to highest",
    )


def heat_map(
    cells: Mapping[tuple[str, str], Sequence[float]],
    path_stem: Path | str,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float],
    by_row: bool = False,
    worst: Callable[[Sequence[float]], float] = min,
) -> Path:
    """Scores over two settings: `cells[row, column]` are those of its runs.

    Rows and columns come in the order in which they first appear. A cell shows the mean over runs and the worst run
    below it (`max` where low is good), coloured by the mean between `limits`; one without runs is left blank. With
    `by_row` the colour is of the distance from the row's best mean, for rows that are not on one scale.
    """
    if not any(len(scores) for scores in cells.values()):
        raise ValueError("a figure needs at least one cell with a run")
    rows, columns = (list(dict.fromkeys(key[part] for key in cells)) for part in (0, 1))
    means = np.full((len(rows), len(columns)), np.nan)
    for (row, column), scores in cells.items():
        if len(scores):
            means[rows.index(row), columns.index(column)] = np.mean(scores)
    shades = means - np.nanmax(means, axis=1, keepdims=True) if by_row else means
    digits = 1 if limits[1] < 1000 else 0

    def draw(axes: Axes) -> None:
        for (row, column), scores in cells.items():
            if len(scores):
                i, j = rows.index(row), columns.index(column)
                dark = shades[i, j] < limits[0] + 0.6 * (limits[1] - limits[0])
                text = f"{means[i, j]:.{digits}f}\n({worst(scores):.{digits}f}, n = {len(scores)})"
                axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
        axes.imshow(shades, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)

    footer = "mean over runs (worst run, number of runs)" + "; colour: points below the row's best" * by_row
    return figures.save(
        draw, path_stem, title, xlabel, ylabel, footer, grid=False, height=max(4.5, 1.5 + 0.5 * len(rows))
    )
