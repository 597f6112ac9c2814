"""What TensorBoard shows of a run beside its scalars: read back by TensorBoard itself."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams import metadata
from torch.utils.tensorboard import SummaryWriter

from l2l_experiment import board


def test_settings_command_and_charts(tmp_path):
    charts = {"return": {"training": ["rollout/ep_rew_mean"]}, "stability": {"both": ["stability/a", "stability/b"]}}
    defaults, shown = {"rate": 0.1, "env": "Hopper-v4", "l2l": False, "seed": 3}, ["seed", "env"]
    settings = {"seed": 3, "rate": 0.1, "net_arch": [64, 64], "kl": None, "l2l": True, "env": "Hopper-v4"}
    with SummaryWriter(str(tmp_path)) as writer:
        board.describe(
            writer,
            command="python x.py",
            settings=settings,
            defaults=defaults,
            hparam_names=shown,
            metric_tags=["eval/return"],
            charts=charts,
        )
    events = EventAccumulator(str(tmp_path)).Reload()
    plugin = events.PluginTagToContent(metadata.PLUGIN_NAME)
    started = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG])
    assert started.hparams.keys() == {"seed", "env", "net_arch", "l2l"}  # but the rate, which is as usual
    assert started.hparams["seed"].number_value == 3
    assert started.hparams["l2l"].string_value == "True"
    assert started.hparams["net_arch"].string_value == "[64, 64]"
    experiment = metadata.parse_experiment_plugin_data(plugin[metadata.EXPERIMENT_TAG])
    assert [info.name.tag for info in experiment.metric_infos] == ["eval/return"]
    (text,) = events.Tensors("run/text_summary")
    assert b"python x.py" in text.tensor_proto.string_val[0]
    assert b"| env | Hopper-v4 |" in text.tensor_proto.string_val[0]
    (content,) = events.Tensors(CONFIG_SUMMARY_TAG)
    found = layout_pb2.Layout.FromString(content.tensor_proto.string_val[0]).category
    assert [(category.title, [list(chart.multiline.tag) for chart in category.chart]) for category in found] == [
        ("return", [["^rollout/ep_rew_mean$"]]),
        ("stability", [["^stability/a$", "^stability/b$"]]),
    ]
