"""Scores over one setting, in the style of `figures`: how much does it matter?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from l2l_compare import figures
from l2l_compare.figures import COLOURS, DASHES

Scores = Mapping[str, Mapping[str, Sequence[float]]]  # by group and value of the setting: one of each run


def over_setting(
    groups: Scores,
    stem: Path | str,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    reference: Mapping[str, float] | None = None,
) -> Path:
    """Draw `stem.png`, scores over the values of a setting, evenly spaced, and return its path.

    A dot is a run, a line joins the means over all runs of a value, and the band reaches from the lowest run to the
    highest. Values come in the order in which they first appear; one without runs is left out of its group's line."""
    if not groups or not all(any(map(len, by_value.values())) for by_value in groups.values()):
        raise ValueError("a figure needs at least one group, and every group at least one run")
    values = list(dict.fromkeys(value for by_value in groups.values() for value in by_value))

    def draw(axes: Axes) -> None:
        for index, (name, by_value) in enumerate(groups.items()):
            aside = 0.06 * (index - (len(groups) - 1) / 2)  # so that groups with the same scores stay apart
            known = [(values.index(value) + aside, scores) for value, scores in by_value.items() if len(scores)]
            places, runs = zip(*known, strict=True)
            colour = COLOURS[index]
            axes.plot(places, [*map(np.mean, runs)], linewidth=2.2, color=colour, zorder=3, label=name)
            axes.fill_between(places, [*map(min, runs)], [*map(max, runs)], alpha=0.12, color=colour, linewidth=0)
            for place, scores in known:
                look = {"linewidth": 0.7, "markersize": 4, "alpha": 0.5, "color": colour}
                axes.plot([place] * len(scores), scores, "o-", zorder=2, **look)
        for name, score in (reference or {}).items():
            axes.axhline(score, color="#777777", linewidth=1.2, linestyle=DASHES[1], zorder=1.5, label=name)
        axes.set_xticks(range(len(values)), values)

    counts = sorted({len(scores) for by_value in groups.values() for scores in by_value.values() if len(scores)})
    footer = f"line: mean over runs; dots: single runs, {' or '.join(map(str, counts))} at a value"
    return figures.save(draw, stem, title, xlabel, ylabel, f"{footer}; band: lowest to highest")
