"""The classifier's losses where `by_hand.losses` does not reach: shares, smoothing, certain predictions."""

import math

import pytest
import torch

from l2l_at.methods import leaders
from tests.l2l_at.by_hand import losses


def test_cross_entropy_and_its_mixtures(game):
    model, batch = game
    model.eval()
    delta = 0.1 * torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean, attacked = (losses(model, batch, d)["ce"].mean() for d in (0 * delta, delta))
    log_q = model(batch.images + delta).log_softmax(1)
    torch.testing.assert_close(leaders.clean(model, batch, delta), clean)
    torch.testing.assert_close(leaders.cross_entropy()(model, batch, delta), attacked)
    torch.testing.assert_close(
        leaders.cross_entropy(clean_share=0.25)(model, batch, delta), 0.25 * clean + 0.75 * attacked
    )
    smoothed = 0.8 * attacked - 0.2 * log_q.mean()
    torch.testing.assert_close(leaders.cross_entropy(smoothing=0.2)(model, batch, delta), smoothed)


def test_divergence_by_its_definition():
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.6, 0.3]])
    expected = sum(a * math.log(a / b) for a, b in zip(p[0].tolist(), q[0].tolist(), strict=True))
    assert float(leaders.divergence(p.log(), q.log())) == pytest.approx(expected, rel=1e-5)
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)  # p·log p of a certain prediction has no slope
    leaders.divergence(logits, torch.tensor([[1.0, 0.0]])).sum().backward()
    assert torch.isfinite(logits.grad).all()
