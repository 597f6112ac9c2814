"""Runs in one picture: learning curves, and scores against a cost."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from l2l_compare.reliability import RUNS_FOR_INTERVAL, bootstrap_interval, interquartile_mean, mean_interval
from l2l_experiment.stability import on_grid

Curve = tuple[ArrayLike, ArrayLike]  # steps, values
Points = Mapping[str, tuple[float, Sequence[float]]]  # by method: its cost, the scores of its runs

# Okabe and Ito's palette without its yellow, which vanishes on white: told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D")
GRID_POINTS = 200
FEW_POINTS = 12  # up to so many, a curve's own points are marked: a line between them was not measured
MOST_TICKS = 7
TITLE_WIDTH = 72  # characters; more would leave the picture where a legend takes its room
LEGEND_WIDTH = 34  # it stands beside the curves and takes its room from them
FOOTER_WIDTH = 150  # of the smaller letters below

STYLE = {"font.size": 10, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left"}
STYLE |= {"axes.titlepad": 12, "axes.edgecolor": "#555555", "axes.linewidth": 0.8}
STYLE |= dict.fromkeys(("xtick.color", "ytick.color"), "#555555")
STYLE |= dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "#222222")


def learning_curves(
    groups: Mapping[str, Sequence[Curve]],
    stem: Path | str,
    *,
    ylabel: str,
    title: str,
    reference: Mapping[str, float] | None = None,
    xlabel: str = "steps",
    worst: Mapping[str, int] | None = None,
    colours: Sequence[str] = (),
    count: bool = True,
    of: str = "runs",
    log: bool = False,
    verdict: str = "",
) -> Path:
    """Draw `stem.png` and return its path.

    A group is what one method's runs are called; each of its runs is a thin line, that whose place `worst` gives a
    dotted one. Its thick line is the interquartile mean over the runs, as far as all of them reach, and from three
    runs on the band around it is the mean's 95 % bootstrap interval at each step. `reference` draws named
    horizontal lines (an expert's return, say). Groups are named with their number of runs, unless `count` is off,
    for curves that are all of one run; `of` says what they are, then. With `log` the vertical axis is logarithmic.
    A group has the colour of its place in `colours`, so that pictures of some of the groups look alike, or by
    default that of its place in `groups`. The same input gives the same file, byte for byte, under one version of
    matplotlib."""
    if not groups or not all(groups.values()):
        raise ValueError("a figure needs at least one group, and every group at least one run")

    def draw(axes: Axes) -> None:
        places = list(dict.fromkeys([*colours, *groups]))
        for name, curves in groups.items():
            label = f"{name} (n = {len(curves)})" if count else name
            _draw_group(axes, label, curves, places.index(name), (worst or {}).get(name))
        for index, (name, value) in enumerate((reference or {}).items()):
            axes.axhline(value, color="#777777", linewidth=1.2, linestyle=DASHES[1 + index % 3], zorder=1.5, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, steps=[1, 2, 2.5, 5, 10]))
        if xlabel.endswith("steps"):
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if log:
            axes.set_yscale("log")
        axes.margins(x=0.01)

    most = max(map(len, groups.values()))
    footer = [verdict] if verdict else []
    footer += [f"thick: interquartile mean over {of}; thin: single {of}"] if most > 1 else []
    if most > 1 and worst:
        footer.append("dotted: the run that ends lowest")
    if most == RUNS_FOR_INTERVAL:
        footer.append(f"band: from the lowest to the highest, for with three {of} that is the bootstrap interval")
    elif most > RUNS_FOR_INTERVAL:
        footer.append("band: 95 % bootstrap interval of that mean, at each step")
    return save(draw, stem, title, xlabel, ylabel, "; ".join(footer))


def overview(panels: Mapping[str, Mapping[str, Any]], stem: Path | str, title: str) -> Path:
    """Draw `stem.png`: the curves of several figures beside each other, each under its name and its verdict, a line of
    what it shows. A panel has `groups` and the words that `learning_curves` takes."""
    rows = -(-len(panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.0, 0.6 + 3.6 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        for place, (name, panel) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(rows, 2, place)
            for index, (label, curves) in enumerate(panel["groups"].items()):
                _draw_group(axes, label, curves, index, None)
            for label, value in (panel.get("reference") or {}).items():
                axes.axhline(value, color="#777777", linewidth=1.2, linestyle=DASHES[1], zorder=1.5, label=label)
            if panel.get("log"):
                axes.set_yscale("log")
            axes.set(xlabel=panel.get("xlabel", "steps"), ylabel=textwrap.fill(panel["ylabel"], 42), axisbelow=True)
            axes.set_title(textwrap.fill(f"{name}: {panel.get('verdict', '')}".rstrip(": "), 54), fontsize=10)
            axes.grid(color="#DDDDDD", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        figure.savefig(png := Path(f"{stem}.png"), dpi=120)
    return png


def _draw_group(axes: Axes, label: str, curves: Sequence[Curve], index: int, lowest: int | None) -> None:
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
    first, last = max(np.min(steps) for steps, _ in curves), min(np.max(steps) for steps, _ in curves)
    # One run has no spread to show, and runs that never overlap have no mean: then the runs themselves carry the name.
    alone = len(curves) == 1 or last <= first
    for number, (steps, values) in enumerate(curves):
        order = np.argsort(np.asarray(steps), kind="stable")
        mark = {"marker": "o", "markersize": 3.5} if len(order) <= FEW_POINTS else {}
        points = np.asarray(steps)[order], np.asarray(values)[order]
        line = axes.plot(*points, color=colour, linewidth=0.7, alpha=0.35, **mark)[0]
        if number == lowest:
            line.set(linewidth=1.2, alpha=0.9, linestyle=DASHES[2], zorder=2.8)
        if alone:
            line.set(linewidth=1.5, alpha=1.0, linestyle=dash, zorder=3, label=label if number == 0 else None)
    if alone:
        return
    grid = np.linspace(first, last, GRID_POINTS)
    resampled = np.stack([on_grid(steps, values, grid) for steps, values in curves])
    if len(curves) >= RUNS_FOR_INTERVAL:
        axes.fill_between(grid, *bootstrap_interval([resampled]), color=colour, alpha=0.18, linewidth=0, zorder=2.5)
    mean = interquartile_mean(resampled, axis=0)
    axes.plot(grid, mean, color=colour, linestyle=dash, linewidth=2.2, label=label, zorder=3)


def frontier(
    points: Points, stem: Path | str, *, title: str, xlabel: str, ylabel: str, looks: Sequence[str] = ()
) -> Path:
    """Scores against a cost, one point a method; a PNG as above.

    A point is the mean over runs, its bar the 95 % interval of that mean by Student's t, from three runs on. Costs are
    on a logarithmic axis. The grey steps join the methods that no other beats at their cost or less. A method has
    colour and marker of its place in `looks`, so that pictures of some of the methods look alike, or by default those
    of its place in `points`."""
    if not points or not all(len(scores) for _, scores in points.values()):
        raise ValueError("a figure needs at least one method, and every method at least one run")
    means = {name: (cost, float(np.mean(scores))) for name, (cost, scores) in points.items()}
    order = sorted(means.values(), key=lambda point: (point[0], -point[1]))
    unbeaten = [point for i, point in enumerate(order) if all(point[1] > other[1] for other in order[:i])]

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.step(*zip(*unbeaten, strict=True), where="post", color="#AAAAAA", linewidth=1.2, zorder=1)
        places = list(dict.fromkeys([*looks, *points]))
        for name, (_, scores) in points.items():
            part, place = divmod(places.index(name), len(COLOURS))
            look = {"fmt": MARKERS[part % len(MARKERS)], "color": COLOURS[place]}
            half = mean_interval(scores) if len(scores) >= RUNS_FOR_INTERVAL else None
            axes.errorbar(*means[name], half, capsize=3, label=f"{name} ({len(scores)})", **look)
        axes.margins(x=0.12, y=0.1)
        if min(score for _, score in order) >= 0:
            axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))  # a bar may reach below what a share can be

    footer = "point: mean over runs (number of runs); bar: its 95 % interval (Student's t), from three runs on"
    return save(draw, stem, title, xlabel, ylabel, footer, height=4.5 if len(points) <= 10 else 7.0)


def save(
    draw: Callable[[Axes], None],
    stem: Path | str,
    title: str,
    xlabel: str,
    ylabel: str,
    footer: str,
    height: float = 4.5,
) -> Path:
    """Make the PNG of a figure whose content `draw` draws, in the style of all figures."""
    png = Path(f"{stem}.png")  # a stem may hold dots
    png.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.set(title=textwrap.fill(title, TITLE_WIDTH), xlabel=xlabel, ylabel=ylabel, axisbelow=True)
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        handles, names = axes.get_legend_handles_labels()
        if handles:
            # Beside the axes: inside them a legend covers some curve sooner or later.
            broken = [textwrap.fill(name, LEGEND_WIDTH) for name in names]
            place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0}
            axes.legend(handles, broken, frameon=False, handlelength=2.4, **place)
        figure.supxlabel(textwrap.fill(footer, FOOTER_WIDTH), fontsize=8, color="#666666", x=0.01, ha="left")
        figure.savefig(png, dpi=160)
    return png
