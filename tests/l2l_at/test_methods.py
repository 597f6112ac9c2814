"""What holds for every method, and settings that methods refuse."""

import copy

import pytest
import torch
from torch import nn

from l2l_at.methods import METHODS
from l2l_at.threat import Threat
from l2l_experiment.errors import UserError
from tests.l2l_at.by_hand import EPS, named

IN_TRAINING_MODE = {"standard", "ro", "fast-bat", "free", "grad-align", "n-fgsm", "l2l-naive", "l2l-grad"}
IN_TRAINING_MODE |= {"l2l-2step", "l2l-kstep"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_stays_in_the_threat_model_and_reaches_all_weights(name, model, batch):
    method, modes = named(name), []
    model.train()
    model[1].register_forward_pre_hook(lambda module, _: modes.append(module.training))
    answer = method.loss(model, batch)
    answer.loss.backward()
    assert model.training
    assert modes == sorted(modes)  # once the attack is over, the classifier's own step is in training mode
    assert modes[0] == (name in IN_TRAINING_MODE)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert not answer.delta.requires_grad
    reach = 3 * EPS if name == "n-fgsm" else EPS  # noise of 2 ε and a step of ε, not cut to the ball
    assert (answer.delta.abs() <= reach + 1e-6).all()
    assert (batch.images + answer.delta >= -1e-6).all()
    assert (batch.images + answer.delta <= 1 + 1e-6).all()
    method.follower.update(model, batch)
    assert model.training


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_safe_in_mixed_precision(name, model, batch):
    model.train()
    twin, gradients = copy.deepcopy(model), []
    for network, enabled in ((twin, False), (model, True)):
        method = named(name)
        torch.manual_seed(6)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            answer = method.loss(network, batch)
            answer.loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
            method.follower.update(network, batch)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9
    assert answer.loss.dtype == torch.float32
    assert answer.delta.dtype == torch.float32
    for module in (model, method.follower.attacker or nn.Module()):
        assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in module.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_zero_input_gradient_gives_no_nan(name, batch):
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(constant[1].weight)
    method = named(name)
    answer = method.loss(constant, batch)
    answer.loss.backward()
    method.follower.update(constant, batch)
    assert torch.isfinite(answer.loss)
    if method.follower.attacker is not None:
        assert all(torch.isfinite(p).all() for p in method.follower.attacker.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_state_continues_bit_by_bit(name, model, batch):
    def step(method, seed, model=model):
        torch.manual_seed(seed)
        method.loss(model, batch).loss.backward()
        method.follower.update(model, batch)
        model.zero_grad()

    settings = {"attacker_every": 2} if "attacker_every" in METHODS[name].takes else {}
    first, second = named(name, **settings), named(name, **settings)
    for seed in (1, 2, 7):  # not a multiple of `attacker_every`
        step(first, seed)
    second.follower.load_state_dict(copy.deepcopy(first.follower.state_dict()))
    twin = copy.deepcopy(model)
    step(first, 3)
    step(second, 3, twin)
    torch.manual_seed(9)
    mine = first.follower.respond(model, batch)
    torch.manual_seed(9)
    assert torch.equal(mine, second.follower.respond(twin, batch))


@pytest.mark.parametrize("name", ["pgd", "fgsm-rs", "l2l", "ro", "trades", "free"])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms(name, norm, model, batch):
    method = named(name, norm=norm)
    answer = method.loss(model, batch)
    size = Threat(norm, EPS).size(answer.delta)
    assert (size <= EPS * (1 + 1e-5)).all()
    assert size.max() > 0.5 * EPS or name == "free"  # whose first pass over a batch is at zero


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        *((name, {"norm": "l2"}, "linf") for name in ("l2l-grad", "fast-bat", "grad-align", "n-fgsm")),
        ("pgdd", {}, "pgd"),
        ("grad-align", {"label_smoothing": 0.2}, "--label-smoothing"),
        ("grad-align", {"clean_share": 0.5}, "--clean-share"),
        ("fast-bat", {"attack_steps": 3}, "--attack-steps"),
        ("pgd", {"regularisation": 6.0}, "--regularisation"),
        ("l2l-grad", {"attack_start": "random"}, "--attack-start"),
        ("standard", {"inner": "kl"}, "--inner"),
        ("pgd", {"bat_lambda": 0.0}, "--bat-lambda"),
        ("pgd", {"freeze_attacker": True}, "--freeze-attacker"),
        ("trades", {"attacker_learning_rate": 5.0}, "--attacker-learning-rate"),
        ("l2l", {"attacker": "wide"}, "--attacker"),
        ("l2l-grad", {"attacker_sees": ("image",)}, "--attacker-sees"),
        ("l2l-naive", {"gradient_scale": "sample"}, "--gradient-scale"),
        ("l2l-grad", {"attacker": "two-layer", "attacker_width": 64}, "--attacker-width"),
        ("l2l", {"freeze_attacker": True, "attacker_learning_rate": 5.0}, "--attacker-learning-rate"),
    ],
)
def test_what_a_method_does_not_know_or_look_at_is_refused(name, settings, message):
    with pytest.raises(UserError, match=message):
        named(name, **settings)
