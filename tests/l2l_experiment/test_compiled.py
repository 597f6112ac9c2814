"""Compiled functions: the same values, gradients inside, writes into the state, and a way on without a compiler."""

import pytest
import torch
import torch._inductor

from l2l_experiment.compiled import Compiled


def descend(state, data):
    """A gradient step of a mean square, with noise; returns the loss."""
    points = [state[0].detach().requires_grad_()]
    loss = ((data[0] @ points[0] + torch.randn(len(data[0])) - data[1]) ** 2).mean()
    state[0].sub_(0.1 * torch.autograd.grad(loss, points)[0])
    return loss.detach()


@pytest.fixture
def problem():
    torch.manual_seed(0)
    return [torch.randn(3)], [torch.randn(8, 3), torch.randn(8)]


@pytest.mark.slow
def test_compiled_is_the_function_with_its_draws(problem):
    (weights,), data = problem
    eager, losses, call = weights.clone(), {}, Compiled(descend)
    for kind, state in (("eager", [eager]), ("compiled", [weights])):
        torch.manual_seed(1)
        function = descend if kind == "eager" else call
        losses[kind] = [float(function(state, data)) for _ in range(3)]
        losses[kind] += [float(function(state, [part[:5] for part in data]))]  # another shape
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-5)
    assert weights.tolist() == pytest.approx(eager.tolist(), rel=1e-5)
    assert len(call.compiled_for) == 2
    assert not call.failed


def test_without_a_compiler_it_says_so_once_and_goes_on(problem, monkeypatch, capsys):
    def broken(*args, **how):
        raise RuntimeError("no working C++ compiler was found\nand a page of details")

    monkeypatch.setattr(torch._inductor, "compile", broken)
    monkeypatch.setattr(Compiled, "warned", False)
    (weights,), data = problem
    eager, call, other = [weights.clone()], Compiled(descend), Compiled(descend)
    torch.manual_seed(1)
    expected = [float(descend(eager, data)) for _ in range(2)]
    torch.manual_seed(1)
    found = [float(function([weights], data)) for function in (call, other)]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: nothing can be compiled here")
    assert line.endswith("(no working C++ compiler was found)")
    assert found == expected
