"""Adversarial weight perturbation, on any method."""

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_at import weights as moved_weights
from l2l_at.attacks import evaluating
from l2l_at.config import ATConfig
from l2l_at.datasets import load
from l2l_at.trainer import Trainer


def test_weights_move_up_the_loss_by_their_relative_size_and_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    cross_entropy(model(torch.rand(5, 4)), torch.tensor([0, 1, 0, 1, 1])).backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with moved_weights.perturbed(model, 0.01):
        for name, p in model.named_parameters():
            shift = p.detach() - before[name]
            if p.dim() == 1:
                assert not shift.any()
            else:
                expected = 0.01 * before[name].norm() * p.grad / p.grad.norm()
                torch.testing.assert_close(shift, expected, rtol=1e-3, atol=1e-7)
        with torch.no_grad():
            model[0].weight.add_(1.0)
    torch.testing.assert_close(model[0].weight.detach(), before["0.weight"] + 1.0)
    torch.testing.assert_close(model[1].weight.detach(), before["1.weight"])


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "fp32") for name in ("pgd", "l2l", "fast-bat", "free", "trades", "grad-align")),
        *((name, "bf16") for name in ("pgd", "l2l", "trades")),  # autocast keeps copies of weights that then move
    ],
)
def test_weight_perturbation_goes_with_any_method(name, precision, monkeypatch):
    task, key = load("digits", subset=128), "network.0.weight"

    def after_a_step(**settings):
        config = ATConfig(method=name, awp_from=0.0, batch_size=64, epochs=1, precision=precision, **settings)
        trainer = Trainer(config, task)
        before = trainer.model.state_dict()[key].clone()
        torch.manual_seed(1)
        trainer.step()
        return before, trainer.model.state_dict()[key]

    # The step was taken from the weights as they are: with no rate to speak of they stay ...
    before, after = after_a_step(awp=0.01, learning_rate=1e-12)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    # ... but the loss was lowered at other weights: had they not moved, the same draws would have led elsewhere.
    moved = after_a_step(awp=0.01)[1]
    monkeypatch.setattr(moved_weights, "perturbed", lambda model, size: contextlib.nullcontext())
    assert not torch.allclose(after_a_step(awp=0.01)[1], moved, atol=1e-6)


def test_a_step_under_weight_perturbation_by_hand(small_images):
    """With batch normalisation, whose moments are to be those of the perturbed weights alone."""
    settings = {"dataset": "cifar10", "model": "preact-tiny", "eps": "8/255", "method": "pgd", "attack_steps": 1}
    config = ATConfig(**settings, awp=0.02, awp_from=0.0, batch_size=16, epochs=2, momentum=0.0, weight_decay=0.0)
    trainer = Trainer(config, small_images)
    batch = trainer.batches.next()
    trainer.batches.next = lambda: batch
    twin, rate = copy.deepcopy(trainer.model).train(), trainer.optimizer.param_groups[0]["lr"]
    torch.manual_seed(7)
    with evaluating(twin):
        delta = trainer.method.follower.perturb(twin, batch)
    weights = dict(twin.named_parameters())
    moments = {name: buffer.clone() for name, buffer in twin.named_buffers()}

    def gradients():
        loss = cross_entropy(twin(batch.images + delta), batch.labels)
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    first = gradients()
    with torch.no_grad():
        for name, buffer in twin.named_buffers():
            buffer.copy_(moments[name])
        move = {n: 0.02 * w.norm() * first[n] / first[n].norm() for n, w in weights.items() if w.dim() > 1}
        for name, shift in move.items():
            weights[name] += shift
        second = torch.enable_grad()(gradients)()
        for name, weight in weights.items():
            weight -= rate * second[name] + move.get(name, 0)
    torch.manual_seed(7)
    trainer.step()
    expected = twin.state_dict()
    for name, mine in trainer.model.state_dict().items():
        torch.testing.assert_close(mine, expected[name], rtol=1e-4, atol=1e-6, msg=name)
