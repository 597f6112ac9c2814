"""How long graphs live: no longer than the round that made them."""

import gc
import weakref

import pytest
import torch

from bilevel import Adam, Response, conjugate_gradient, detach, implicit, unroll
from tests.bilevel.conftest import THROUGH


def test_detach_cuts_every_graph_and_is_idempotent(game):
    start = {"w": game.target.clone().requires_grad_()}
    once = detach(unroll(lambda t: game.objective(t["w"]), Adam(0.1), start, steps=2, through="everything"))
    twice = detach(once)
    assert isinstance(once, Response)
    tensors = [once.variable["w"], once.state["mean"]["w"], once.state["square"]["w"], once.trace]
    assert not any(tensor.requires_grad for tensor in tensors)
    torch.testing.assert_close(twice, once, rtol=0, atol=0)


class Probe(torch.autograd.Function):
    """The identity, whose node in the graph keeps a token alive."""

    @staticmethod
    def forward(ctx, x, token):
        ctx.token = token
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent, None


@pytest.fixture
def probed(game):
    """An objective that leaves a weak reference to every graph it makes, and a count of those still alive."""
    tokens = []

    def objective(w):
        token = set()
        tokens.append(weakref.ref(token))
        return game.objective(Probe.apply(w, token))

    gc.disable()  # the engine must make no reference cycles: its memory has to go at once, not at the next collection
    yield objective, lambda: sum(token() is not None for token in tokens)
    gc.enable()


def test_no_graph_survives_a_round(game, probed):
    objective, alive = probed
    start, state = game.start, None
    for through in THROUGH * 2:
        response = unroll(objective, Adam(0.1), start, steps=3, state=state, through=through)
        assert alive() == (3 if through == "everything" else 0)
        (game.leader(response.variable) + 0 * game.theta.sum()).backward()
        response = detach(response)
        start, state = response.variable, response.state
        assert alive() == 0


def test_no_graph_survives_an_implicit_round(game, probed):
    objective, alive = probed
    for _ in range(3):
        answer = implicit(objective, game.best_response(), conjugate_gradient(6))
        assert alive() == 1
        loss = game.leader(answer)
        loss.backward()
        del answer, loss
        assert alive() == 0
