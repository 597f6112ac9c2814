"""Fast adversarial training: one step from a random start (Wong et al., 2020)."""

from torch import Tensor, nn

from l2l_at import attacks
from l2l_at.methods.base import Method


class FGSMRS(Method):
    """min_θ CE(f(x + δ), y), δ by one step of 1.25·radius from a random start, projected.

    The published code finds δ in training mode; here it is evaluation mode, as for every hand-designed attack.
    """

    summary = "one step from a random start (Wong et al., 2020)"

    def perturb(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return attacks.pgd(
            model,
            images,
            labels,
            self.threat,
            steps=self.chosen("attack_steps", 1),
            size=self.chosen("attack_size", 1.25),
            random_start=self.chosen("random_start", True),
        )
