"""A learned update rule: Adam plus a correction by one small network that every weight shares."""

import torch
from torch import Tensor, nn

from bilevel.rules import State, adam_direction, running_mean, running_square
from bilevel.tree import Variable, flatten, leaves, map_tensors, unflatten


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
        def zeros() -> Variable:  # fresh ones each time: file formats refuse tensors that share their memory
            return map_tensors(torch.zeros_like, variable)

        state = {
            "count": torch.zeros((), dtype=torch.float64),
            "progress": torch.zeros(()),
            "momenta": {str(beta): zeros() for beta in self.momenta},
            "square": zeros(),
        }
        return state | ({"start": map_tensors(lambda v: v.detach().clone(), variable)} if self.anchored else {})

    def update(self, gradient: Variable, state: State, variable: Variable) -> tuple[Variable, State]:
        count = state["count"] + 1
        momenta = {str(beta): running_mean(state["momenta"][str(beta)], gradient, beta) for beta in self.momenta}
        square = running_square(state["square"], gradient, self.betas[1])
        state = state | {"count": count, "momenta": momenta, "square": square}
        direction = adam_direction(momenta[str(self.betas[0])], square, float(count), self.betas, self.eps)
        if self.network is not None:
            flat = flatten(direction)
            inputs = self._inputs(gradient, state, variable).to(self.log_rate.dtype)
            gain, offset = self._outputs(inputs).to(flat.dtype).unbind(0)
            direction = unflatten(direction, flat * (2 * gain.tanh()).exp() + offset.tanh())
        # In the variable's own precision, so that a float32 rule is Adam to the last bit on float64 weights too.
        factor = -self.rate * self.log_rate.to(leaves(direction)[0].dtype).exp()
        return map_tensors(lambda d: factor * d, direction), state

    def _outputs(self, inputs: Tensor) -> Tensor:
        """The network's two outputs for every weight, shape (2, weights), from features of shape (12, weights).

        Called as a module the network would take a row a weight; a row a feature is faster, since all that follows
        reads and writes whole rows."""
        first, _, head = self.network
        hidden = torch.addmm(first.bias[:, None], first.weight, inputs).tanh_()
        return torch.addmm(head.bias[:, None], head.weight, hidden)

    @torch.no_grad()
    def _inputs(self, gradient: Variable, state: State, variable: Variable) -> Tensor:
        """The features of every weight, shape (12, weights), clamped to ±5."""
        count = float(state["count"])
        averages = [flatten(state["momenta"][str(beta)]) / (1 - beta**count) for beta in self.momenta]
        weight = flatten(variable) - flatten(state["start"]) if self.anchored else flatten(variable)
        rows = torch.stack([flatten(gradient), *averages, weight])
        inputs = rows.new_empty(self.features, rows.shape[1])
        sizes = [leaf.numel() for leaf in leaves(gradient)]
        for x, over_rms in zip(rows.split(sizes, dim=1), inputs[:5].split(sizes, dim=1), strict=True):
            torch.div(x, x.square().mean(1, keepdim=True).sqrt() + self.eps, out=over_rms)
        scale = (flatten(state["square"]) / (1 - self.betas[1] ** count)).sqrt() + self.eps
        torch.div(rows[:4], scale, out=inputs[5:9])
        torch.log(inputs[0].abs() + 1e-3, out=inputs[9])
        torch.sign(rows[0], out=inputs[10])
        inputs[11] = state["progress"]
        return inputs.clamp_(-5, 5)
