"""The classifier's losses against expressions written out by hand, in double precision."""

import math

import pytest
import torch
from torch import nn

from l2l_at.batches import Batch
from l2l_at.methods import leaders


@pytest.fixture
def game():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    images = torch.rand(3, 1, 2, 3, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1])
    return model, Batch(images, labels, torch.arange(3)), 0.1 * torch.randn_like(images)


def probabilities(model, images):
    """Softmax by its definition, one list a sample."""
    return [[value / sum(row) for value in row] for row in model(images).detach().exp().tolist()]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def by_hand(model, batch, delta):
    clean, attacked = probabilities(model, batch.images), probabilities(model, batch.images + delta)
    return list(zip(clean, attacked, batch.labels.tolist(), strict=True))


def value_of(loss):
    return float(loss.detach())


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_cross_entropy(game):
    model, batch, delta = game
    rows = by_hand(*game)
    expected = mean(-math.log(q[y]) for p, q, y in rows)
    assert value_of(leaders.cross_entropy()(model, batch, delta)) == pytest.approx(expected)
    half = 0.5 * expected + 0.5 * mean(-math.log(p[y]) for p, q, y in rows)
    assert value_of(leaders.cross_entropy(clean_share=0.5)(model, batch, delta)) == pytest.approx(half)
    assert value_of(leaders.clean(model, batch, delta)) == pytest.approx(mean(-math.log(p[y]) for p, q, y in rows))
    smoothed = mean(-0.8 * math.log(q[y]) - 0.2 * mean(map(math.log, q)) for p, q, y in rows)
    assert value_of(leaders.cross_entropy(smoothing=0.2)(model, batch, delta)) == pytest.approx(smoothed)


def test_trades(game):
    expected = mean(-math.log(p[y]) + 6 * kl(p, q) for p, q, y in by_hand(*game))
    assert value_of(leaders.trades(6.0)(*game)) == pytest.approx(expected, rel=1e-6)


def test_mart(game):
    def row(p, q, y):
        other = max(value for k, value in enumerate(q) if k != y)
        return -math.log(q[y]) - math.log(1.0001 - other) + 5 * kl(p, q) * (1.0000001 - p[y])

    expected = mean(row(p, q, y) for p, q, y in by_hand(*game))
    assert value_of(leaders.mart(5.0)(*game)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", ["attacked", "clean"])
def test_arow_and_cow(game, weight):
    def row(p, q, y):
        smooth = -0.8 * math.log(p[y]) - 0.2 * mean(map(math.log, p))
        return smooth + 7 * kl(p, q) * (p[y] if weight == "clean" else 1 - q[y])

    expected = mean(row(p, q, y) for p, q, y in by_hand(*game))
    assert value_of(leaders.arow(7.0, 0.2, weight)(*game)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "leader",
    [leaders.trades(6.0), leaders.mart(5.0), leaders.arow(7.0, 0.2), leaders.arow(7.0, 0.2, "clean")],
    ids=["trades", "mart", "arow", "cow"],
)
def test_nothing_is_detached(game, leader):
    """Against finite differences: a gradient that stopped at weight, target or attacked side would differ."""
    model, batch, delta = game
    leader(model, batch, delta).backward()
    for weight in (model[1].weight, model[3].weight):
        for index in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
            values = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    weight[tuple(index)] += shift
                    values.append(float(leader(model, batch, delta)))
                    weight[tuple(index)] -= shift
            slope = (values[0] - values[1]) / 2e-5
            assert float(weight.grad[tuple(index)]) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_divergence_of_a_certain_prediction_has_a_gradient():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    leaders.divergence(logits, torch.tensor([[1.0, 0.0]])).sum().backward()
    assert torch.isfinite(logits.grad).all()
