"""Runs for tests, made up."""

import numpy as np
import yaml
from torch.utils.tensorboard import SummaryWriter

from l2l_experiment import events
from l2l_experiment.curves import Curve

TAG = "rollout/ep_rew_mean"


def our_run(folder, values, settings=None):
    with events.JsonLines(folder / events.METRICS) as rows:
        for index, value in enumerate(values):
            rows.write(10 * index, {TAG: value})
    (folder / "config.yaml").write_text(yaml.safe_dump({"settings": settings or {}, "steps": 100}))
    (folder / "record.json").write_text('{"kind": "gail", "status": "finished"}')
    return folder


def foreign_run(folder, points, tag=TAG):
    with SummaryWriter(str(folder)) as writer:
        for step, value in points:
            writer.add_scalar(tag, value, step)
    return folder


def curve(values, name="r", group="g"):
    values = np.asarray(values, dtype=np.float64)
    return Curve(name, group, TAG, 10.0 * np.arange(len(values)), values, np.full(len(values), np.nan))


def ragged(name, group, steps, values):
    return Curve(name, group, TAG, np.array(steps, float), np.array(values, float), np.full(len(steps), np.nan))
