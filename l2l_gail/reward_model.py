"""The reward that is learned: a discriminator, the filter before it, and what becomes of its logit."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l2l_experiment import checkpoint, devices, settings
from l2l_experiment.errors import UserError
from l2l_gail.config import GAILConfig, stored
from l2l_gail.discriminator import make_discriminator
from l2l_gail.environments import Environment
from l2l_gail.filters import MixtureFilter, NoFilter
from l2l_gail.inputs import Inputs
from l2l_gail.rewards import reward
from l2l_gail.spaces import actions_of
from l2l_gail.transitions import Transitions

LogProb = Callable[[Transitions], np.ndarray]


class RewardModel:
    """Rewards of transitions by a discriminator that is trained elsewhere.

    `log_prob` gives log π(a|s) of transitions, shape (n,), which AIRL's discriminator subtracts."""

    def __init__(
        self, env: Environment, config: GAILConfig, discriminator: nn.Module | None, log_prob: LogProb | None = None
    ) -> None:
        self.config, self.log_prob = config, log_prob
        self.device = devices.resolve(config.device, auto="cpu")
        self.columns = Inputs(env, config)
        made = make_discriminator(env, self.columns, config) if discriminator is None else discriminator
        self.discriminator = made.to(self.device).eval()
        if discriminator is not None:
            self._require_logits()
        self.features = env.observations.features
        self.filter: MixtureFilter | NoFilter = NoFilter() if env.observations.image else MixtureFilter()

    def _require_logits(self) -> None:
        """UserError unless the discriminator answers n transitions with n logits that depend on all its weights, and
        on its inputs where there is a gradient penalty."""
        rows = self._tensor(np.zeros((2, self.columns.size))).requires_grad_()
        weights = {name: weight for name, weight in self.discriminator.named_parameters() if weight.requires_grad}
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                logits = self.discriminator(rows)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            told = str(error).splitlines()[0]
            raise UserError(
                f"the discriminator must take float32 inputs of shape (n, {self.columns.size}): {told}"
            ) from error
        if not isinstance(logits, Tensor) or logits.shape != (2,):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(
                f"the discriminator must answer n transitions with a tensor of n logits, shape (n,); of 2 it gave {got}"
            )
        if weights and not logits.requires_grad:
            raise UserError("the discriminator answers without a gradient: leave out detach() and torch.no_grad()")
        wanted = [rows, *weights.values()]
        to_rows, *gradients = torch.autograd.grad(logits.sum(), wanted, allow_unused=True) if weights else [None]
        if weights and to_rows is None and self.config.gradient_penalty:
            raise UserError("the discriminator gives its inputs no gradient, and --gradient-penalty needs that")
        unused = [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]
        if unused or not weights:
            what = f"does not use {', '.join(unused)}" if unused else "has no weights to train"
            raise UserError(f"the discriminator {what}; call requires_grad_(False) on what it should not train")

    def inputs(self, data: Transitions) -> Tensor:
        """Transitions as the discriminator sees them, shape (n, inputs)."""
        told = self.log_prob(data) if self.columns.shaped and self.log_prob is not None else np.zeros(len(data))
        return self._tensor(self.columns(data, self.filter, told))

    def absorbing_input(self) -> Tensor:
        """The transition from the absorbing state to itself, shape (1, inputs)."""
        return self._tensor(self.columns.absorbing_rows(1))

    def _tensor(self, rows: np.ndarray) -> Tensor:
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def logits(self, data: Transitions) -> Tensor:
        """The discriminator's logits of transitions, shape (n,)."""
        return self.discriminator(self.inputs(data))

    @torch.no_grad()
    def score(self, data: Transitions, logits: Tensor | None = None) -> np.ndarray:
        """The learned reward of transitions, shape (n,).

        With `absorbing`, a transition that terminates also gets the discounted rewards of staying in the absorbing
        state for ever, γ/(1−γ)·r."""
        learned = reward(self.logits(data) if logits is None else logits, self.config.reward).cpu().numpy()
        if self.config.absorbing and data.ended.any():
            worth = float(reward(self.discriminator(self.absorbing_input()), self.config.reward))
            learned[data.ended] += worth * self.config.gamma / (1 - self.config.gamma)
        return learned

    @torch.no_grad()
    def transfer_reward(self, data: Transitions) -> np.ndarray:
        """The reward to train another policy on, shape (n,): AIRL's g, without shaping and log π; else `score`."""
        if not self.columns.shaped:
            return self.score(data)
        return self.discriminator.reward(self.inputs(data)).cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator.state_dict(), "filter": self.filter.state_dict()}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(tree["discriminator"])
        if tree["filter"] is not None:
            self.filter.load_state_dict(tree["filter"])

    @classmethod
    def load(cls, folder: Path | str, env: Environment, *, device: str = "cpu") -> "RewardModel":
        """The reward of a run's newest checkpoint, as it is, for the same environment or one of its spaces.

        If that run was itself trained on a given reward, it is that reward."""
        tree = checkpoint.latest(folder)
        another = tree.get("reward_settings")
        config = stored(folder) if another is None else settings.read(GAILConfig, another, str(folder))
        env = copy.copy(env)  # with the action scaling of the run that learned the reward
        env.actions = actions_of(env.actions.space, env.name, config.rescale_actions)
        model = cls(env, replace(config, device=device), None)
        try:
            model.load_state_dict(tree)
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"the reward of {folder} does not fit the spaces of {env.name}") from error
        return model


class LazyInputs:
    """Transitions as the discriminator is trained on them, computed only for the rows that are asked for: a round costs
    the same with a thousand demonstrations and with ten million.

    With absorbing states each transition that terminated is followed by one from the absorbing state to itself."""

    def __init__(self, model: RewardModel, data: Transitions) -> None:
        self.model, self.data = model, data
        self.order: np.ndarray | None = None  # transitions by number, -1 for the absorbing one; None: as they are
        if model.config.absorbing and data.ended.any():
            self.order = np.insert(np.arange(len(data)), np.flatnonzero(data.ended) + 1, -1)

    def __len__(self) -> int:
        return len(self.data if self.order is None else self.order)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """Inputs of the rows that a slice or whole numbers name, shape (rows, inputs)."""
        chosen = which if isinstance(which, slice) else which.numpy()
        if self.order is None:
            return self.model.inputs(self.data.rows(chosen))
        order = self.order[chosen]
        found = self.model.inputs(self.data.rows(order))
        found[torch.from_numpy(order < 0).to(found.device)] = self.model.absorbing_input()
        return found
