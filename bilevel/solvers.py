"""Ways to answer the linear system H x = b of the implicit function theorem, given only products with H.

Each function returns a `solve(matvec, b) -> x`; `b` and `x` are variables of one structure."""

from collections.abc import Callable

import torch

from bilevel.tree import Variable, dot, map_tensors

Matvec = Callable[[Variable], Variable]
Solve = Callable[[Matvec, Variable], Variable]


def conjugate_gradient(steps: int, tol: float = 1e-10) -> Solve:
    """Conjugate gradients (Hestenes and Stiefel, 1952), stopped after `steps` or once `|residual| ≤ tol·|b|`.

    Needs a symmetric positive definite H; on an indefinite one the answer means nothing. Stops with what it has at a
    direction without curvature, as in a flat objective (H = 0), whose answer is 0. ValueError for negative `steps`."""
    _require_steps(steps)

    def solve(matvec: Matvec, b: Variable) -> Variable:
        x = map_tensors(torch.zeros_like, b)
        residual, direction = b, b
        target = tol**2 * float(dot(b, b))
        square = dot(residual, residual)
        for _ in range(steps):
            if float(square) <= target:  # also the way out for b = 0, where the quotients below are 0/0
                break
            product = matvec(direction)
            if (curvature := dot(direction, product)) == 0:
                break
            scale = square / curvature
            x = map_tensors(lambda x_, d, s=scale: x_ + s * d, x, direction)
            residual = map_tensors(lambda r, p, s=scale: r - s * p, residual, product)
            previous, square = square, dot(residual, residual)
            direction = map_tensors(lambda r, d, s=square / previous: r + s * d, residual, direction)
        return x

    return solve


def _require_steps(steps: int) -> None:
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")


def neumann(steps: int, scale: float) -> Solve:
    """The truncated Neumann series scale·Σ_{i≤steps} (I − scale·H)ⁱ b (Lorraine et al., 2020).

    Converges only for 0 < scale·λ < 2 over the eigenvalues λ of H; outside that it diverges. ValueError for negative
    `steps`."""
    _require_steps(steps)

    def solve(matvec: Matvec, b: Variable) -> Variable:
        term, total = b, b
        for _ in range(steps):
            term = map_tensors(lambda t, p: t - scale * p, term, matvec(term))
            total = map_tensors(torch.add, total, term)
        return map_tensors(lambda t: scale * t, total)

    return solve


def scaled_identity(scale: float, mask: Variable | None = None) -> Solve:
    """H⁻¹ ≈ scale·I, restricted to the coordinates where `mask` is 1 (the inactive constraints).

    Exact for a linearised objective with a proximal term of weight 1/scale (FAST-BAT, Zhang et al., 2022); a crude
    guess for anything else. `matvec` is never called."""

    def solve(matvec: Matvec, b: Variable) -> Variable:
        if mask is None:
            return map_tensors(lambda b_: scale * b_, b)
        return map_tensors(lambda b_, m: scale * b_ * m, b, mask)

    return solve
