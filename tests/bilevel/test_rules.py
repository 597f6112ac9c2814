"""The hand-designed rules: values, purity, and the geometry of steepest descent."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevel import Adam, Coordinatewise, GradientStep, HypergradientAdam, SignStep, SteepestStep, unroll
from bilevel.tree import leaves

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}


def lengths(step: torch.Tensor, norm: str) -> torch.Tensor:
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(step.flatten(1), order, dim=1)


@st.composite
def gradients(draw):
    """Batches of gradients from huge to tiny, some samples exactly zero, some coordinates tied."""
    shape = (draw(st.integers(1, 4)), *draw(st.sampled_from([(1,), (5,), (2, 3), (3, 2, 2)])))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
    if draw(st.booleans()):
        values = values.round()
    magnitudes = draw(st.lists(st.sampled_from([0.0, 1e-30, 1e-8, 1.0, 1e8]), min_size=shape[0], max_size=shape[0]))
    return values * torch.tensor(magnitudes).view(-1, *[1] * (len(shape) - 1))


@settings(deadline=None, max_examples=150)
@given(gradient=gradients(), norm=st.sampled_from(NORMS), size=st.floats(1e-3, 10), seed=st.integers(0, 2**31))
def test_steepest_step_is_the_best_direction_in_its_ball(gradient, norm, size, seed):
    step, state = SteepestStep(norm, size).update(gradient, {}, gradient)
    assert step.shape == gradient.shape
    assert state == {}
    moving = gradient.flatten(1).abs().amax(1) > 0
    length = lengths(step, norm)
    torch.testing.assert_close(length[moving], torch.full_like(length[moving], size), rtol=1e-5, atol=0)
    assert (length[~moving] == 0).all()

    # Hölder: nothing in the ball goes further down than minus the dual norm, and the step gets there.
    slope = (gradient.double() * step.double()).flatten(1).sum(1)
    best = -size * torch.linalg.vector_norm(gradient.double().flatten(1), DUAL[norm], dim=1)
    torch.testing.assert_close(slope, best, rtol=1e-5, atol=0)
    rival = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(seed))
    rival = size * rival / lengths(rival, norm).view(-1, *[1] * (gradient.dim() - 1))
    assert (slope <= (gradient.double() * rival.double()).flatten(1).sum(1) + 1e-5 * best.abs()).all()


def test_steepest_step_differentiates_like_a_normalised_gradient():
    gradient = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    gradient.data[1] = torch.tensor([0.0, 2.0, 0.0])  # one lone coordinate, where the guard of the division sits
    rule = SteepestStep("l2", 0.7)
    assert torch.autograd.gradcheck(lambda g: rule.update(g, {}, g)[0], gradient)


def test_steepest_step_refuses_an_unknown_norm():
    with pytest.raises(ValueError, match="l3"):
        SteepestStep("l3", 1.0)


def test_plain_and_sign_steps_by_hand():
    gradient = {"a": torch.tensor([2.0, -3.0, 0.0]), "b": torch.tensor(-0.5)}
    plain, _ = GradientStep(0.1).update(gradient, {}, gradient)
    sign, _ = SignStep(0.1).update(gradient, {}, gradient)
    torch.testing.assert_close(plain, {"a": torch.tensor([-0.2, 0.3, 0.0]), "b": torch.tensor(0.05)})
    torch.testing.assert_close(sign, {"a": torch.tensor([-0.1, 0.1, 0.0]), "b": torch.tensor(0.1)})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_adam_agrees_with_torch(dtype, tolerance, betas):
    torch.manual_seed(0)
    start = torch.randn(7, 3, dtype=dtype)
    reference = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.01, betas=betas, eps=1e-6)
    rule = Adam(0.01, betas=betas, eps=1e-6)
    ours, state = start.clone(), rule.init(start)
    for _ in range(100):
        gradient = torch.randn(7, 3, dtype=dtype) * torch.tensor([1.0, 1e-4, 0.0], dtype=dtype)
        reference.grad = gradient.clone()
        optimizer.step()
        step, state = rule.update(gradient, state, ours)
        ours = ours + step
    torch.testing.assert_close(ours, reference.detach(), rtol=tolerance, atol=tolerance)


def test_adam_has_a_derivative_where_a_gradient_is_always_zero():
    """A dead unit's weights: 0/0 without care, and one NaN there would ruin the leader's whole gradient."""
    theta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def objective(w):
        return theta * (w[0] ** 2 + (w[1] - 5).relu())

    start = torch.ones(2, dtype=torch.float64)
    answer = unroll(objective, Adam(0.1, eps=1e-2), start, steps=3, through="everything").variable
    (derivative,) = torch.autograd.grad(answer.sum(), theta)

    def at(value):
        theta.data.fill_(value)
        return unroll(objective, Adam(0.1, eps=1e-2), start, steps=3).variable.sum()

    difference = (at(2 + 1e-5) - at(2 - 1e-5)) / 2e-5
    assert difference.abs() > 1e-5
    torch.testing.assert_close(derivative, difference, rtol=1e-6, atol=0)

    def dead(w):  # as behind a unit that no input reaches, whose gradient still hangs on the leader
        return theta * (w[0] ** 2 + w[1] * (w[0] - 50).relu().detach())

    answer = unroll(dead, Adam(0.1, eps=1e-2), start, steps=3, through="everything").variable
    assert torch.autograd.grad(answer.sum(), theta)[0].isfinite()


def test_the_rate_of_hypergradient_adam_goes_down_the_derivative_of_the_loss():
    torch.manual_seed(0)
    start, target = torch.randn(2, 5, dtype=torch.float64).unbind()

    def objective(w):
        return (w - target).square().sum()

    rule = HypergradientAdam(0.05, 1e-3)
    first = unroll(objective, rule, start, steps=1)
    rate = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    after = start - rate * (start - target).sign()  # Adam's first direction
    torch.testing.assert_close(first.variable, after.detach(), rtol=0, atol=1e-8)
    (derivative,) = torch.autograd.grad(objective(after), rate)
    second = unroll(objective, rule, first.variable, steps=1, state=first.state)
    torch.testing.assert_close(second.state["rate"], 0.05 - 1e-3 * derivative, rtol=1e-6, atol=0)
    adam = unroll(objective, Adam(0.05), start, steps=9).variable
    torch.testing.assert_close(unroll(objective, HypergradientAdam(0.05, 0.0), start, steps=9).variable, adam)


RULES = [GradientStep(0.1), SignStep(0.1), SteepestStep("l2", 0.1), Adam(0.1), Coordinatewise(0.1)]
RULES += [HypergradientAdam(0.1, 0.01)]
WITH_MEMORY = [Adam(0.1), HypergradientAdam(0.1, 0.01), Coordinatewise(0.1)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rules_are_pure(rule):
    torch.manual_seed(0)
    variable = {"b": torch.randn(3, 2), "a": torch.randn(2, 2)}
    gradient = {name: torch.randn_like(value) for name, value in variable.items()}
    state = rule.init(variable)
    _, state = rule.update(gradient, state, variable)
    before = copy.deepcopy((gradient, state, variable))
    first = rule.update(gradient, state, variable)
    torch.testing.assert_close((gradient, state, variable), before, rtol=0, atol=0)
    torch.testing.assert_close(rule.update(gradient, state, variable), first, rtol=0, atol=0)
    assert set(first[1]) == set(state)  # and what a memory holds does not change from step to step


@pytest.mark.parametrize("rule", WITH_MEMORY, ids=lambda rule: type(rule).__name__)
def test_fresh_memory_shares_no_storage_and_memory_may_come_back_in_another_order(rule):
    """A checkpoint format may sort its names; matching by position would then mix up the weights."""
    torch.manual_seed(0)
    if isinstance(rule, Coordinatewise):
        torch.nn.init.normal_(rule.network[-1].weight)
    variable = {"w": torch.randn(2, 2), "b": torch.randn(2, 2)}
    gradient = {name: torch.randn_like(value) for name, value in variable.items()}
    fresh = rule.init(variable)
    pointers = [leaf.data_ptr() for leaf in leaves(fresh)]
    assert len(set(pointers)) == len(pointers)
    _, state = rule.update(gradient, fresh, variable)

    def reverse(tree):
        return {key: reverse(tree[key]) for key in reversed(tree)} if isinstance(tree, dict) else tree

    expected, expected_state = rule.update(gradient, state, variable)
    step, new_state = rule.update(gradient, reverse(state), variable)
    torch.testing.assert_close(step, expected, rtol=0, atol=0)
    torch.testing.assert_close(new_state, expected_state, rtol=0, atol=0)
