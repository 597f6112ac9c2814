"""Each estimator's value against closed forms and finite differences; what a response keeps and leaves alone."""

import pytest
import torch

from bilevel import (
    Adam,
    Coordinatewise,
    GradientStep,
    HypergradientAdam,
    LearnedFollower,
    SignStep,
    conjugate_gradient,
    implicit,
    neumann,
    scaled_identity,
    unroll,
)
from tests.bilevel.conftest import THROUGH, joined, named

STEPS = (1, 5, 20, 100)


def unrolled_by_hand(game, steps, rate=0.5):
    """w_K = S_K B θ with S_K = Σ_{i<K} rate (I − rate A)^i, and the leader's gradient through it."""
    contraction = torch.eye(6, dtype=torch.float64) - rate * game.curvature
    series = rate * sum(torch.linalg.matrix_power(contraction, i) for i in range(steps))
    theta = game.theta.detach()
    answer = series @ game.coupling @ theta
    return answer, theta + game.coupling.T @ series.T @ (answer - game.target)


@pytest.mark.parametrize("steps", [*STEPS, 300])
def test_unrolled_hypergradient_is_the_closed_form(game, steps):
    expected_answer, expected = unrolled_by_hand(game, steps)
    with torch.no_grad():  # which keeps no graph from being recorded
        answer = game.unrolled(steps)
    torch.testing.assert_close(answer.detach(), expected_answer)
    value = game.hypergradient(answer)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    if steps == 300:  # enough to converge
        torch.testing.assert_close(value, game.true_hypergradient(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solve", [conjugate_gradient(6), conjugate_gradient(50), neumann(300, 0.5)])
def test_implicit_is_exact_at_the_solution(game, solve):
    assert game.relative_error(game.implicit_at(game.best_response(), solve)) < 1e-12


def test_scaled_identity_is_its_own_estimator_and_not_exact(game):
    solution = game.best_response()
    value = game.hypergradient(game.implicit_at(solution, scaled_identity(0.5)))
    expected = game.theta.detach() + 0.5 * game.coupling.T @ (solution - game.target)
    torch.testing.assert_close(value, expected)
    assert (value - game.true_hypergradient()).norm() > 0.1 * game.true_hypergradient().norm()


@pytest.mark.parametrize("steps", STEPS)
def test_implicit_away_from_the_solution_is_biased_but_less_than_unrolling(game, steps):
    answer = game.unrolled(steps)
    value = game.hypergradient(game.implicit_at(answer))
    pull = torch.linalg.solve(game.curvature, answer.detach() - game.target)
    torch.testing.assert_close(value, game.theta.detach() + game.coupling.T @ pull)
    truth = game.true_hypergradient()
    assert 1e-6 < (value - truth).norm() / truth.norm() < game.relative_error(answer)


def test_implicit_keeps_the_solution_and_works_on_names_also_if_the_leader_reads_one_only(game):
    solution = named(game.best_response())
    answer = implicit(lambda tree: game.objective(joined(tree)), solution, conjugate_gradient(6))
    torch.testing.assert_close({k: v.detach() for k, v in answer.items()}, solution, rtol=0, atol=0)
    value = torch.autograd.grad(game.leader(joined(answer)), game.theta, retain_graph=True)[0]
    torch.testing.assert_close(value, game.true_hypergradient(), rtol=1e-12, atol=1e-12)
    # The other name's cotangent is undefined, and the Hessian couples the two. Zero gives zero and not NaN.
    for factor in (0, 3):
        (value,) = torch.autograd.grad((answer["b"] * factor).sum(), game.theta, retain_graph=True)
        cotangent = torch.tensor([0.0] * 4 + [factor] * 2, dtype=torch.float64)
        torch.testing.assert_close(value, game.coupling.T @ torch.linalg.solve(game.curvature, cotangent))


def test_through_rule_treats_gradients_as_data(game):
    """Two steps of −rate·g + pull·w with both numbers learned, against the derivative written out."""
    rate, pull = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, -0.05))

    class PullingStep:
        def init(self, variable):
            return {}

        def update(self, gradient, state, variable):
            return -rate * gradient + pull * variable, state

    start = game.target.clone()
    results = {}
    for through in ("rule", "everything"):
        answer = unroll(game.objective, PullingStep(), start, steps=2, through=through).variable
        wanted = (rate, pull, game.theta)
        results[through] = torch.autograd.grad(answer.sum(), wanted, allow_unused=True)

    with torch.no_grad():
        a, force = game.curvature, game.coupling @ game.theta
        g0 = a @ start - force
        w1 = (1 + pull) * start - rate * g0
        g1 = a @ w1 - force
        d_rate = -g1 - (1 + pull) * g0
        d_pull = w1 + (1 + pull) * start
        # Differentiating g1 too adds −rate·A·dw1.
        full_rate, full_pull = d_rate + rate * a @ g0, d_pull - rate * a @ start
    torch.testing.assert_close(results["rule"][0], d_rate.sum())
    torch.testing.assert_close(results["rule"][1], d_pull.sum())
    assert results["rule"][2] is None
    torch.testing.assert_close(results["everything"][0], full_rate.sum())
    torch.testing.assert_close(results["everything"][1], full_pull.sum())
    assert results["everything"][2].abs().min() > 0


def test_detached_answer_is_exact_for_min_max_at_the_optimum(game):
    """Envelope theorem (Danskin, 1966): where the follower is optimal, its motion costs the leader nothing."""

    def value(w):  # the leader minimises over θ what the follower maximises over w
        return -game.objective(w) + game.theta.square().sum() * w.sum() * 0.1

    objective = lambda w: -value(w)  # noqa: E731
    theta = game.theta.detach()
    push = game.coupling @ theta + 0.1 * theta.square().sum()
    optimum = torch.linalg.solve(game.curvature, push)
    (detached,) = torch.autograd.grad(value(optimum), game.theta)
    (total,) = torch.autograd.grad(value(implicit(objective, optimum, conjugate_gradient(6))), game.theta)
    by_hand = game.coupling.T @ optimum + 0.2 * theta * optimum.sum()
    torch.testing.assert_close(detached, by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(total, by_hand, rtol=1e-12, atol=1e-12)

    short = unroll(objective, GradientStep(0.5), game.start, steps=3, through="everything").variable
    (away,) = torch.autograd.grad(value(short), game.theta)
    (away_detached,) = torch.autograd.grad(value(short.detach()), game.theta)
    assert (away - away_detached).norm() > 0.01 * away.norm()


@pytest.mark.parametrize("rule", [GradientStep(0.2), Adam(0.1, eps=0.1)], ids=lambda rule: type(rule).__name__)
def test_gradcheck_of_unrolling(rule):
    torch.manual_seed(0)
    theta = torch.randn(3, dtype=torch.float64, requires_grad=True)
    start = torch.randn(4, dtype=torch.float64, requires_grad=True)
    mix = torch.randn(4, 3, dtype=torch.float64)

    def answer(theta, start):
        def objective(w):
            return torch.cosh(w - mix @ theta).sum() + (w[0] * w[1] * theta[2]).sin()

        return unroll(objective, rule, start, steps=4, through="everything").variable

    assert torch.autograd.gradcheck(answer, (theta, start))


def test_gradcheck_of_implicit():
    """On the exact minimiser of a quartic. gradcheck also sends undefined cotangents, so that CG meets b = 0."""
    torch.manual_seed(0)
    theta = torch.randn(3, dtype=torch.float64, requires_grad=True)
    mix = torch.randn(4, 3, dtype=torch.float64)

    def answer(theta):
        def objective(w):
            return 0.25 * w.pow(4).sum() + 0.5 * (w - mix @ theta).square().sum() + 0.3 * w[0] * w[1]

        w = torch.zeros(4, dtype=torch.float64)
        for _ in range(30):
            hessian = torch.autograd.functional.hessian(objective, w)
            w = w - torch.linalg.solve(hessian, torch.autograd.functional.jacobian(objective, w))
        return implicit(objective, w.detach(), conjugate_gradient(8, tol=1e-14))

    assert torch.autograd.gradcheck(answer, theta)


@pytest.mark.parametrize("through", THROUGH)
def test_no_steps_return_the_start(game, through):
    start = game.target.clone().requires_grad_()
    response = unroll(game.objective, GradientStep(0.5), start, steps=0, through=through)
    assert torch.equal(response.variable, start)
    assert response.variable.requires_grad == (through != "nothing")
    assert response.trace.shape == (0,)


@pytest.mark.parametrize("through", THROUGH)
def test_all_modes_visit_the_same_points_and_touch_no_grad(game, through):
    """The mode changes the derivative only, and the trace is the objective at each point before the answer."""
    game.theta.grad = torch.full_like(game.theta, 7.0)
    start = game.start.requires_grad_()
    point, values = start.detach(), []
    for _ in range(4):
        values.append(game.objective(point).detach())
        gradient = game.curvature @ point - game.coupling @ game.theta.detach()
        point = (point - 0.3 * gradient).clamp(-0.2, 0.2)
    assert (point.abs() == 0.2).any()
    assert (point.abs() < 0.2).any()
    options = {"steps": 4, "project": lambda w: w.clamp(-0.2, 0.2), "through": through}
    response = unroll(game.objective, GradientStep(0.3), start, **options)
    torch.testing.assert_close(response.variable.detach(), point)
    torch.testing.assert_close(response.trace, torch.stack(values))
    assert not response.trace.requires_grad
    assert torch.equal(game.theta.grad, torch.full_like(game.theta, 7.0))
    assert start.grad is None


def test_memory_is_carried_from_call_to_call(game):
    whole = unroll(game.objective, Adam(0.1), game.start, steps=5)
    first = unroll(game.objective, Adam(0.1), game.start, steps=2)
    second = unroll(game.objective, Adam(0.1), first.variable, steps=3, state=first.state)
    torch.testing.assert_close(second.variable, whole.variable, rtol=0, atol=0)
    torch.testing.assert_close(second.state, whole.state, rtol=0, atol=0)
    forgetful = unroll(game.objective, Adam(0.1), first.variable, steps=3)
    assert not torch.allclose(forgetful.variable, whole.variable)


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("rule", [GradientStep(0.3), SignStep(0.1), Adam(0.1)], ids=lambda rule: type(rule).__name__)
def test_names_and_tensors_are_the_same_to_the_engine(game, rule, through):
    whole = unroll(game.objective, rule, game.start, steps=3, through=through)
    parts = unroll(lambda tree: game.objective(joined(tree)), rule, named(game.start), steps=3, through=through)
    torch.testing.assert_close(joined(parts.variable), whole.variable)
    assert list(parts.variable) == ["w", "b"]
    if through == "everything":
        torch.testing.assert_close(game.hypergradient(joined(parts.variable)), game.hypergradient(whole.variable))


def test_start_keeps_its_history(game):
    start = game.target.clone().requires_grad_()
    contraction = torch.eye(6, dtype=torch.float64) - 0.5 * game.curvature
    expected = {"rule": torch.ones(6, dtype=torch.float64), "everything": contraction.T.sum(1)}
    for through, value in expected.items():
        answer = unroll(game.objective, GradientStep(0.5), start, steps=1, through=through).variable
        torch.testing.assert_close(torch.autograd.grad(answer.sum(), start)[0], value)


def test_nothing_leaves_no_graph_whatever_comes_in(game):
    """A learned rule, a start with history, a memory with history that the rule hands on."""
    learned = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    start, state = game.start + learned, {"note": learned * 2}
    for through in ("nothing", "rule"):
        response = unroll(game.objective, GradientStep(learned), start, steps=2, state=state, through=through)
        attached = [response.variable.requires_grad, response.state["note"].requires_grad]
        assert attached == 2 * [through == "rule"]


def test_bad_arguments_are_refused(game):
    for options, told in (({"steps": -1}, "-1"), ({"steps": 1, "through": "all"}, "'all'")):
        with pytest.raises(ValueError, match=told):
            unroll(game.objective, GradientStep(0.5), game.start, **options)
    with pytest.raises(ValueError, match="holds no tensors"):
        unroll(game.objective, GradientStep(0.5), {}, steps=0)


def test_second_derivatives_through_implicit_are_refused(game):
    answer = game.implicit_at(game.best_response())
    (first,) = torch.autograd.grad(game.leader(answer), game.theta, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_implicit_backward_reaches_the_leader_once_and_nothing_else(game):
    bystander = torch.ones(6, dtype=torch.float64, requires_grad=True)
    bystander.grad = torch.full_like(bystander, 7.0)
    solution = game.best_response().requires_grad_()

    def objective(w):
        return game.objective(w) + 0 * (bystander * w).sum()

    answer = implicit(objective, solution, conjugate_gradient(6))
    assert game.theta.grad is None
    game.leader(answer).backward()
    torch.testing.assert_close(game.theta.grad, game.true_hypergradient())
    assert torch.equal(bystander.grad, torch.full_like(bystander, 7.0))
    assert solution.grad is None


def test_the_implicit_derivative_does_not_depend_on_the_caller_s_mode():
    theta = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        answer = implicit(lambda w: 0.5 * (w - 3 * theta).square().sum(), 3 * theta, conjugate_gradient(2))
    (slope,) = torch.autograd.grad(answer.sum(), theta)
    torch.testing.assert_close(slope, torch.full_like(theta, 3.0))


@torch.inference_mode()
def test_inference_mode_is_refused():
    for answer in (
        lambda: unroll(torch.sum, GradientStep(0.5), torch.ones(2), steps=1),
        lambda: implicit(torch.sum, torch.ones(2), conjugate_gradient(2)),
    ):
        with pytest.raises(RuntimeError, match=r"torch.inference_mode\(\) forbids gradients"):
            answer()


@pytest.mark.parametrize("rule", [Adam(0.05), HypergradientAdam(0.05, 1e-2)])
def test_the_hypergradient_of_a_rule_with_a_rate_of_its_own(rule):
    """By finite differences; the rate of the second depends on the leader, too."""
    target = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def end(theta):
        def loss(w):
            return (w - theta * target).square().sum()

        return unroll(loss, rule, 0 * target, steps=5, through="everything").variable.sum()

    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(end(theta), theta)
    with torch.no_grad():
        difference = (end(theta + 1e-6) - end(theta - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-7)


class Tuples:
    def init(self, variable):
        return (1, 2)


@pytest.mark.parametrize(
    ("objective", "start", "rule", "error", "told"),
    [
        (lambda w: w, torch.ones(2), GradientStep(0.1), ValueError, r"a scalar tensor, got shape \(2,\)"),
        (lambda w: 1.0, torch.ones(2), GradientStep(0.1), ValueError, "a scalar tensor, got a float"),
        (lambda w: torch.ones(()), torch.ones(2), GradientStep(0.1), ValueError, "does not depend on the variable"),
        (lambda w: w["a"].sum(), {"a": torch.ones(2), "b": torch.ones(2)}, Adam(0.1), ValueError, "on every tensor"),
        (torch.sum, [1.0, 2.0], GradientStep(0.1), TypeError, "the variable must be a tensor.*holds a list"),
        (torch.sum, torch.ones(2), Tuples(), TypeError, "the rule's memory must be a tensor.*holds a tuple"),
    ],
)
def test_slips_are_told(objective, start, rule, error, told):
    with pytest.raises(error, match=told):
        unroll(objective, rule, start, steps=1)


def test_numbers_that_make_no_sense_are_refused():
    for solve in (lambda: conjugate_gradient(-1), lambda: neumann(-5, 0.1)):
        with pytest.raises(ValueError, match="steps must not be negative"):
            solve()
    with pytest.raises(ValueError, match="a whole number"):
        unroll(torch.sum, GradientStep(0.1), torch.ones(2), steps=2.0)
    rule = Coordinatewise(0.1)
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        LearnedFollower(rule, torch.optim.Adam(rule.parameters()), steps=1, clip_norm=-1)
    with pytest.raises(ValueError, match="holds no parameter of the rule"):
        LearnedFollower(rule, torch.optim.Adam(Coordinatewise(0.1).parameters()), steps=1)
