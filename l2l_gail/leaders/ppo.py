"""Stable-Baselines3's PPO as the leader; its update may be compiled (see `compiled`).

A callback waits for the end of each rollout, has the follower answer it, writes the learned rewards into PPO's buffer
and has the advantages computed again. The true reward is only monitored."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn
from torch.distributions import Normal

from l2l_experiment.errors import UserError
from l2l_gail import environment_state
from l2l_gail.config import GAILConfig
from l2l_gail.leaders.base import Game, as_callbacks, policy_name, raise_on_divergence, require_finite
from l2l_gail.leaders.compiled import CompiledPPO, restore_compiled
from l2l_gail.rewards import ReturnScale
from l2l_gail.spaces import Actions
from l2l_gail.transitions import Transitions
from l2l_gail.vectorised import actions_of_envs


class PPOLeader:
    """Owns a PPO whose environments are those that `Environment.vectorised` makes.

    With `normalize_reward` the learned reward is divided by the running deviation of its discounted return."""

    algorithm: PPO

    def __init__(self, algorithm: PPO, *, normalize_reward: bool = True) -> None:
        envs = algorithm.get_env()
        if not isinstance(envs, VecNormalize) or envs.norm_reward:
            raise UserError("a leader needs a VecNormalize without norm_reward; see Environment.vectorised")
        self.algorithm, self.envs = algorithm, envs
        self.actions = actions_of_envs(envs)
        self.scale = ReturnScale(envs.num_envs, algorithm.gamma) if normalize_reward else None
        self.round_size = algorithm.n_steps * envs.num_envs
        self.returns: list[float] = []

    @classmethod
    def make(
        cls, envs: VecNormalize, config: GAILConfig, device: torch.device, *, policy_kwargs: dict | None = None
    ) -> "PPOLeader":
        """The leader that a configuration describes; `policy_kwargs` over those that follow from it."""
        algorithm = make_ppo(config, envs, device, policy_kwargs=policy_kwargs)
        algorithm.set_logger(Logger(None, []))  # silent until the user sets another
        return cls(algorithm, normalize_reward=config.normalize_reward)

    def prepare(self, total_timesteps: int) -> None:
        if isinstance(self.algorithm, CompiledPPO):
            self.algorithm.prepare(total_timesteps)

    def learn(self, total_timesteps: int, game: Game, *, callback: MaybeCallback, **kwargs: bool) -> None:
        with raise_on_divergence(self.algorithm.policy):
            self.algorithm.learn(total_timesteps, [_Relabel(self, game), *as_callbacks(callback)], **kwargs)

    def rollout(self) -> Transitions:
        envs, ppo, recorder = self.envs, self.algorithm, _Recorder(self)
        for _ in range(ppo.n_steps):
            action, _ = ppo.predict(ppo._last_obs, deterministic=False)
            recorder.actions.append(self.actions.to_env(action))
            ppo._last_obs, _, dones, infos = envs.step(action)
            recorder.step(dones, infos)
        return recorder.transitions()

    def log_prob(self, transitions: Transitions) -> np.ndarray:
        return log_prob(self.algorithm.policy, self.envs, self.actions, transitions)

    def state_dict(self) -> dict[str, Any]:
        ppo, last = self.algorithm, None
        if ppo._last_obs is not None:
            last = {"observations": ppo._last_obs, "starts": ppo._last_episode_starts, "raw": self.envs.old_obs}
        return {
            "policy": ppo.policy.state_dict(),
            "optimizer": ppo.policy.optimizer.state_dict(),
            "scale": None if self.scale is None else self.scale.state_dict(),
            "environments": environment_state.state_dict(self.envs),
            "last": last,
            "num_timesteps": ppo.num_timesteps,
            "compiled": getattr(ppo, "compiled", None),
            "n_updates": ppo._n_updates,
            "episodes": [dict(episode) for episode in ppo.ep_info_buffer or ()],
            # Figures of the last update, which PPO logs only after the next rollout.
            "pending": {key: float(value) for key, value in self._figures().items()},
        }

    def _figures(self) -> dict[str, Any]:
        logger = getattr(self.algorithm, "_logger", None)  # none before a PPO of the user's own has learned
        return {} if logger is None else logger.name_to_value

    def load_state_dict(self, tree: dict[str, Any]) -> bool:
        ppo = self.algorithm
        ppo.policy.load_state_dict(tree["policy"])
        ppo.policy.optimizer.load_state_dict(tree["optimizer"])
        restore_compiled(ppo, tree)
        if self.scale is not None:
            self.scale.load_state_dict(tree["scale"])
        exact = environment_state.load_state_dict(self.envs, tree["environments"])
        ppo.num_timesteps, ppo._n_updates = tree["num_timesteps"], tree["n_updates"]
        ppo.ep_info_buffer = deque(tree["episodes"], maxlen=ppo._stats_window_size)
        ppo.ep_success_buffer = deque(maxlen=ppo._stats_window_size)
        if (last := tree["last"]) is not None and exact:
            self.envs.old_obs = last["raw"]
            ppo._last_obs, ppo._last_episode_starts = last["observations"], last["starts"]
        elif last is not None:
            ppo._last_obs, ppo._last_episode_starts = self.envs.reset(), np.ones(self.envs.num_envs, dtype=bool)
        if (logger := getattr(ppo, "_logger", None)) is not None:
            for key, value in tree["pending"].items():  # n_updates is not for TensorBoard, as PPO has it
                logger.record(key, value, exclude="tensorboard" if key == "train/n_updates" else None)
        return exact


class _Recorder:
    """Keeps a round's steps as the environments gave them."""

    def __init__(self, leader: PPOLeader) -> None:
        self.envs = leader.envs
        self.observations = [self.envs.get_original_obs()]
        self.actions: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []
        self.returns: list[float] = []
        self.last: dict[tuple[int, int], np.ndarray] = {}  # an episode's last observation, by step and environment
        self.truncated: dict[tuple[int, int], np.ndarray] = {}  # those that a time limit cut off, standardised

    def step(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Take in a step of all environments."""
        self.observations.append(self.envs.get_original_obs())
        self.dones.append(dones)
        for index in np.flatnonzero(dones):
            at, info = (len(self.dones) - 1, int(index)), infos[index]
            self.returns += [float(info["episode"]["r"])] if "episode" in info else []
            if info.get("last_observation") is not None:
                self.last[at] = info["last_observation"]
                if info.get("TimeLimit.truncated", False):
                    self.truncated[at] = info["terminal_observation"]

    def transitions(self, actions: np.ndarray | None = None) -> Transitions:
        """The round's transitions, ordered by step; `actions`, shape (steps, n_envs, …), replace the recorded ones."""
        observations = np.array(self.observations)
        following, ended = observations[1:].copy(), np.array(self.dones)
        for at, last in self.last.items():
            following[at] = last
        for at in self.truncated:
            ended[at] = False
        parts = (observations[:-1], np.array(self.actions) if actions is None else actions, following, ended)
        return Transitions(*(part.reshape(-1, *part.shape[2:]) for part in parts))


class _Relabel(BaseCallback):
    """At the end of each rollout: the follower answers, then the rollout's rewards are replaced by the learned ones."""

    def __init__(self, leader: PPOLeader, game: Game) -> None:
        super().__init__()
        self.leader, self.game = leader, game

    def _on_rollout_start(self) -> None:
        require_finite(self.model.policy)  # before anything is saved
        self.game.between_rounds()
        self.recorder = _Recorder(self.leader)

    def _on_step(self) -> bool:
        self.recorder.step(self.locals["dones"], self.locals["infos"])
        return True

    def _on_rollout_end(self) -> None:
        ppo, buffer, recorder = self.model, self.model.rollout_buffer, self.recorder
        self.leader.returns = recorder.returns
        # The environment clips what the policy samples, and demonstrations hold what the environment saw.
        transitions = recorder.transitions(self.leader.actions.to_env(buffer.actions))
        self.game.answer(transitions, min(1.0, ppo.num_timesteps / ppo._total_timesteps))  # the last round may exceed 1
        dones, scale = np.array(recorder.dones), self.leader.scale
        rewards = self.game.reward(transitions).reshape(dones.shape)  # (steps, n_envs)
        rewards = rewards if scale is None else scale(rewards, dones)
        buffer.rewards[:] = rewards
        self.logger.record("train_reward/scaled_mean", float(rewards.mean()))
        if recorder.truncated:  # gamma·V(last observation), which PPO had added to the rewards that are now replaced
            with torch.no_grad():
                last, _ = ppo.policy.obs_to_tensor(np.array([*recorder.truncated.values()]))
                values = ppo.policy.predict_values(last).cpu().numpy().ravel()
            buffer.rewards[tuple(np.transpose([*recorder.truncated]))] += ppo.gamma * values
        buffer.compute_returns_and_advantage(last_values=self.locals["values"], dones=self.locals["dones"])


@torch.no_grad()
def log_prob(policy: ActorCriticPolicy, envs: VecNormalize, actions: Actions, data: Transitions) -> np.ndarray:
    """log π(a|s) of transitions by a policy with a value function, shape (n,); of actions as they were executed."""
    seen, _ = policy.obs_to_tensor(envs.normalize_obs(data.observations))
    taken = torch.as_tensor(actions.to_policy(data.actions), dtype=torch.float32, device=policy.device)
    found = policy.get_distribution(seen).distribution
    if isinstance(found, Normal):
        space = actions.policy_space
        low, high = (torch.as_tensor(bound, device=policy.device) for bound in (space.low, space.high))
        return clipped_log_prob(found, taken, low, high).sum(1).cpu().numpy()
    return policy.evaluate_actions(seen, taken)[1].cpu().numpy()


def clipped_log_prob(normal: Normal, taken: Tensor, low: Tensor, high: Tensor, *, share: float = 0.01) -> Tensor:
    """Log-density of a normal variable that is clipped to [low, high], each component by itself.

    Clipping heaps probability on the bounds, where the normal density says next to nothing of it: a policy could make
    an action look unlikely by aiming far beyond the bound, and AIRL's −log π would reward that. So the outermost
    `share` of the range, at either end, has the mean density of what is clipped to it."""
    edge = share * (high - low)
    below, above = (low + edge - normal.mean) / normal.stddev, (normal.mean - (high - edge)) / normal.stddev
    found = normal.log_prob(taken)
    found = torch.where(taken < low + edge, torch.special.log_ndtr(below) - edge.log(), found)
    return torch.where(taken > high - edge, torch.special.log_ndtr(above) - edge.log(), found)


def make_ppo(
    config: GAILConfig, envs: VecNormalize, device: torch.device, *, policy_kwargs: dict | None = None
) -> CompiledPPO:
    """Stable-Baselines3's PPO with the configuration's settings; also the plain PPO of the benchmark."""
    names = ("seed", "n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "clip_range", "ent_coef", "target_kl")
    given = algorithm_kwargs(config, names)
    given["policy_kwargs"] |= policy_kwargs or {}
    return CompiledPPO(policy_name(envs.observation_space), envs, device=device, compiled=config.compile, **given)


def algorithm_kwargs(
    settings: Any, names: Sequence[str], activation: type[nn.Module] = nn.Tanh, *, decay: bool = True
) -> dict[str, Any]:
    """Arguments of an SB3 algorithm: the named settings, networks, learning rate (linear to 0 with `decay`)."""
    layers, rate = list(settings.net_arch), settings.learning_rate
    policy = {"net_arch": {"pi": layers, "vf": layers}, "activation_fn": activation}
    return {name: getattr(settings, name) for name in names} | {
        "learning_rate": LinearSchedule(rate, 0.0, 1.0) if decay else rate,
        "policy_kwargs": policy | {"log_std_init": settings.log_std_init},
    }
