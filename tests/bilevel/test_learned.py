"""The learned follower: what a fit computes, when it refuses, what it keeps; and the coordinatewise rule."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from bilevel import Adam, Coordinatewise, GradientStep, LearnedFollower, detach, unroll


class LearnedRate(nn.Module):
    """Step −rate·g with a learned rate: the smallest rule whose fit can be written out by hand."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def init(self, variable):
        return {"calls": torch.zeros(())}

    def update(self, gradient, state, variable):
        return GradientStep(self.rate).update(gradient, {}, variable)[0], {"calls": state["calls"] + 1}


class LearnedMomentum(nn.Module):
    """Heavy-ball descent with a learned decay, whose memory has a history."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(decay, dtype=torch.float64))

    def init(self, variable):
        return {"mean": torch.zeros_like(variable)}

    def update(self, gradient, state, variable):
        mean = self.decay * state["mean"] + gradient
        return -0.1 * mean, {"mean": mean}


def bowl(centre: float, curvature: float = 1.0):
    """curvature/2·|w − centre|², whose gradient is curvature·(w − centre)."""
    return lambda w: 0.5 * curvature * (w - centre).square().sum()


def follower_of(rule, lr=0.01, *, steps=2, clip_norm=1e9):
    return LearnedFollower(rule, torch.optim.SGD(rule.parameters(), lr=lr), steps=steps, clip_norm=clip_norm)


START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


# --- fit -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", ["final", "mean"])
def test_fit_by_hand(score):
    """Three different objectives: step k goes down the k-th and is scored on the next one."""
    rate = 0.3
    follower = follower_of(LearnedRate(rate))
    response, figures = follower.fit([bowl(1.0), bowl(-1.0, 2.0), bowl(0.5, 3.0)], START, score=score)

    g0 = START - 1.0
    w1 = START - rate * g0
    g1 = 2.0 * (w1 + 1.0)
    w2 = w1 - rate * g1
    s1, s2 = (w1 + 1.0).square().sum(), 1.5 * (w2 - 0.5).square().sum()
    d1, d2 = (2.0 * (w1 + 1.0) * -g0).sum(), (3.0 * (w2 - 0.5) * (-g0 - g1)).sum()  # g0 and g1 are data
    total, derivative = ((s1 + s2) / 2, (d1 + d2) / 2) if score == "mean" else (s2, d2)

    torch.testing.assert_close(response.variable, w2)
    torch.testing.assert_close(response.trace, torch.stack([0.5 * (START - 1).square().sum(), s1]))
    assert response.state["calls"] == 2
    assert figures == pytest.approx({"score": float(total), "gradient_norm": abs(float(derivative)), "skipped": 0.0})
    assert follower.rule.rate.item() == pytest.approx(rate - 0.01 * float(derivative))


def test_fit_clips_the_gradient_of_the_rule():
    follower = follower_of(LearnedRate(0.3), clip_norm=0.5)
    _, figures = follower.fit([bowl(1.0)] * 3, START)
    assert figures["gradient_norm"] > 0.5
    assert abs(follower.rule.rate.item() - 0.3) == pytest.approx(0.01 * 0.5)


def test_fit_projects_carries_memory_and_answers_with_the_old_rule():
    follower = follower_of(LearnedRate(0.3), steps=3)
    objectives = [bowl(5.0, c) for c in (1.0, 2.0, 0.5, 1.0)]

    def project(w):
        return w.clamp(max=3.5)

    expected, state = START, {"calls": torch.tensor(4.0)}
    for objective in objectives[:3]:
        expected = unroll(objective, GradientStep(0.3), expected, steps=1, project=project).variable
    assert (expected == 3.5).any()
    assert (expected < 3.5).any()
    response, _ = follower.fit(objectives, START, state=state, project=project)
    torch.testing.assert_close(response.variable, expected)
    assert response.state["calls"] == 7
    assert not response.variable.requires_grad


def test_respond_is_the_detached_unrolling():
    follower = follower_of(LearnedRate(0.3), steps=4)
    response = follower.respond(bowl(1.0), START, project=lambda w: w.clamp(min=-1.0))
    expected = unroll(bowl(1.0), GradientStep(0.3), START, steps=4, project=lambda w: w.clamp(min=-1.0))
    torch.testing.assert_close(response.variable, expected.variable)
    torch.testing.assert_close(response.trace, expected.trace)
    assert not response.variable.requires_grad
    assert response.state["calls"] == 4


def test_fit_needs_one_objective_more_than_steps():
    follower = follower_of(LearnedRate(0.3), steps=2)
    for count in (0, 2, 4):
        with pytest.raises(ValueError, match=f"3 objectives, got {count}"):
            follower.fit([bowl(1.0)] * count, START)


def test_a_follower_that_takes_no_step_is_refused():
    with pytest.raises(ValueError, match="at least 1 step"):
        follower_of(LearnedRate(0.3), steps=0)


def infinite(w):
    return w.sum() + float("inf")


def not_a_number(w):
    return w.sum() * float("nan")


def finite_with_infinite_slope(w):
    return (w - w.detach()).abs().sum().sqrt() + (w * 0).sum().sqrt()


@pytest.mark.parametrize("bad", [infinite, not_a_number, finite_with_infinite_slope], ids=lambda f: f.__name__)
def test_a_fit_that_is_not_finite_is_skipped_and_counted(bad):
    rule = LearnedRate(0.3)
    follower = LearnedFollower(rule, torch.optim.Adam(rule.parameters(), lr=0.1), steps=1)
    follower.fit([bowl(1.0), bowl(1.0)], START)
    before = copy.deepcopy(follower.state_dict())
    for count in (1, 2):
        _, figures = follower.fit([bowl(1.0), bad], START)
        assert figures["skipped"] == 1.0
        assert follower.skipped == count
    assert rule.rate.grad is None
    torch.testing.assert_close(follower.state_dict() | {"skipped": 0}, before, rtol=0, atol=0)
    _, figures = follower.fit([bowl(1.0), bowl(1.0)], START)
    assert figures["skipped"] == 0.0
    assert rule.rate != before["rule"]["rate"]


def test_fit_touches_no_grad_but_moves_the_rule():
    leader = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    leader.grad = torch.tensor(7.0, dtype=torch.float64)
    start = START.clone().requires_grad_()
    follower = follower_of(LearnedRate(0.3))
    follower.fit([lambda w: 0.5 * (w - leader).square().sum()] * 3, start)
    follower.respond(lambda w: 0.5 * (w - leader).square().sum(), start)
    assert leader.grad == 7.0
    assert start.grad is None
    assert follower.rule.rate.grad is None
    assert follower.rule.rate.item() != 0.3


def test_fit_cuts_the_history_it_is_handed_and_works_under_no_grad():
    follower, plain = follower_of(LearnedMomentum(0.9)), follower_of(LearnedMomentum(0.9))
    attached = unroll(bowl(0.0), follower.rule, START, steps=2, through="rule")
    assert attached.variable.requires_grad
    assert attached.state["mean"].requires_grad
    with torch.no_grad():
        _, figures = follower.fit([bowl(1.0)] * 3, attached.variable, state=attached.state)
    cut = detach(attached)
    _, expected = plain.fit([bowl(1.0)] * 3, cut.variable, state=cut.state)
    assert figures == expected


def test_fits_improve_the_score_on_unseen_problems():
    """From a rate 30 times too small; the best possible here is an exact minimiser, score 0."""
    torch.manual_seed(0)
    rule = Coordinatewise(1e-3, hidden=8)
    follower = LearnedFollower(rule, torch.optim.Adam(rule.parameters(), lr=0.02), steps=5)

    def problem():
        centre, curvature = torch.randn(20), torch.rand(20) + 0.5
        return lambda w: (curvature * (w - centre).square()).mean()

    scores = []
    for _ in range(150):
        _, figures = follower.fit([problem()] * 6, torch.zeros(20))
        scores.append(figures["score"])
    assert follower.skipped == 0
    assert sum(scores[-10:]) < 0.5 * sum(scores[:10])

    unseen = problem()
    learned = follower.respond(unseen, torch.zeros(20)).variable
    hand_made = unroll(unseen, Adam(1e-3), torch.zeros(20), steps=5).variable
    assert unseen(learned) < 0.7 * unseen(hand_made)


def test_state_survives_a_file_and_the_fits_go_on_the_same():
    def make():
        torch.manual_seed(3)
        rule = Coordinatewise(0.01)
        return LearnedFollower(rule, torch.optim.Adam(rule.parameters(), lr=0.01), steps=2)

    def fit(follower):
        return follower.fit([bowl(1.0)] * 3, START.float())[1]

    original = make()
    fit(original)
    original.fit([bowl(1.0), bowl(1.0), not_a_number], START.float())
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)

    restored = make()
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.skipped == 1
    fresh = make()
    expected = fit(original), fit(original)
    assert (fit(restored), fit(restored)) == expected
    assert (fit(fresh), fit(fresh)) != expected
    torch.testing.assert_close(restored.rule.state_dict(), original.rule.state_dict(), rtol=0, atol=0)


# --- the coordinatewise rule -----------------------------------------------------------------------------------------


def random_rule(seed=0, **options):
    """A rule whose head is not zero any more."""
    torch.manual_seed(seed)
    rule = Coordinatewise(0.01, **options)
    nn.init.normal_(rule.network[-1].weight)
    nn.init.normal_(rule.network[-1].bias)
    return rule


def gradients(count, scale=1.0):
    torch.manual_seed(1)
    return [{"w": scale * torch.randn(3, 2), "b": scale * torch.randn(4)} for _ in range(count)]


def test_coordinatewise_inputs_written_out_for_each_weight():
    rule, seen = random_rule(), []
    rule.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    history = gradients(3)
    variable = {"w": torch.randn(3, 2), "b": torch.zeros(4)}  # zero weights: their root mean square is 0
    history[2]["b"][1] = 0.0
    state = rule.init(variable) | {"progress": torch.tensor(0.25)}
    for gradient in history:
        _, state = rule.update(gradient, state, variable)

    def clamp(x):
        return max(-5.0, min(5.0, x))

    def mean(values):
        return sum(values) / len(values)

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
            over_rms = [c[i] / (math.sqrt(mean([x * x for x in c])) + 1e-8) for c in columns]
            scale = math.sqrt(squares[i] / (1 - 0.999**3)) + 1e-8
            over_scale = [c[i] / scale for c in columns[:4]]
            sign = (last[i] > 0) - (last[i] < 0)
            rest = [math.log(abs(over_rms[0]) + 1e-3), sign, 0.25]
            expected.append([clamp(x) for x in (*over_rms, *over_scale, *rest)])
    torch.testing.assert_close(seen[-1], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_coordinatewise_step_is_the_documented_formula():
    rule, outputs = random_rule(), []
    rule.network.register_forward_hook(lambda module, args, output: outputs.append(output))
    rule.log_rate.data.fill_(0.7)
    gradient = gradients(1)[0]
    variable = {name: torch.zeros_like(g) for name, g in gradient.items()}
    step, _ = rule.update(gradient, rule.init(variable), variable)
    adam = torch.cat([g.flatten() / (g.flatten().abs() + 1e-8) for g in gradient.values()])
    a, b = 2 * outputs[0][:, 0].tanh(), outputs[0][:, 1].tanh()
    expected = -0.01 * math.exp(0.7) * (adam * a.exp() + b)
    torch.testing.assert_close(torch.cat([s.flatten() for s in step.values()]), expected)


def test_coordinatewise_steps_are_bounded_whatever_the_network_says():
    rule = random_rule()
    for parameter in rule.network.parameters():
        parameter.data *= 1e3
    variable = {"w": torch.randn(3, 2), "b": torch.randn(4)}
    state, adam_state = rule.init(variable), Adam(1.0).init(variable)
    for gradient in gradients(5, scale=1e4):
        step, state = rule.update(gradient, state, variable)
        adam, adam_state = Adam(1.0).update(gradient, adam_state, variable)
        for name in step:
            bound = 0.01 * (math.exp(2) * adam[name].abs() + 1)
            assert (step[name].abs() <= bound * (1 + 1e-5)).all()


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
    names = [name for name, _ in rule.named_parameters()]
    objective, score = bowl(1.0, 2.0), bowl(-0.5)

    class With:
        """The rule with other weights."""

        def __init__(self, values):
            self.values = dict(zip(names, values, strict=True))

        def init(self, variable):
            return rule.init(variable)

        def update(self, *args):
            return torch.func.functional_call(Caller(), {f"rule.{k}": v for k, v in self.values.items()}, args)

    class Caller(nn.Module):
        def __init__(self):
            super().__init__()
            self.rule = rule

        def forward(self, *args):
            return self.rule.update(*args)

    def fitted(*values):
        return score(unroll(objective, With(values), START, steps=1, through="rule").variable)

    values = [p.detach().clone().requires_grad_() for p in rule.parameters()]
    assert torch.autograd.gradcheck(fitted, values)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(fitted(*values), values))


def test_coordinatewise_does_not_ask_where_or_in_what_precision():
    """The state's scalars stay on the CPU; `meta` stands for any other device."""
    rule = random_rule()
    double = {"w": torch.randn(3, 2, dtype=torch.float64), "b": torch.randn(4, dtype=torch.float64)}

    def objective(tree):
        return tree["w"].square().sum() + tree["b"].square().sum()

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
        rule = random_rule().to(device)
        follower = LearnedFollower(rule, torch.optim.SGD(rule.parameters(), lr=0.1), steps=3)
        response, figures = follower.fit([bowl(1.0)] * 4, START.float().to(device), score="mean")
        results.append((response.variable.cpu(), figures))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)


def test_coordinatewise_needs_a_momentum_that_it_keeps():
    with pytest.raises(ValueError, match="0\\.8"):
        Coordinatewise(0.1, betas=(0.8, 0.999))
