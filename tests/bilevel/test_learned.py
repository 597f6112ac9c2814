"""The learned follower: what a fit computes, when it refuses, what it keeps."""

import copy
import io

import pytest
import torch
from torch import nn

from bilevel import Adam, Coordinatewise, GradientStep, LearnedFollower, detach, unroll
from tests.bilevel.conftest import START, bowl, follower_of


class LearnedRate(nn.Module):
    """Step −rate·g with a learned rate: the smallest rule whose fit can be written out by hand."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def init(self, variable):
        return {"calls": torch.zeros(())}

    def update(self, gradient, state, variable):
        return GradientStep(self.rate).update(gradient, {}, variable)[0], {"calls": state["calls"] + 1}


class LearnedMomentum(LearnedRate):
    """Heavy-ball descent whose decay is what is learned, and whose memory has a history."""

    def init(self, variable):
        return {"mean": torch.zeros_like(variable)}

    def update(self, gradient, state, variable):
        mean = self.rate * state["mean"] + gradient
        return -0.1 * mean, {"mean": mean}


@pytest.mark.parametrize("clip_norm", [1e9, 0.5])
@pytest.mark.parametrize("score", ["final", "mean"])
def test_fit_by_hand(score, clip_norm):
    """Three different objectives: step k goes down the k-th and is scored on the next one."""
    rate = 0.3
    follower = follower_of(LearnedRate(rate), clip_norm=clip_norm)
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
    expected = {"score": total, "gradient_norm": abs(derivative), "skipped": 0.0, "last_step": rate * g1.norm()}
    assert figures == pytest.approx({name: float(value) for name, value in expected.items()})
    assert abs(derivative) > 0.5
    assert follower.rule.rate.item() == pytest.approx(rate - 0.01 * float(derivative.clamp(-clip_norm, clip_norm)))


@pytest.mark.parametrize(("gradient", "taken"), [(0.25, 0.25), (-8.0, -0.5), (float("inf"), 0.0), (float("nan"), 0.0)])
def test_a_step_clips_the_gradients_that_the_weights_hold_or_is_skipped_and_counted(gradient, taken):
    follower = follower_of(LearnedRate(0.3), clip_norm=0.5)
    follower.rule.rate.grad = torch.tensor(gradient, dtype=torch.float64)
    norm, applied = follower.step()
    assert float(norm) == pytest.approx(abs(gradient), nan_ok=True)
    assert applied == bool(taken)
    assert follower.skipped == (not taken)
    assert follower.rule.rate.item() == pytest.approx(0.3 - 0.01 * taken)
    assert follower.rule.rate.grad is None


def test_a_step_clips_the_norm_of_all_weights_together():
    rule = nn.Linear(2, 2)
    follower = follower_of(rule, 1.0, clip_norm=2.0)
    before = torch.nn.utils.parameters_to_vector(rule.parameters()).detach()
    rule.weight.grad, rule.bias.grad = torch.full((2, 2), 3.0), torch.full((2,), 4.0)
    norm, _ = follower.step()
    moved = before - torch.nn.utils.parameters_to_vector(rule.parameters()).detach()
    assert float(norm) == pytest.approx((4 * 9 + 2 * 16) ** 0.5)
    torch.testing.assert_close(moved, torch.tensor([3.0] * 4 + [4.0] * 2) * 2 / norm)


def test_respond_and_fit_project_and_a_fit_carries_memory_and_answers_with_the_old_rule():
    follower = follower_of(LearnedRate(0.3), steps=3)
    objectives = [bowl(5.0, c) for c in (1.0, 2.0, 0.5, 1.0)]

    def project(w):
        return w.clamp(max=3.5)

    answer = follower.respond(bowl(5.0), START, project=project)
    unrolled = unroll(bowl(5.0), GradientStep(0.3), START, steps=3, project=project)
    torch.testing.assert_close((answer.variable, answer.trace), (unrolled.variable, unrolled.trace))
    expected, state = START, {"calls": torch.tensor(4.0)}
    for objective in objectives[:3]:
        expected = unroll(objective, GradientStep(0.3), expected, steps=1, project=project).variable
    assert (expected == 3.5).any()
    assert (expected < 3.5).any()
    response, _ = follower.fit(objectives, START, state=state, project=project)
    torch.testing.assert_close(response.variable, expected)
    assert (answer.state["calls"], response.state["calls"]) == (3, 7)
    assert not any(found.variable.requires_grad for found in (answer, response))


def test_it_needs_a_step_and_one_objective_more_than_steps():
    for count in (0, 2, 4):
        with pytest.raises(ValueError, match=f"3 objectives, got {count}"):
            follower_of(LearnedRate(0.3), steps=2).fit([bowl(1.0)] * count, START)
    with pytest.raises(ValueError, match="at least 1 step"):
        follower_of(LearnedRate(0.3), steps=0)


BAD = {
    "infinite": lambda w: w.sum() + float("inf"),
    "not a number": lambda w: w.sum() * float("nan"),
    "finite with infinite slope": lambda w: (w - w.detach()).abs().sum().sqrt() + (w * 0).sum().sqrt(),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_fit_that_is_not_finite_is_skipped_and_counted(bad):
    rule = LearnedRate(0.3)
    follower = LearnedFollower(rule, torch.optim.Adam(rule.parameters(), lr=0.1), steps=1)
    follower.fit([bowl(1.0), bowl(1.0)], START)
    before = copy.deepcopy(follower.state_dict())
    for count in (1, 2):
        _, figures = follower.fit([bowl(1.0), bad], START)
        assert figures["skipped"] == 1.0
        assert follower.skipped == count
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
    original.fit([bowl(1.0), bowl(1.0), BAD["not a number"]], START.float())
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


def test_an_unknown_score_is_refused():
    rule = Coordinatewise(0.1)
    learner = LearnedFollower(rule, torch.optim.Adam(rule.parameters()), steps=1)
    with pytest.raises(ValueError, match="score must be 'final' or 'mean', not 'means'"):
        learner.fit([lambda w: w.square().sum()] * 2, torch.ones(2), score="means")
