"""Threat models: projections against their definition, random starts, radii."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_at.attacks import SparseStep
from l2l_at.config import ATConfig
from l2l_at.threat import Threat, parse_radius, tidy_radius
from l2l_experiment.errors import UserError

NORMS = ("linf", "l2", "l1")


def draw(seed: int, count: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 1, 1, count, generator=generator, dtype=torch.float64)
    # Half of all real digits' pixels lie on the box; so do some here.
    images = torch.where(images < 0.3, torch.zeros(()), torch.where(images > 0.8, torch.ones(()), images)).double()
    delta = scale * torch.randn(3, 1, 1, count, generator=generator, dtype=torch.float64)
    delta[0, ..., 0] = 0
    return images, delta


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    seed=st.integers(0, 10_000),
    count=st.integers(1, 12),
    radius=st.floats(0.01, 3.0),
    scale=st.floats(1e-4, 5.0),
)
def test_projection_is_inside_idempotent_and_nearest(norm, seed, count, radius, scale):
    threat = Threat(norm, radius)
    images, delta = draw(seed, count, scale)
    projected = threat.project(delta, images)
    assert (threat.size(projected) <= radius * (1 + 1e-9)).all()
    assert (images + projected >= -1e-12).all()
    assert (images + projected <= 1 + 1e-12).all()
    torch.testing.assert_close(threat.project(projected, images), projected, rtol=1e-9, atol=1e-12)
    # A point of a convex set is nearest if no other point of the set lies on the side of delta.
    other = threat.project(draw(seed + 1, count, scale)[1], images)
    gain = ((delta - projected) * (other - projected)).flatten(1).sum(1)
    assert (gain <= 1e-9 * (1 + scale) ** 2).all()
    # Whatever lies on the way to the nearest point has the same one.
    on_the_way = projected + 0.5 * (delta - projected)
    torch.testing.assert_close(threat.project(on_the_way, images), projected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_inside_and_reaches_far(norm):
    torch.manual_seed(0)
    threat = Threat(norm, 0.3)
    images = torch.full((2000, 1, 2, 2), 0.5)
    start = threat.random_start(images)
    assert (threat.size(start) <= 0.3 + 1e-6).all()
    assert start.mean().abs() < 0.01
    # Uniform in a 4-dimensional ball: the norm has the distribution function (r/radius)^4, its median is 2^(-1/4).
    assert (threat.size(start) / 0.3).median() == pytest.approx(2 ** (-1 / 4), abs=0.02)
    if norm == "l1":  # of four that are exponentially distributed the largest has this share of the sum on average
        sizes = start.flatten(1).abs()
        share = (sizes.max(1).values / sizes.sum(1)).mean()
        assert share == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=0.015)


def test_a_sparse_step_moves_the_largest_entries_that_can_move():
    images = torch.tensor([[[[0.0, 0.5, 1.0, 0.5]]]])
    gradient = torch.tensor([[[[4.0, -3.0, -2.0, 1.0]]]])  # down is out of the box at the first, and at the third
    step, _ = SparseStep(0.6, images, share=0.5).update(gradient, {}, torch.zeros_like(images))
    torch.testing.assert_close(step, torch.tensor([[[[0.0, 0.3, 0.0, -0.3]]]]))
    one, _ = SparseStep(0.6, images, share=0.01).update(gradient, {}, torch.zeros_like(images))
    torch.testing.assert_close(one, torch.tensor([[[[0.0, 0.6, 0.0, 0.0]]]]))


def test_radius_as_text():
    """A fraction or a number, perhaps in standard deviations."""
    assert [parse_radius(text) for text in ("8/255", "0.1", "4/255.0")] == pytest.approx([8 / 255, 0.1, 4 / 255])
    assert [parse_radius(text, 0.3) for text in ("0.5sd", "8/255sd")] == pytest.approx([0.15, 0.3 * 8 / 255])
    assert ATConfig(dataset="cifar10", eps="0.2sd").threat.radius == pytest.approx(0.2 * (0.2470 + 0.2435 + 0.2616) / 3)
    assert str(Threat("l2", 1.0)) == "l2 1"
    assert Threat("linf", "8/255") == Threat("linf", 8 / 255)
    assert (str(Threat("linf", 8 / 255)), str(Threat("l2", 0.5))) == ("linf 8/255", "l2 0.5")


def test_equal_radii_have_one_spelling():
    assert {tidy_radius(text) for text in ("0.1", ".10", 0.1, "1e-1", "51/510", "0.100")} == {"0.1"}
    assert {tidy_radius(text) for text in ("8/255", "16/510", 8 / 255)} == {"8/255"}
    assert [tidy_radius(text) for text in ("2/255sd", "1.0sd", "10/255", "1/7")] == [
        "2/255sd",
        "1sd",
        "10/255",
        repr(1 / 7),
    ]
    for text in ("8/255", "0.031", "0.0123456789", "1/7"):
        assert parse_radius(tidy_radius(text)) == parse_radius(text)


@pytest.mark.parametrize("text", ["", "eight", "8/0", "1/2/3"])
def test_radius_that_is_none(text):
    with pytest.raises(UserError, match="8/255"):
        parse_radius(text)


@pytest.mark.parametrize(("norm", "grey"), [("linf", 0.5), ("l2", 0.5 * math.sqrt(3072)), ("l1", 0.5 * 3072)])
def test_a_radius_is_implausible_from_the_distance_to_uniform_grey_on(norm, grey):
    grid = torch.ones(1, 3, 32, 32)  # as far from grey as an image can be
    assert float(Threat(norm, 1.0).size(grid - 0.5)) == pytest.approx(grey)
    Threat(norm, 0.999 * grey).check((3, 32, 32))
    with pytest.raises(UserError, match="grey"):
        Threat(norm, grey).check((3, 32, 32))


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_radius_must_be_positive(radius):
    with pytest.raises(UserError, match="positive"):
        Threat("linf", radius)


def test_a_radius_that_rounding_swallows_is_refused():
    with pytest.raises(UserError, match="lost in rounding"):
        Threat("linf", 1e-320)
