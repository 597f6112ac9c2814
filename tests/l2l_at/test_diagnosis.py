"""Figures that show why a defence turned out as it did."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from l2l_at import cli
from l2l_at.config import ATConfig
from l2l_at.datasets import load
from l2l_at.diagnosis import STEPS, diagnose, ladder
from l2l_at.trainer import Trainer
from l2l_experiment import metrics
from l2l_experiment.run import Run

SHORT = ["--epochs", "1", "--subset", "256", "--grade", "none"]


def trained(folder, method):
    cli.main([*SHORT, "--method", method, "--run-dir", str(folder)])
    return folder


def test_curves_are_those_that_their_titles_name(tmp_path):
    """Each logged figure has a value of its own here, so that a title over another figure would show.

    And what was trained on a GPU is diagnosed without one.
    """
    folder = trained(tmp_path / "run", "l2l")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cuda"))
    tags = ("follower/strength", "follower/gain", "follower/norm", "robust/clean", "robust/pgd10", "train/fgsm")
    (folder / metrics.METRICS).unlink()
    with metrics.JsonLines(folder / metrics.METRICS) as rows:
        rows.write(1, {tag: number for number, tag in enumerate((*tags, "train/pgd10"))})
    drawn = diagnose(Run.open(folder, kind="at"))
    found = {name: {title: float(points[1][0]) for title, (points,) in drawn[name].curves.items()} for name in drawn}
    assert found["strength"] == {"of PGD-10's loss": 0, "of what PGD-10 adds to the loss": 1, "of the radius": 2}
    assert list(found["accuracy"].values()) == [3, 4, 5, 6]
    assert list(found["accuracy"]) == [
        "held out, clean", "held out, PGD-10", "training, one step", "training, PGD-10",
    ]  # fmt: skip
    assert list(drawn["ladder"].labels["reference"]) == ["l2l without its memory"]


def test_ladder_is_the_loss_under_each_attack():
    """On a linear classifier the loss under PGD is that of ε·sign, however many steps it takes."""
    config = ATConfig(method="pgd", eps="0.05", attack_steps=1, attack_step_size=1.0)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    trainer = Trainer(config, load("digits"), linear)
    with torch.no_grad():  # two classes that differ: which way to go is the same everywhere
        linear[1].weight[2:] = 0
        linear[1].bias[:] = torch.tensor([0.0, 0.0] + 8 * [-1e4])
    x, y = torch.full((16, 1, 8, 8), 0.5), torch.zeros(16, dtype=torch.long)
    worst = x + 0.05 * (linear[1].weight[1] - linear[1].weight[0]).sign().view(1, 8, 8)
    expected = cross_entropy(linear(worst), y).item()
    pgd, own, largest = ladder(trainer, x, y)
    assert largest <= 1.001
    assert list(pgd) == list(STEPS)
    assert list(pgd.values())[1:] == pytest.approx(len(STEPS[1:]) * [expected], rel=1e-5)
    assert cross_entropy(linear(x), y).item() < pgd[1] <= expected * (1 + 1e-5)
    assert cross_entropy(linear(x), y).item() < own <= expected * (1 + 1e-5)


def test_a_ladder_says_that_n_fgsm_leaves_the_ball(tmp_path):
    (name,) = diagnose(Run.open(trained(tmp_path / "run", "n-fgsm"), kind="at"))["ladder"].labels["reference"]
    assert name.startswith("n-fgsm (up to ")
    assert 1 < float(name.split()[3]) <= 3  # noise of two radii and a step of one (de Jorge et al., 2022)
