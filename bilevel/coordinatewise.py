"""A learned update rule: Adam plus a correction by one small network that every weight shares."""

import torch
from torch import Tensor, nn

from bilevel.rules import State, adam_direction, running_square
from bilevel.tree import Variable, flatten, leaves, unflatten


class Coordinatewise(nn.Module):
    """Adam plus a learned correction, the same small network for every weight; an `UpdateRule`.

    Step: −rate·exp(log_rate)·(adam·exp(a) + b), with `adam` Adam's direction, `log_rate` one learned number for all
    weights, and (a, b) = (2·tanh, tanh) of a network's two outputs, so that no weight moves further than
    `rate·exp(log_rate)·(e²·|adam| + 1)`. The network's head starts at zero: at first the rule *is* `rules.Adam`, to the
    last bit.

    Twelve inputs per weight: gradient, momenta (0.5, 0.9, 0.99) and weight, each over its root mean square in its
    tensor; gradient and momenta over Adam's running root mean square; the first input's log(abs(x) + 0.001) and sign;
    and the fraction of training done, which the caller writes into `state["progress"]` (shape (), in [0, 1]).

    `hidden=0` drops the network: only the log rate is learned. With `anchored` the network sees each weight minus its
    initial value. Weight decay that it learns then pulls towards the initial weights (as the penalty of Kumar et al.,
    2023), not towards zero, where gradients vanish. The network's inputs are data: use it with `through="rule"` or
    `"nothing"`, not with `"everything"` for a hypergradient of the leader. Features after Metz et al. (2020) and Goldie
    et al. (2024); the residual form after Metz et al.'s nominal steps."""

    features = 12
    momenta = (0.5, 0.9, 0.99)

    def __init__(
        self,
        rate: float,
        *,
        hidden: int = 16,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        anchored: bool = False,
    ) -> None:
        super().__init__()
        if betas[0] not in self.momenta:
            raise ValueError(f"the first of betas must be one of {self.momenta}, got {betas[0]}")
        self.rate, self.betas, self.eps, self.anchored = rate, betas, eps, anchored
        self.log_rate = nn.Parameter(torch.zeros(()))
        self.network = None
        if hidden:
            head = nn.Linear(hidden, 2)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.network = nn.Sequential(nn.Linear(self.features, hidden), nn.Tanh(), head)

    def init(self, variable: Variable) -> State:
        weight = flatten(variable)
        state = {
            "count": torch.zeros((), dtype=torch.float64),
            "progress": torch.zeros(()),
            "momenta": weight.new_zeros(len(self.momenta), len(weight)),  # all tensors' entries in a row, by `flatten`
            "square": torch.zeros_like(weight),
        }
        return state | ({"start": weight.detach().clone()} if self.anchored else {})

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        flat, count = flatten(gradient), state["count"] + 1
        decays = torch.tensor([[1 - beta] for beta in self.momenta], dtype=flat.dtype, device=flat.device)
        momenta = state["momenta"].lerp(flat, decays)
        square = running_square(state["square"], flat, self.betas[1])
        state = state | {"count": count, "momenta": momenta, "square": square}
        direction = self.adam_direction(state)
        if self.network is not None:
            inputs = self._inputs(gradient, state, variable).to(self.log_rate.dtype)
            gain, offset = self._outputs(inputs).to(flat.dtype).unbind(0)
            direction = direction * (2 * gain.tanh()).exp() + offset.tanh()
        # In the variable's own precision, so that a float32 rule is Adam to the last bit on float64 weights too.
        factor = -self.rate * self.log_rate.to(flat.dtype).exp()
        return unflatten(gradient, factor * direction), state

    def adam_direction(self, state: State) -> Tensor:
        """Adam's step for a rate of −1 from this memory, shape (weights,)."""
        mean = state["momenta"][self.momenta.index(self.betas[0])]
        return adam_direction(mean, state["square"], float(state["count"]), self.betas, self.eps)

    def _outputs(self, inputs: Tensor) -> Tensor:
        """The network's two outputs for every weight, shape (2, weights), from features of shape (12, weights) over a
        row of ones.

        Called as a module the network would take a row a weight; a row a feature is faster, since all that follows
        reads and writes whole rows. The ones stand for the bias, whose gradient then costs no pass of its own."""
        first, _, head = self.network
        hidden = (torch.cat([first.weight, first.bias[:, None]], dim=1) @ inputs).tanh_()
        return torch.addmm(head.bias[:, None], head.weight, hidden)

    @torch.no_grad()
    def _inputs(self, gradient: Variable, state: State, variable: Variable) -> Tensor:
        """The features of every weight, clamped to ±5, over a row of ones: shape (13, weights)."""
        count, flat = float(state["count"]), flatten(gradient)
        unbias = [[1 - beta**count] for beta in self.momenta]
        weight = flatten(variable) - state["start"] if self.anchored else flatten(variable)
        rows = flat.new_empty(5, len(flat))
        rows[0], rows[4] = flat, weight
        torch.div(state["momenta"], flat.new_tensor(unbias), out=rows[1:4])
        inputs = flat.new_empty(self.features + 1, len(flat))
        sizes = [leaf.numel() for leaf in leaves(gradient)]
        for x, over_rms in zip(rows.split(sizes, dim=1), inputs[:5].split(sizes, dim=1), strict=True):
            rms = torch.linalg.vector_norm(x, dim=1, keepdim=True) / x.shape[1] ** 0.5
            torch.div(x, rms + self.eps, out=over_rms)
        scale = (state["square"] / (1 - self.betas[1] ** count)).sqrt_().add_(self.eps)
        torch.div(rows[:4], scale, out=inputs[5:9])
        torch.log(inputs[0].abs().add_(1e-3), out=inputs[9])
        torch.sign(flat, out=inputs[10])
        inputs[11], inputs[12] = state["progress"], 1.0
        return inputs.clamp_(-5, 5)
