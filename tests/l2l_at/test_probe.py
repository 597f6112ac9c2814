"""What is measured while training goes on: accuracies, the attacker's strength, the alarm, the picture."""

import pytest
import torch
from torch import nn

from l2l_at.alarms import CollapseAlarm
from l2l_at.attacks import pgd
from l2l_at.batches import Batch
from l2l_at.datasets import Images
from l2l_at.probe import follower_figures, picture, robust_accuracy
from l2l_at.threat import Threat


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
    figures = follower_figures(Brightness(), HalfOfPGD(), Batch(x, y))

    def loss(logit):  # of the two classes, whose logits are ±logit
        return float(torch.tensor(-2.0 * logit).exp().log1p())

    clean, half, whole = loss(0.05), loss(0.0), loss(-0.05)
    assert figures["follower/norm"] == pytest.approx(0.5)
    assert figures["follower/strength"] == pytest.approx(half / whole, rel=1e-5)
    assert figures["follower/gain"] == pytest.approx((half - clean) / (whole - clean), rel=1e-4)
    assert figures["train/fgsm"] == figures["train/pgd10"] == 0.0
    assert follower_figures(Brightness(), HalfOfPGD(), Batch(x + 0.2, y))["train/fgsm"] == 1.0


def test_the_alarm_by_its_rule():
    alarm = CollapseAlarm()
    assert not alarm({"train/fgsm": 0.5, "train/pgd10": 0.4})
    assert not alarm({"train/fgsm": 0.8, "train/pgd10": 0.7})
    assert not alarm({"train/fgsm": 0.3, "train/pgd10": 0.25})  # both fell: unsteady, but no illusion
    assert not alarm({"train/fgsm": 0.9, "train/pgd10": 0.6})
    assert alarm({"train/fgsm": 0.9, "train/pgd10": 0.49})  # fell from 0.7 while one step is withstood
    assert alarm({"train/fgsm": 0.3, "train/pgd10": 0.2})  # one step breaks it now, too: still collapsed
    assert not alarm({"train/fgsm": 0.7, "train/pgd10": 0.55})  # and here it has come back
    assert not alarm({"train/fgsm": 0.3, "train/pgd10": 0.2})
    assert CollapseAlarm()({"train/fgsm": 0.9, "train/pgd10": 0.1})
    assert not CollapseAlarm()({"train/fgsm": 0.15, "train/pgd10": 0.02})  # withstands nothing yet


def test_picture_has_three_rows():
    images = torch.rand(9, 1, 8, 8)
    drawn = picture(images, torch.full_like(images, 0.1), 0.1)
    assert drawn.shape == (1, 24, 64)
    torch.testing.assert_close(drawn[:, 8:16], torch.ones(1, 8, 64))
