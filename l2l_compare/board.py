"""Groups of runs in TensorBoard: each is a run of its own, with a colour and a name, and all have the same tags."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch.utils.tensorboard import SummaryWriter

from l2l_compare.curves import Curve
from l2l_compare.reliability import RUNS_FOR_INTERVAL, bootstrap_interval, interquartile_mean
from l2l_experiment.board import add_charts
from l2l_experiment.files import file_name
from l2l_experiment.stability import drawdown, on_grid

SUFFIX = ".l2l-comparison"
DRAWDOWN, SPREAD = "stability/drawdown", "stability/spread_across_runs"


def write(folder: Path, groups: Mapping[str, Sequence[Curve]], grids: Mapping[str, ArrayLike], tag: str) -> None:
    """Write a folder a group (of several tasks: TASK/GROUP), in place of what an earlier call left; others' files stay.

    Scalars on the group's grid: `tag`, the interquartile mean over its runs; `TAG_lower` and `TAG_upper`, its 95 %
    bootstrap interval, from three runs on; `stability/drawdown`, the interquartile mean of the runs' distance from
    their own best so far; `stability/spread_across_runs`, the interquartile range. The Custom Scalars tab shows the
    mean in its band."""
    for old in [*folder.rglob(f"*{SUFFIX}")]:
        old.unlink()
        if not any(old.parent.iterdir()) and old.parent != folder:
            shutil.rmtree(old.parent)
    several = len({curves[0].task for curves in groups.values()}) > 1
    for name, curves in groups.items():
        grid = np.asarray(grids[name])
        whole = np.unique(np.round(grid))  # TensorBoard's steps are whole numbers: values are those at them, each once
        steps = whole[(whole >= grid[0]) & (whole <= grid[-1])]
        values = np.stack([on_grid(curve.steps, curve.values, steps) for curve in curves])
        mean = interquartile_mean(values, axis=0)
        low, high = bootstrap_interval([values]) if len(curves) >= RUNS_FOR_INTERVAL else (mean, mean)
        lines = {tag: mean, f"{tag}_lower": low, f"{tag}_upper": high}
        lines[DRAWDOWN] = interquartile_mean(np.stack([drawdown(some) for some in values]), axis=0)
        if len(curves) > 1:
            lines[SPREAD] = np.subtract(*np.percentile(values, [75, 25], axis=0))
        place = folder / file_name(curves[0].task) / file_name(curves[0].group) if several else folder / file_name(name)
        with SummaryWriter(str(place), filename_suffix=SUFFIX) as writer:
            for title, line in lines.items():
                for step, value in zip(steps, line, strict=True):
                    writer.add_scalar(title, value, int(step))
            stability = {"drawdown": [DRAWDOWN], "spread across runs": [SPREAD]}
            add_charts(writer, {"stability": stability}, {"comparison": {tag: (tag, f"{tag}_lower", f"{tag}_upper")}})
