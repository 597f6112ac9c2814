"""What TensorBoard shows of a run beside its scalars: settings and final figures (HParams), the command and a summary
(Text), and charts of what belongs together (Custom Scalars)."""

from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from l2l_experiment.settings import BOOKKEEPING, flatten_config

STABILITY_TAGS = ("stability/drawdown", "stability/spread", "stability/worst_change")  # both tools log
Lines = Mapping[str, Sequence[str]]  # by a chart's title: the tags that it draws
Band = tuple[str, str, str]  # tags of a mean, and of the lower and the upper end of its band


def describe(
    writer: SummaryWriter,
    *,
    command: str,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    hparam_names: Sequence[str],
    metric_tags: Sequence[str],
    charts: Mapping[str, Lines],
) -> None:
    """Write a run's description; `settings` and `defaults` are as config.yaml has them. The Text tab has the command
    and all settings; the HParams table those in `hparam_names` and those that differ from `defaults`, beside the last
    values of the tags `metric_tags`; the Custom Scalars tab the `charts`, tags by category and title."""
    settings, defaults = flatten_config(settings), flatten_config(defaults)
    told = {name: value if type(value) in (int, float, str) else str(value) for name, value in settings.items()}
    varied = {name for name in told.keys() - BOOKKEEPING - {"demos"} if settings[name] != defaults.get(name)}
    listed = {name: told[name] for name in sorted(varied.union(hparam_names))}
    for part in hparams(listed, dict.fromkeys(metric_tags, 0)):
        writer.file_writer.add_summary(part)
    rows = "\n".join(f"| {name} | {value} |" for name, value in told.items())
    writer.add_text("run", f"    {command}\n\n| setting | value |\n|---|---|\n{rows}", 0)
    add_charts(writer, charts)


def add_charts(
    writer: SummaryWriter, lines: Mapping[str, Lines], bands: Mapping[str, Mapping[str, Band]] | None = None
) -> None:
    """Lay out the Custom Scalars tab: by category and title the tags that are drawn in one chart as lines, or as a mean
    in its band. Charts of several runs with the same names become one, in which each run has its colour."""
    found: dict[str, list[layout_pb2.Chart]] = {}
    for category, banded in (bands or {}).items():
        for title, (value, lower, upper) in banded.items():
            series = layout_pb2.MarginChartContent.Series(value=value, lower=lower, upper=upper)
            content = layout_pb2.MarginChartContent(series=[series])
            found.setdefault(category, []).append(layout_pb2.Chart(title=title, margin=content))
    for category, charts in lines.items():
        for title, tags in charts.items():
            content = layout_pb2.MultilineChartContent(tag=[f"^{tag}$" for tag in tags])
            found.setdefault(category, []).append(layout_pb2.Chart(title=title, multiline=content))
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title=c, chart=some) for c, some in found.items()])
    # As the plugin looks for it: TensorBoard's own helper needs TensorFlow.
    content = TensorProto(dtype="DT_STRING", string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME))
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=content, metadata=kind)
    writer.file_writer.add_summary(Summary(value=[value]))
