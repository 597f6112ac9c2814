"""A leader–follower game whose every derivative is known in closed form.

The follower minimises ½ wᵀA w − wᵀB θ; the leader minimises ½|w − t|² + ½|θ|² over θ. The best response is w* = A⁻¹B θ,
and the true hypergradient is θ + BᵀA⁻¹(w* − t)."""

import torch
from torch import Tensor

from bilevel import GradientStep, conjugate_gradient, implicit, unroll


class QuadraticGame:
    """The game in float64 with `size` follower and 3 leader variables; A's eigenvalues lie evenly in [0.2, 2]."""

    def __init__(self, size: int = 6, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        basis, _ = torch.linalg.qr(normal(size, size))
        self.curvature = basis @ torch.diag(torch.linspace(0.2, 2.0, size, dtype=torch.float64)) @ basis.T
        self.coupling = normal(size, 3)
        self.target = normal(size)
        self.theta = normal(3).requires_grad_()
        self.start = torch.zeros(size, dtype=torch.float64)

    def objective(self, w: Tensor) -> Tensor:
        return 0.5 * w @ self.curvature @ w - w @ self.coupling @ self.theta

    def leader(self, w: Tensor) -> Tensor:
        return 0.5 * (w - self.target).square().sum() + 0.5 * self.theta.square().sum()

    def best_response(self) -> Tensor:
        return torch.linalg.solve(self.curvature, self.coupling @ self.theta.detach())

    def true_hypergradient(self) -> Tensor:
        pull = torch.linalg.solve(self.curvature, self.best_response() - self.target)
        return self.theta.detach() + self.coupling.T @ pull

    def hypergradient(self, answer: Tensor) -> Tensor:
        """What the leader gets by differentiating its loss at `answer`."""
        return torch.autograd.grad(self.leader(answer), self.theta)[0]

    def relative_error(self, answer: Tensor) -> float:
        truth = self.true_hypergradient()
        return float((self.hypergradient(answer) - truth).norm() / truth.norm())

    def unrolled(self, steps: int, rate: float = 0.5) -> Tensor:
        return unroll(self.objective, GradientStep(rate), self.start, steps=steps, through="everything").variable

    def implicit_at(self, solution: Tensor, solve=None) -> Tensor:
        return implicit(self.objective, solution.detach(), solve or conjugate_gradient(len(self.start)))
