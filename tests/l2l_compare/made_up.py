"""Runs for tests, made up."""

import numpy as np
import yaml
from torch.utils.tensorboard import SummaryWriter

from l2l_compare.curves import Curve
from l2l_experiment.metrics import METRICS, JsonLines

TAG = "rollout/ep_rew_mean"


def our_run(folder, values, settings=None, **more):
    with JsonLines(folder / METRICS) as rows:
        for index, value in enumerate(values):
            rows.write(10 * index, {TAG: value} | more)
    (folder / "config.yaml").write_text(yaml.safe_dump({"settings": settings or {}, "steps": 100}))
    (folder / "record.json").write_text('{"kind": "gail", "status": "finished"}')
    return folder


def foreign_run(folder, points, tag=TAG):
    with SummaryWriter(str(folder)) as writer:
        for step, value in points:
            writer.add_scalar(tag, value, step)
    return folder


def ragged(name, group, steps, values):
    return Curve(name, group, TAG, np.array(steps, float), np.array(values, float), np.full(len(steps), np.nan))


def curve(values, name="r", group="g"):
    return ragged(name, group, 10.0 * np.arange(len(values)), values)
