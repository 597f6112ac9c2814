"""What is measured while training goes on and after: accuracies, the attacker's strength, the alarm, pictures."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_at import cli
from l2l_at.alarms import CollapseAlarm
from l2l_at.attacks import pgd
from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.datasets import Images, load
from l2l_at.diagnosis import STEPS, diagnose, pgd_losses
from l2l_at.probe import attack_metrics, example_images, robust_accuracy
from l2l_at.threat import Threat
from l2l_at.trainer import Trainer
from l2l_experiment import metrics
from l2l_experiment.run import Run


class Brightness(nn.Module):
    """Two classes: brighter than one half, or darker."""

    def forward(self, x):
        logit = x.flatten(1).mean(1, keepdim=True) - 0.5
        return torch.cat([logit, -logit], 1)


def test_robust_accuracy_of_a_known_classifier():
    pixels = torch.tensor([55, 90, 55, 90], dtype=torch.uint8)  # of 100: within 0.1 of one half, and farther
    images = Images(pixels.view(4, 1, 1, 1), torch.zeros(4, dtype=torch.int64), 100)
    before = torch.get_rng_state()
    assert robust_accuracy(Brightness(), images, Threat("linf", 0.1)) == {"clean": 1.0, "pgd10": 0.5}
    assert torch.equal(before, torch.get_rng_state())


class HalfOfPGD:
    """As strong as PGD-10 on a classifier that is linear, and half as far."""

    threat = Threat("linf", 0.1)

    def perturb(self, model, batch):
        return 0.5 * pgd(model, batch.images, batch.labels, self.threat)


def test_figures_of_half_an_attack_on_a_linear_classifier():
    x, y = torch.full((6, 1, 2, 2), 0.55), torch.zeros(6, dtype=torch.int64)
    figures = attack_metrics(Brightness(), HalfOfPGD(), Batch(x, y))

    def loss(logit):  # of the two classes, whose logits are ±logit
        return float(torch.tensor(-2.0 * logit).exp().log1p())

    clean, half, whole = loss(0.05), loss(0.0), loss(-0.05)
    assert figures["train_attacker/norm"] == pytest.approx(0.5)
    assert figures["train_attacker/strength"] == pytest.approx(half / whole, rel=1e-5)
    assert figures["train_attacker/gain"] == pytest.approx((half - clean) / (whole - clean), rel=1e-4)
    assert figures["robust/train_fgsm"] == figures["robust/train_pgd10"] == 0.0
    assert attack_metrics(Brightness(), HalfOfPGD(), Batch(x + 0.2, y))["robust/train_fgsm"] == 1.0


def test_the_alarm_by_its_rule():
    alarm = CollapseAlarm()
    assert not alarm({"robust/train_fgsm": 0.5, "robust/train_pgd10": 0.4})
    assert not alarm({"robust/train_fgsm": 0.8, "robust/train_pgd10": 0.7})
    assert not alarm({"robust/train_fgsm": 0.3, "robust/train_pgd10": 0.25})  # both fell: unsteady, but no illusion
    assert not alarm({"robust/train_fgsm": 0.9, "robust/train_pgd10": 0.6})
    assert alarm({"robust/train_fgsm": 0.9, "robust/train_pgd10": 0.49})  # fell from 0.7 while one step is withstood
    assert alarm({"robust/train_fgsm": 0.3, "robust/train_pgd10": 0.2})  # one step breaks it now, too: still collapsed
    assert not alarm({"robust/train_fgsm": 0.7, "robust/train_pgd10": 0.55})  # and here it has come back
    assert not alarm({"robust/train_fgsm": 0.3, "robust/train_pgd10": 0.2})
    assert CollapseAlarm()({"robust/train_fgsm": 0.9, "robust/train_pgd10": 0.1})
    assert not CollapseAlarm()({"robust/train_fgsm": 0.15, "robust/train_pgd10": 0.02})  # withstands nothing yet


def test_pictures_are_rows_with_names():
    images = torch.rand(9, 1, 8, 8)
    drawn = example_images(images, torch.full_like(images, 0.1), 0.1)
    assert {name: row.shape for name, row in drawn.items()} == dict.fromkeys(drawn, (1, 8, 64))
    torch.testing.assert_close(drawn["clean"][:, :, :8], images[0])
    torch.testing.assert_close(drawn["perturbation"], torch.ones(1, 8, 64))
    torch.testing.assert_close(drawn["perturbed"][:, :, 8:16], (images[1] + 0.1).clamp(max=1))


SHORT = ["--epochs", "1", "--subset", "256", "--grade", "none"]


def trained(folder, method):
    cli.main([*SHORT, "--method", method, "--run-dir", str(folder)])
    return folder


@pytest.mark.slow
def test_curves_are_those_that_their_titles_name(tmp_path):
    """Each logged figure has a value of its own here, so that a title over another figure would show.

    And what was trained on a GPU is diagnosed without one."""
    folder = trained(tmp_path / "run", "l2l")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cuda"))
    tags = (
        "train_attacker/strength",
        "train_attacker/gain",
        "train_attacker/norm",
        "robust/clean",
        "robust/pgd10",
        "robust/train_fgsm",
    )
    (folder / metrics.METRICS).unlink()
    with metrics.JsonLines(folder / metrics.METRICS) as rows:
        rows.write(1, {tag: number for number, tag in enumerate((*tags, "robust/train_pgd10"))})
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
    pgd, own, largest = pgd_losses(trainer, x, y)
    assert largest <= 1.001
    assert list(pgd) == list(STEPS)
    assert list(pgd.values())[1:] == pytest.approx(len(STEPS[1:]) * [expected], rel=1e-5)
    assert cross_entropy(linear(x), y).item() < pgd[1] <= expected * (1 + 1e-5)
    assert cross_entropy(linear(x), y).item() < own <= expected * (1 + 1e-5)


@pytest.mark.slow
def test_a_ladder_says_that_n_fgsm_leaves_the_ball(tmp_path):
    (name,) = diagnose(Run.open(trained(tmp_path / "run", "n-fgsm"), kind="at"))["ladder"].labels["reference"]
    assert name.startswith("n-fgsm (up to ")
    assert 1 < float(name.split()[3]) <= 3  # noise of two radii and a step of one (de Jorge et al., 2022)
