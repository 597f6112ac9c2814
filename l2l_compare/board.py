"""Groups of runs on one TensorBoard chart: their interquartile means with bands, by the custom-scalars plugin."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from torch.utils.tensorboard import SummaryWriter

from l2l_compare.curves import Curve
from l2l_compare.reliability import RUNS_FOR_INTERVAL, bootstrap_interval, interquartile_mean
from l2l_experiment.stability import on_grid

Margin = layout_pb2.MarginChartContent
SUFFIX = ".l2l-comparison"


def write(folder: Path, groups: Mapping[str, Sequence[Curve]], grids: Mapping[str, ArrayLike], tag: str) -> None:
    """Write aggregated curves, each group's on its grid, and a layout into `folder`, in place of what an earlier call
    left there; others' files stay.

    For each group three scalars GROUP/mean, GROUP/low and GROUP/high; the chart "TAG" of the custom-scalars tab shows
    all groups with their bands, or "TASK: TAG" those of each of several tasks. A band is the 95 % bootstrap interval of
    the interquartile mean, from three runs on."""
    for old in folder.glob(f"*{SUFFIX}"):
        old.unlink()
    # TensorBoard's steps are whole numbers: values are those at whole steps, each once.
    tasks: dict[str, list[Margin.Series]] = {}
    with SummaryWriter(str(folder), filename_suffix=SUFFIX) as writer:
        for name, curves in groups.items():
            grid = np.asarray(grids[name])
            whole = np.unique(np.round(grid))
            steps = whole[(whole >= grid[0]) & (whole <= grid[-1])]
            values = np.stack([on_grid(curve.steps, curve.values, steps) for curve in curves])
            mean = interquartile_mean(values, axis=0)
            low, high = bootstrap_interval([values]) if len(curves) >= RUNS_FOR_INTERVAL else (mean, mean)
            for part, line in (("mean", mean), ("low", low), ("high", high)):
                for step, value in zip(steps, line, strict=True):
                    writer.add_scalar(f"{name}/{part}", value, int(step))
            series = Margin.Series(value=f"{name}/mean", lower=f"{name}/low", upper=f"{name}/high")
            tasks.setdefault(curves[0].task, []).append(series)
        titles = {task: f"{task}: {tag}" if len(tasks) > 1 else tag for task in tasks}
        charts = [layout_pb2.Chart(title=titles[task], margin=Margin(series=some)) for task, some in tasks.items()]
        layout = layout_pb2.Layout(category=[layout_pb2.Category(title="comparison", chart=charts)])
        writer.file_writer.add_summary(_summary(layout))


def _summary(layout: layout_pb2.Layout) -> Summary:
    """A layout as the plugin looks for it (TensorBoard's helper needs TensorFlow, PyTorch's has one band a chart)."""
    content = TensorProto(dtype="DT_STRING", string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME))
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=content, metadata=kind)])
