"""Averages of the classifier's weights."""

import copy

import pytest
import torch
from torch import nn

from l2l_at.config import ATConfig
from l2l_at.datasets import load
from l2l_at.trainer import Trainer
from l2l_at.weights import averaged


def test_averaged_weights_follow_their_formula():
    task = load("digits", subset=128)
    trainer = Trainer(ATConfig(method="standard", epochs=9, batch_size=64, ema=0.2), task)
    name = "network.0.weight"
    expected = None
    for count in range(8):
        trainer.step()
        current = trainer.model.state_dict()[name]
        decay = min(0.2, (1 + count) / (10 + count))
        expected = current.clone() if expected is None else decay * expected + (1 - decay) * current
    torch.testing.assert_close(trainer.evaluated.state_dict()[name], expected)


def test_equal_average_takes_the_last_epochs_ends(small_images):
    """Weights and the moments of batch normalisation; of what is counted the last."""
    settings = {"dataset": "cifar10", "model": "preact-tiny", "eps": "8/255", "method": "standard"}
    config = ATConfig(**settings, average="swa", swa_from=0.5, epochs=4, batch_size=32)
    trainer = Trainer(config, small_images)
    kept = []
    for _ in range(trainer.total):
        trainer.step()
        if trainer.step_count in (6, 8):
            kept.append(copy.deepcopy(trainer.model.state_dict()))
        if trainer.step_count == 4:
            assert trainer.evaluated is trainer.model
    assert any("running_mean" in name for name in kept[0])
    for name, mine in trainer.evaluated.state_dict().items():
        expected = (kept[0][name] + kept[1][name]) / 2 if mine.is_floating_point() else kept[1][name]
        torch.testing.assert_close(mine, expected, msg=name)
    three = averaged(nn.Linear(1, 1), "swa", 0.9)
    for value in (1.0, 2.0, 6.0):
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, value)
        three.update_parameters(model)
    assert float(three.module.weight.detach()) == pytest.approx(3.0)


def test_the_published_equal_average_begins_with_epoch_51_of_120():
    trainer = Trainer(ATConfig(method="standard", average="swa", epochs=120, batch_size=64), load("digits", subset=128))
    ends = [epoch for epoch in range(1, 121) if averages_after(trainer, epoch)]
    assert ends == list(range(51, 121))


def averages_after(trainer, epoch):
    trainer.step_count = epoch * trainer.batches.per_epoch
    return trainer.averages_now()
