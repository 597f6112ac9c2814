"""PGD adversarial training (Madry et al., 2018)."""

from torch import Tensor, nn

from l2l_at import attacks
from l2l_at.methods.base import Method


class PGD(Method):
    """min_θ CE(f(x + δ), y), δ by ten projected steps of radius/4 from a random start, found in evaluation mode."""

    summary = "PGD-10 adversarial training (Madry et al., 2018)"

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return attacks.pgd(
            model,
            images,
            labels,
            self.threat,
            steps=self.chosen("attack_steps", 10),
            size=self.chosen("attack_size", 0.25),
            random_start=self.chosen("random_start", True),
        )
