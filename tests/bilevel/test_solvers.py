"""Linear solvers against dense linear algebra."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevel import conjugate_gradient, neumann, scaled_identity
from tests.bilevel.conftest import joined, named


def positive_definite(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)
    return matrix, torch.randn(size, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_conjugate_gradient_solves_positive_definite_systems(size, seed):
    matrix, b = positive_definite(size, seed)
    x = conjugate_gradient(3 * size)(lambda v: matrix @ v, b)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)


def test_conjugate_gradient_goes_as_far_as_its_tolerance():
    matrix, b = torch.diag(torch.linspace(1, 100, 8, dtype=torch.float64)), torch.ones(8, dtype=torch.float64)
    products = {}
    for tol in (0.5, 1e-2, 1e-10):
        calls = []
        x = conjugate_gradient(50, tol)(lambda v, calls=calls: calls.append(1) or matrix @ v, b)
        assert (matrix @ x - b).norm() <= tol * b.norm() * (1 + 1e-9)
        products[tol] = len(calls)
    assert products[0.5] < products[1e-10] <= 9


@pytest.mark.parametrize("tol", [1e-10, 0.0])
def test_conjugate_gradient_of_nothing_is_nothing(tol):
    b = {"w": torch.zeros(3), "b": torch.zeros(2)}
    x = conjugate_gradient(5, tol)(lambda v: v, b)
    torch.testing.assert_close(x, b, rtol=0, atol=0)


def test_conjugate_gradient_stops_where_nothing_curves():
    b = torch.tensor([1.0, 2.0])
    assert torch.equal(conjugate_gradient(5)(torch.zeros_like, b), torch.zeros(2))
    half = torch.tensor([4.0, 0.0])  # of rank one, and b is not in its range
    assert conjugate_gradient(50)(lambda v: half * v, b).isfinite().all()


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_neumann_is_its_truncated_series(steps):
    matrix, b = positive_definite(5, seed=1)
    scale = 0.3
    contraction = torch.eye(5, dtype=torch.float64) - scale * matrix
    series = scale * sum(torch.linalg.matrix_power(contraction, i) @ b for i in range(steps + 1))
    torch.testing.assert_close(neumann(steps, scale)(lambda v: matrix @ v, b), series, rtol=1e-12, atol=1e-12)


def test_scaled_identity_masks_and_never_multiplies():
    b = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    mask = {"w": torch.tensor([True, False]), "b": torch.tensor([True])}
    plain, masked = scaled_identity(0.5)(None, b), scaled_identity(0.5, mask)(None, b)
    torch.testing.assert_close(plain, {"w": torch.tensor([0.5, 1.0]), "b": torch.tensor([1.5])})
    torch.testing.assert_close(masked, {"w": torch.tensor([0.5, 0.0]), "b": torch.tensor([1.5])})


def test_solvers_treat_names_as_one_vector(game):
    """A system that couples the named parts, against the same system in one Tensor."""
    b = game.target
    for solve in (conjugate_gradient(6), conjugate_gradient(3), neumann(20, 0.5), scaled_identity(0.5)):
        whole = solve(lambda v: game.curvature @ v, b)
        parts = solve(lambda v: named(game.curvature @ joined(v)), named(b))
        torch.testing.assert_close(joined(parts), whole)
