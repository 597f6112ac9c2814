"""The coordinatewise rule: its inputs, its step, its bounds, and what a fit teaches it."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bilevel import Adam, Coordinatewise, unroll
from tests.bilevel.conftest import START, bowl, follower_of, joined


def random_rule(seed=0, **options):
    """A rule whose head is not zero any more."""
    torch.manual_seed(seed)
    rule = Coordinatewise(0.01, **options)
    nn.init.normal_(rule.network[-1].weight)
    nn.init.normal_(rule.network[-1].bias)
    return rule


def gradients(count):
    torch.manual_seed(1)
    return [{"w": torch.randn(3, 2), "b": torch.randn(4)} for _ in range(count)]


def watched(rule):
    """Lists that fill with what the rule's network is shown, (weights, 12), and answers, (weights, 2)."""
    seen, outputs, network = [], [], rule._outputs

    def watch(inputs):
        assert (inputs[12] == 1).all()
        seen.append(inputs[:12].T)
        outputs.append(network(inputs).T)
        return outputs[-1].T

    rule._outputs = watch
    return seen, outputs


def test_coordinatewise_inputs_written_out_for_each_weight():
    rule = random_rule()
    seen, _ = watched(rule)
    history = gradients(3)
    variable = {"w": torch.randn(3, 2), "b": torch.zeros(4)}  # zero weights: their root mean square is 0
    history[2]["b"][1] = 0.0
    state = rule.init(variable) | {"progress": torch.tensor(0.25)}
    for gradient in history:
        _, state = rule.update(gradient, state, variable)

    expected = []
    for name, weight in variable.items():
        track = [gradient[name].flatten().double().tolist() for gradient in history]
        weights = weight.flatten().double().tolist()
        averages = {}
        for beta in (0.5, 0.9, 0.99):
            decays = [(1 - beta) * beta ** (2 - t) / (1 - beta**3) for t in range(3)]
            averages[beta] = [sum(d * g[i] for d, g in zip(decays, track, strict=True)) for i in range(len(weights))]
        last = track[-1]
        squares = [sum(0.001 * 0.999 ** (2 - t) * track[t][i] ** 2 for t in range(3)) for i in range(len(weights))]
        for i in range(len(weights)):
            columns = [last, *averages.values(), weights]
            over_rms = [c[i] / (math.sqrt(sum(x * x for x in c) / len(c)) + 1e-8) for c in columns]
            scale = math.sqrt(squares[i] / (1 - 0.999**3)) + 1e-8
            over_scale = [c[i] / scale for c in columns[:4]]
            sign = (last[i] > 0) - (last[i] < 0)
            rest = [math.log(abs(over_rms[0]) + 1e-3), sign, 0.25]
            expected.append([*over_rms, *over_scale, *rest])
    torch.testing.assert_close(seen[-1], torch.tensor(expected).clamp(-5, 5), rtol=1e-4, atol=1e-5)


def test_an_anchored_rule_sees_the_distance_from_the_start():
    rule = random_rule(anchored=True)
    seen, _ = watched(rule)
    variable = {"w": torch.randn(3, 2), "b": torch.randn(4)}
    start, gradient = {name: value.clone() for name, value in variable.items()}, gradients(1)[0]
    step, state = rule.update(gradient, rule.init(variable), variable)
    assert (seen[-1][:, 4] == 0).all()
    for name in variable:
        variable[name].add_(step[name])  # in place: the start must be a copy
    rule.update(gradient, state, variable)
    away = {name: variable[name] - start[name] for name in variable}
    expected = joined({name: d / d.square().mean().sqrt() for name, d in away.items()})
    torch.testing.assert_close(seen[-1][:, 4], expected.clamp(-5, 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("anchored", [False, True])
def test_learned_decay_leads_to_zero_or_back_to_the_start(anchored):
    rule = Coordinatewise(0.01, hidden=1, anchored=anchored)
    for parameter in rule.network.parameters():
        parameter.data.zero_()
    rule.network[0].weight.data[0, 4] = 1.0  # b grows with the weight, a is zero
    rule.network[2].weight.data[1, 0] = 1.0
    start = torch.full((3,), 2.0)
    variable, state = start + torch.tensor([0.4, 0.5, 0.6]), rule.init(start)
    for _ in range(400):
        step, state = rule.update(torch.zeros(3), state, variable)
        variable = variable + step
    torch.testing.assert_close(variable, start if anchored else torch.zeros(3), rtol=0, atol=0.02)


def test_coordinatewise_step_is_the_documented_formula():
    rule = random_rule()
    seen, outputs = watched(rule)
    rule.log_rate.data.fill_(0.7)
    variable = {"w": torch.randn(3, 2), "b": torch.randn(4)}
    state, adam_state = rule.init(variable), Adam(1.0).init(variable)
    for factor in (1.0, 1.0, 1e3):  # bounded as the formula is, whatever the network says
        rule.network[-1].weight.data *= factor
        gradient = {name: factor * g for name, g in gradients(1)[0].items()}
        step, state = rule.update(gradient, state, variable)
        adam, adam_state = Adam(1.0).update(gradient, adam_state, variable)
        torch.testing.assert_close(outputs[-1], rule.network(seen[-1]))
        a, b = 2 * outputs[-1][:, 0].tanh(), outputs[-1][:, 1].tanh()
        expected = -0.01 * math.exp(0.7) * (b - joined(adam) * a.exp())  # Adam's own step goes downhill
        torch.testing.assert_close(joined(step), expected)


def test_without_a_network_only_the_log_rate_is_learned():
    rule = Coordinatewise(0.1, hidden=0)
    assert [name for name, _ in rule.named_parameters()] == ["log_rate"]
    rule.log_rate.data.fill_(math.log(2))
    gradient = gradients(1)[0]
    step, _ = rule.update(gradient, rule.init(gradient), gradient)
    doubled, _ = Adam(0.2).update(gradient, Adam(0.2).init(gradient), gradient)
    torch.testing.assert_close(step, doubled)


def test_the_fit_gradient_of_coordinatewise_against_finite_differences():
    """One step: its gradient does not depend on the rule, so that `rule` is the full derivative."""
    rule = random_rule(hidden=4).double()
    rule.forward = rule.update  # so that `functional_call` calls it with other weights
    names = [name for name, _ in rule.named_parameters()]
    objective, score = bowl(1.0, 2.0), bowl(-0.5)

    def fitted(*values):
        weights = dict(zip(names, values, strict=True))
        other = SimpleNamespace(init=rule.init, update=lambda *args: torch.func.functional_call(rule, weights, args))
        return score(unroll(objective, other, START, steps=1, through="rule").variable)

    values = [p.detach().clone().requires_grad_() for p in rule.parameters()]
    assert torch.autograd.gradcheck(fitted, values)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(fitted(*values), values))


def test_coordinatewise_does_not_ask_where_or_in_what_precision():
    """The state's scalars stay on the CPU; `meta` stands for any other device."""
    rule = random_rule()
    double = {"w": torch.randn(3, 2, dtype=torch.float64), "b": torch.randn(4, dtype=torch.float64)}

    def objective(tree):
        return joined(tree).square().sum()

    response = unroll(objective, rule, double, steps=2, through="rule")
    assert response.variable["w"].dtype == torch.float64
    assert response.variable["w"].requires_grad
    single = {name: value.float() for name, value in double.items()}
    assert unroll(objective, random_rule().double(), single, steps=2).variable["w"].dtype == torch.float32
    elsewhere = {name: value.to("meta") for name, value in double.items()}
    response = unroll(objective, rule.to("meta"), elsewhere, steps=2, through="rule")
    assert response.variable["b"].device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_fit_on_a_gpu_is_a_fit_on_the_cpu():
    results = []
    for device in ("cpu", "cuda"):
        follower = follower_of(random_rule().to(device), 0.1, steps=3, clip_norm=1.0)
        response, figures = follower.fit([bowl(1.0)] * 4, START.float().to(device), score="mean")
        results.append((response.variable.cpu(), figures))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)


def test_coordinatewise_needs_a_momentum_that_it_keeps():
    with pytest.raises(ValueError, match="0\\.8"):
        Coordinatewise(0.1, betas=(0.8, 0.999))
