"""Averages of the classifier's weights, and adversarial weight perturbation, on any method."""

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_at import weights
from l2l_at.attacks import evaluating
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
    torch.testing.assert_close(trainer.eval_model.state_dict()[name], expected)


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
            assert trainer.eval_model is trainer.model
    assert any("running_mean" in name for name in kept[0])
    for name, mine in trainer.eval_model.state_dict().items():
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
    for epoch in range(1, 121):
        trainer.step_count = epoch * trainer.batches.per_epoch
        assert trainer.should_average() == (epoch > 50)


@pytest.mark.slow
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
    monkeypatch.setattr(weights, "perturbed", lambda model, size: contextlib.nullcontext())
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
    own = dict(twin.named_parameters())
    moments = {name: buffer.clone() for name, buffer in twin.named_buffers()}

    def gradients():
        loss = cross_entropy(twin(batch.images + delta), batch.labels)
        return dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))

    first = gradients()
    with torch.no_grad():
        for name, buffer in twin.named_buffers():
            buffer.copy_(moments[name])
        move = {n: 0.02 * w.norm() * first[n] / first[n].norm() for n, w in own.items() if w.dim() > 1}
        for name, shift in move.items():
            own[name] += shift
        second = torch.enable_grad()(gradients)()
        for name, weight in own.items():
            weight -= rate * second[name] + move.get(name, 0)
    torch.manual_seed(7)
    trainer.step()
    expected = twin.state_dict()
    for name, mine in trainer.model.state_dict().items():
        torch.testing.assert_close(mine, expected[name], rtol=1e-4, atol=1e-6, msg=name)
