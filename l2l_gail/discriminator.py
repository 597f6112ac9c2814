"""The discriminator: a network that tells the expert's transitions from the policy's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Discriminator(nn.Module):
    """A tanh network from a transition (filtered observation, action) to the logit of "this is the expert". With
    `spectral_norm` each weight matrix is divided by its largest singular value (Miyato et al., 2018), from singular
    vectors that `refresh` improves by power iteration; between two refreshes they are constants."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], *, spectral_norm: bool = False) -> None:
        super().__init__()
        sizes = [inputs, *hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.spectral_norm = spectral_norm
        if spectral_norm:
            for index, layer in enumerate(self.layers):
                self.register_buffer(f"left_{index}", F.normalize(torch.randn(layer.out_features), dim=0))
                self.register_buffer(f"right_{index}", F.normalize(torch.randn(layer.in_features), dim=0))
            self.refresh(iterations=15)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (batch,), of transitions of shape (batch, inputs)."""
        for index, layer in enumerate(self.layers):
            weight = layer.weight
            if self.spectral_norm:
                left, right = getattr(self, f"left_{index}"), getattr(self, f"right_{index}")
                weight = weight / (left @ weight @ right)
            x = F.linear(x, weight, layer.bias)
            x = x.tanh() if index < len(self.layers) - 1 else x
        return x.squeeze(-1)

    @torch.no_grad()
    def refresh(self, iterations: int = 1) -> None:
        """Bring the singular vectors up to date; call it once a round, outside the objective."""
        if not self.spectral_norm:
            return
        for index, layer in enumerate(self.layers):
            right = getattr(self, f"right_{index}")
            for _ in range(iterations):
                left = F.normalize(layer.weight @ right, dim=0)
                right = F.normalize(layer.weight.T @ left, dim=0)
            getattr(self, f"left_{index}").copy_(left)
            getattr(self, f"right_{index}").copy_(right)
