"""Stable-Baselines3's PPO and SAC with their updates as compiled functions.

The compiled updates compute the same losses, random draws, schedules and logged figures as Stable-Baselines3, up to
rounding. For settings that they do not support, Stable-Baselines3's own code runs."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import explained_variance
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from l2l_experiment.compiled import Compiled
from l2l_gail.leaders.critics import saved_with_policies
from l2l_gail.spaces import is_image

PPO_FIGURES = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss")
SAC_FIGURES = ("ent_coef", "actor_loss", "critic_loss", "ent_coef_loss")


class CompiledPPO(PPO):
    """PPO that compiles the forward pass of its rollouts and its minibatch update while `compiled` is True."""

    min_updates_to_compile = 20_000  # with fewer updates, compiling takes longer than it saves

    def __init__(self, *args: Any, compiled: bool | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compiled = compiled
        self._forward, self._update = Compiled(self._policy_forward), Compiled(self._minibatch_update)
        self._cpu_policy: ActorCriticPolicy | None = None  # the policy's copy on the CPU, where rollouts ask one

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Self:
        self.prepare(total_timesteps)
        return super().learn(total_timesteps, *args, **kwargs)

    def prepare(self, total_timesteps: int) -> None:
        """If `compiled` is None, set it: True where the number of updates makes compiling worthwhile."""
        if self.compiled is None:
            size = self.n_envs * self.n_steps
            updates = -(-total_timesteps // size) * self.n_epochs * -(-size // self.batch_size)
            self.compiled = _worth_compiling(self, updates)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "compiled", "_forward", "_update", "_cpu_policy"]

    def _supports_compilation(self) -> bool:
        """Whether the compiled update implements everything that the settings ask for."""
        more = self.target_kl is not None or self.clip_range_vf is not None or self.use_sde
        return not more and _is_adam(self.policy.optimizer)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        compiled, on_cpu = self.compiled and self._supports_compilation(), self._rollouts_on_cpu()
        if not (compiled or on_cpu):
            return super().collect_rollouts(*args, **kwargs)
        policy, device = self.policy, self.device
        if on_cpu:
            self._cpu_policy = self._cpu_policy or _without_optimizer(policy).to("cpu")
            self._cpu_policy.load_state_dict(policy.state_dict())
            self._cpu_policy.set_training_mode(False)
            self.device = self._cpu_policy.device
            policy.predict_values = lambda seen: self._cpu_policy.predict_values(seen.to(self._cpu_policy.device))
        actor = self._cpu_policy or policy
        weights = _weights(actor)
        call = self._forward if compiled else self._policy_forward
        policy.forward = lambda seen: call(weights, [seen])
        try:  # for the time of the rollout
            return super().collect_rollouts(*args, **kwargs)
        finally:
            self.device = device
            del policy.forward
            vars(policy).pop("predict_values", None)

    def _rollouts_on_cpu(self) -> bool:
        """Whether rollouts use a copy of the policy on the CPU: with few observations, GPU overhead dominates."""
        return self.device.type != "cpu" and not (self.use_sde or is_image(self.observation_space))

    def _policy_forward(self, weights: Sequence[Tensor], data: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The policy's forward pass with these weights: actions, values and log probabilities."""
        with torch.no_grad():
            return _call_method(self._cpu_policy or self.policy, "forward", weights, data)

    def train(self) -> None:
        if not (self.compiled and self._supports_compilation()):
            return super().train()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip_range = self.clip_range(self._current_progress_remaining)
        adam, rows = _Adam(self.policy.optimizer), []
        for _ in range(self.n_epochs):
            rows.append([])
            for data in self.rollout_buffer.get(self.batch_size):
                columns = (data.observations, data.actions, data.old_log_prob, data.advantages, data.returns)
                # Numbers that a callback may change while it trains.
                settings = [clip_range, self.ent_coef, self.vf_coef, self.max_grad_norm]
                scalars = torch.tensor([*settings, *adam.next_corrections()], device=self.device)
                rows[-1].append(self._update(adam.tensors, [*columns, scalars]))
            self._n_updates += 1
        adam.write_step()
        self._log([torch.stack(row).cpu().numpy() for row in rows], clip_range)

    def _minibatch_update(self, state: Sequence[Tensor], data: Sequence[Tensor]) -> Tensor:
        """One minibatch update, in place on `state` (weights and Adam's moments); returns `PPO_FIGURES`' values."""
        observations, actions, old_log_prob, advantages, returns, scalars = data
        clip_range, ent_coef, vf_coef, max_grad_norm, *rates = scalars
        params = [weight.detach().requires_grad_() for weight in state[: len(state) // 3]]
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        values, log_prob, entropy = _call_method(self.policy, "evaluate_actions", params, (observations, actions))
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - old_log_prob
        ratio = torch.exp(log_ratio)
        policy_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(1 - clip_range, 1 + clip_range)).mean()
        value_loss = F.mse_loss(returns, values.flatten())
        entropy_loss = (log_prob if entropy is None else -entropy).mean()
        loss = policy_loss + ent_coef * entropy_loss + vf_coef * value_loss
        gradients = torch.autograd.grad(loss, params, materialize_grads=True)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        scale = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        _adam_step(state, [gradient * scale for gradient in gradients], rates, self.policy.optimizer)
        kl = (ratio - 1 - log_ratio).mean()
        clipped = ((ratio - 1).abs() > clip_range).float().mean()
        return torch.stack([policy_loss, value_loss, entropy_loss, kl, clipped, loss]).detach()

    def _log(self, rows: list[np.ndarray], clip_range: float) -> None:
        figures = dict(zip(PPO_FIGURES, np.concatenate(rows).mean(0), strict=True))
        figures["approx_kl"] = rows[-1].mean(0)[PPO_FIGURES.index("approx_kl")]  # as PPO has it: of the last pass
        figures["loss"] = rows[-1][-1, PPO_FIGURES.index("loss")]  # of the last minibatch
        values, returns = self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten()
        figures |= {"explained_variance": explained_variance(values, returns), "clip_range": clip_range}
        if hasattr(self.policy, "log_std"):
            figures["std"] = self.policy.log_std.detach().exp().mean()
        for name, value in figures.items():
            self.logger.record(f"train/{name}", float(value))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")


class CompiledSAC(SAC):
    """SAC that compiles its update, of entropy coefficient, critics, actor and targets, while `compiled` is True."""

    min_updates_to_compile = 5_000

    def __init__(self, *args: Any, compiled: bool | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compiled, self._update = compiled, Compiled(self._minibatch_update)

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Self:
        self.prepare(total_timesteps)
        return super().learn(total_timesteps, *args, **kwargs)

    def prepare(self, total_timesteps: int) -> None:
        """If `compiled` is None, set it: True where the number of updates makes compiling worthwhile."""
        if self.compiled is None:
            updates_per_step = 1 if self.gradient_steps < 0 else self.gradient_steps / self.n_envs
            self.compiled = _worth_compiling(self, total_timesteps * updates_per_step)

    def _excluded_save_params(self) -> list[str]:
        # Without the class of its memory, which is this package's, what is saved opens in plain Stable-Baselines3.
        return [*super()._excluded_save_params(), "compiled", "_update", "replay_buffer_class"]

    def save(self, *args: Any, **kwargs: Any) -> None:
        with saved_with_policies():
            super().save(*args, **kwargs)

    def _supports_compilation(self) -> bool:
        """Whether the compiled update implements everything that the settings ask for."""
        more = self.use_sde or self.target_update_interval != 1 or self.batch_norm_stats or self.n_steps != 1
        return not more and self.ent_coef_optimizer is not None and all(map(_is_adam, self._optimizers()))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.ent_coef_optimizer, self.critic.optimizer, self.actor.optimizer]

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if not (self.compiled and self._supports_compilation()):
            return super().train(gradient_steps, batch_size)
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers())
        adams, rows = [_Adam(optimizer) for optimizer in self._optimizers()], []
        state = [tensor for adam in adams for tensor in adam.tensors] + _weights(self.critic_target)
        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            columns = (data.observations, data.actions, data.next_observations, data.dones, data.rewards)
            scalars = torch.tensor([rate for adam in adams for rate in adam.next_corrections()], device=self.device)
            rows.append(self._update(state, [*columns, scalars]))
        for adam in adams:
            adam.write_step()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, value in zip(SAC_FIGURES, torch.stack(rows).mean(0).tolist(), strict=True):
            self.logger.record(f"train/{name}", value)

    def _minibatch_update(self, state: Sequence[Tensor], data: Sequence[Tensor]) -> Tensor:
        """One minibatch update, in place on `state` (three optimisers, target); returns `SAC_FIGURES`' values."""
        observations, actions, next_obs, dones, rewards, rates = data
        counts = [3 * len(optimizer.param_groups[0]["params"]) for optimizer in self._optimizers()]
        *parts, target = _split(state, counts)
        ent_coef_params, critic_params, actor_params = (
            [w.detach().requires_grad_() for w in part[: len(part) // 3]] for part in parts
        )
        optimizers = self._optimizers()

        policy_actions, log_prob = _call_method(self.actor, "action_log_prob", actor_params, (observations,))
        log_prob = log_prob.reshape(-1, 1)
        ent_coef = ent_coef_params[0].detach().exp()
        ent_coef_loss = -(ent_coef_params[0] * (log_prob + self.target_entropy).detach()).mean()
        _adam_step(parts[0], torch.autograd.grad(ent_coef_loss, ent_coef_params), rates[:2], optimizers[0])

        with torch.no_grad():
            next_actions, next_log_prob = _call_method(self.actor, "action_log_prob", actor_params, (next_obs,))
            next_q_values = torch.cat(
                _call_method(self.critic_target, "forward", target, (next_obs, next_actions)), dim=1
            )
            next_values = next_q_values.min(dim=1, keepdim=True).values - ent_coef * next_log_prob.reshape(-1, 1)
            target_q_values = rewards + (1 - dones) * self.gamma * next_values
        current_q_values = _call_method(self.critic, "forward", critic_params, (observations, actions))
        critic_loss = 0.5 * sum(F.mse_loss(estimate, target_q_values) for estimate in current_q_values)
        _adam_step(parts[1], torch.autograd.grad(critic_loss, critic_params), rates[2:4], optimizers[1])

        new_params = parts[1][: len(critic_params)]
        q_values = torch.cat(_call_method(self.critic, "forward", new_params, (observations, policy_actions)), dim=1)
        actor_loss = (ent_coef * log_prob - q_values.min(dim=1, keepdim=True).values).mean()
        _adam_step(parts[2], torch.autograd.grad(actor_loss, actor_params), rates[4:], optimizers[2])
        for weight, of_target in zip(new_params, target, strict=True):
            of_target.mul_(1 - self.tau).add_(weight, alpha=self.tau)
        return torch.stack([ent_coef.squeeze(), actor_loss, critic_loss, ent_coef_loss]).detach()


def _worth_compiling(algorithm: CompiledPPO | CompiledSAC, updates: float) -> bool:
    on_cpu = algorithm.device.type == "cpu"  # on a GPU it was not measured
    return on_cpu and updates >= algorithm.min_updates_to_compile and algorithm._supports_compilation()


def restore_compiled(algorithm: BaseAlgorithm, tree: dict[str, Any]) -> None:
    """Compile, or not, as the run did whose checkpoint is loaded."""
    if hasattr(algorithm, "compiled"):
        algorithm.compiled = tree.get("compiled", False)


class _Adam:
    """The parameters and moments of a `torch.optim.Adam` as one list of tensors, for a compiled update."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.group = optimizer.param_groups[0]
        weights = self.group["params"]
        for weight in weights:
            if not optimizer.state[weight]:  # before its first step
                fresh = {name: torch.zeros_like(weight.detach()) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[weight] = {"step": torch.zeros(())} | fresh
        self.memory = [optimizer.state[weight] for weight in weights]
        self.count = float(self.memory[0]["step"])
        averages = [each[name] for name in ("exp_avg", "exp_avg_sq") for each in self.memory]
        self.tensors = [*(weight.detach() for weight in weights), *averages]

    def next_corrections(self) -> list[float]:
        """The next step's bias corrections as scalars: lr/(1 − β₁ᵗ) and √(1 − β₂ᵗ)."""
        self.count += 1
        mean, square = (1 - beta**self.count for beta in self.group["betas"])
        return [self.group["lr"] / mean, square**0.5]

    def write_step(self) -> None:
        """Write the step count back into the optimiser's state."""
        for each in self.memory:
            each["step"].fill_(self.count)


def _adam_step(
    state: Sequence[Tensor], gradients: Iterable[Tensor], rates: Iterable[Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Adam's step, in place on `state` (`_Adam.tensors`); `rates` are those of `_Adam.next_corrections`."""
    (rate, root), (mean_beta, square_beta) = rates, optimizer.defaults["betas"]
    for weight, mean, square, gradient in zip(*_split(state, [len(state) // 3] * 2), gradients, strict=True):
        mean.lerp_(gradient, 1 - mean_beta)
        square.mul_(square_beta).addcmul_(gradient, gradient, value=1 - square_beta)
        weight.sub_(rate * mean / (square.sqrt() / root + optimizer.defaults["eps"]))


def _split(tensors: Sequence[Tensor], counts: Sequence[int]) -> list[Sequence[Tensor]]:
    """Consecutive slices of these lengths, and the remainder."""
    ends = np.cumsum([0, *counts]).tolist()
    return [tensors[start:end] for start, end in zip(ends, [*ends[1:], None], strict=True)]


def _is_adam(optimizer: torch.optim.Optimizer) -> bool:
    usual = {"weight_decay": 0, "amsgrad": False, "maximize": False}
    one = type(optimizer) is torch.optim.Adam and len(optimizer.param_groups) == 1
    return one and all(optimizer.defaults[name] == value for name, value in usual.items())


def _without_optimizer(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """A copy of a policy without its optimiser, for inference."""
    optimizer, policy.optimizer = policy.optimizer, None
    try:
        return deepcopy(policy)
    finally:
        policy.optimizer = optimizer


def _weights(module: nn.Module) -> list[Tensor]:
    return [weight.detach() for weight in module.parameters()]


def _call_method(module: nn.Module, method: str, weights: Sequence[Tensor], data: Sequence[Tensor]) -> Any:
    """Call a method of a module with these weights in place of its own; `functional_call` knows only `forward`."""
    caller = _MethodModule(module, method)
    named = {name: weight for (name, _), weight in zip(caller.named_parameters(), weights, strict=True)}
    return functional_call(caller, named, tuple(data))


class _MethodModule(nn.Module):
    """Wraps a module so that `forward` calls the method `name` of its class, not of the instance."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, *data: Tensor) -> Any:
        return getattr(type(self.module), self.name)(self.module, *data)
