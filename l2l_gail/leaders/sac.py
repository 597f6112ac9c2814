"""Stable-Baselines3's SAC as the leader: adversarial imitation from a replay memory, as Kostrikov et al. (2019) do it
with TD3. Its update may be compiled (see `compiled`).

The memory keeps transitions without learned rewards; each minibatch is scored by the discriminator as it is when SAC
samples it. After every round of environment steps the follower answers a sample of the memory's transitions."""

from collections import deque
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from l2l_experiment.errors import UserError
from l2l_gail import environment_state
from l2l_gail.config import GAILConfig
from l2l_gail.leaders import critics
from l2l_gail.leaders.base import Game, as_callbacks, policy_name, raise_on_divergence, require_finite
from l2l_gail.leaders.compiled import CompiledSAC, restore_compiled
from l2l_gail.transitions import Transitions
from l2l_gail.vectorised import actions_of_envs

SETTINGS = ("seed", "batch_size", "gamma", "learning_rate", "buffer_size", "learning_starts", "gradient_steps", "tau")
STATS_WINDOW = 10  # episodes in `ep_rew_mean`: Stable-Baselines3's 100 may be more than a run has
PARTS = ("observations", "next_observations", "actions", "dones", "timeouts")


class ScoredReplay(ReplayBuffer):
    """A replay buffer that scores each sample with the current discriminator, through `game`, set by `learn`."""

    game: Game | None = None
    leader: "SACLeader"

    def __getstate__(self) -> dict[str, Any]:
        """What Stable-Baselines3 pickles: the transitions, without `game` and `leader`."""
        return {name: value for name, value in vars(self).items() if name not in ("game", "leader")}

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        for index in np.flatnonzero(done):
            if (last := infos[index].get("last_observation")) is not None:
                next_obs[index] = last  # raw: Stable-Baselines3's went through VecNormalize and back, clipped
        super().add(obs, next_obs, action, reward, done, infos)

    def sample_transitions(self, count: int) -> Transitions:
        """Different transitions of the memory, drawn uniformly: `count`, or all if there are fewer."""
        whole = self.size() * self.n_envs
        rows = np.random.choice(whole, min(count, whole), replace=False)  # noqa: NPY002  as _randint
        return self._transitions(np.divmod(rows, self.n_envs))

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        rows = batch_inds, _randint(self.n_envs, len(batch_inds))
        data = self._transitions(rows)
        seen, following = (self._normalize_obs(part, env) for part in (data.observations, data.next_observations))
        columns = (self.actions[rows], following, data.ended[:, None].astype(np.float32))
        rewards = self.game.score(data).astype(np.float32)[:, None]
        return ReplayBufferSamples(*map(self.to_torch, (seen, *columns, rewards)))

    def _transitions(self, rows: tuple[np.ndarray, np.ndarray]) -> Transitions:
        ended = (self.dones[rows] > 0) & (self.timeouts[rows] == 0)
        done = self.leader.to_env(self.actions[rows])
        return Transitions(self.observations[rows], done, self.next_observations[rows], ended)


class SACLeader:
    """Owns a SAC whose environments `Environment.vectorised` makes and whose memory is a `ScoredReplay`.

    `round_size`: environment steps between two answers of the follower, each on `disc_sample_size` transitions drawn
    from the replay buffer."""

    def __init__(self, algorithm: SAC, *, round_size: int, disc_sample_size: int = 10_000) -> None:
        envs, memory = algorithm.get_env(), algorithm.replay_buffer
        if not isinstance(envs, VecNormalize) or envs.norm_reward:
            raise UserError("a leader needs a VecNormalize without norm_reward; see Environment.vectorised")
        if not isinstance(memory, ScoredReplay):
            raise UserError("a SACLeader needs replay_buffer_class=ScoredReplay")
        if round_size % envs.num_envs:
            raise UserError(f"a round of {round_size} steps is no multiple of {envs.num_envs} environments")
        self.algorithm, self.envs, self.memory = algorithm, envs, memory
        self.actions = actions_of_envs(envs)
        self.round_size, self.disc_sample_size = round_size, disc_sample_size
        self.last_answer = 0  # step of the follower's last answer
        self.returns: list[float] = []
        memory.leader = self

    @classmethod
    def make(
        cls, envs: VecNormalize, config: GAILConfig, device: torch.device, *, policy_kwargs: dict | None = None
    ) -> "SACLeader":
        """The leader that a configuration describes; `policy_kwargs` over those that follow from it."""
        algorithm = make_sac(config, envs, device, policy_kwargs=policy_kwargs, replay_buffer_class=ScoredReplay)
        algorithm.set_logger(Logger(None, []))  # silent until the user sets another
        return cls(algorithm, round_size=envs.num_envs * config.n_steps, disc_sample_size=_disc_sample_size(config))

    def to_env(self, scaled: np.ndarray) -> np.ndarray:
        """Actions of the memory, which SAC keeps in [-1, 1], as the environment executed them."""
        return self.actions.to_env(self.algorithm.policy.unscale_action(scaled))

    def prepare(self, total_timesteps: int) -> None:
        if isinstance(self.algorithm, CompiledSAC):
            self.algorithm.prepare(total_timesteps)

    def learn(self, total_timesteps: int, game: Game, *, callback: MaybeCallback, **kwargs: bool) -> None:
        sac, rounds = self.algorithm, _Rounds(self, game)
        steps = -(-total_timesteps // self.round_size) * self.round_size
        self.memory.game = game
        if kwargs.get("reset_num_timesteps", True):
            self.last_answer = 0
        with raise_on_divergence(sac.policy):
            sac.learn(steps, [rounds, *as_callbacks(callback)], log_interval=None, **kwargs)
        rounds.end_round()

    @torch.no_grad()
    def log_prob(self, transitions: Transitions) -> np.ndarray:
        actor = self.algorithm.actor
        seen, _ = self.algorithm.policy.obs_to_tensor(self.envs.normalize_obs(transitions.observations))
        mean, log_std, _ = actor.get_action_dist_params(seen)
        scaled = self.algorithm.policy.scale_action(self.actions.to_policy(transitions.actions))
        taken = torch.as_tensor(scaled, dtype=torch.float32, device=mean.device)
        return actor.action_dist.proba_distribution(mean, log_std).log_prob(taken).cpu().numpy()

    def rollout(self) -> Transitions:
        sac, parts = self.algorithm, []
        for _ in range(self.round_size // self.envs.num_envs):
            before = self.envs.get_original_obs()
            action, _ = sac.predict(sac._last_obs, deterministic=False)
            sac._last_obs, _, dones, infos = self.envs.step(action)
            after = self.envs.get_original_obs().copy()
            for index in np.flatnonzero(dones):
                after[index] = infos[index]["last_observation"]
            cut = np.array([info.get("TimeLimit.truncated", False) for info in infos])
            parts.append((before, self.actions.to_env(action), after, dones & ~cut))
        return Transitions(*map(np.concatenate, zip(*parts, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        sac, memory, last = self.algorithm, self.memory, None
        if sac._last_obs is not None:
            last = {"observations": sac._last_obs, "starts": sac._last_episode_starts, "raw": sac._last_original_obs}
        kept = slice(0, memory.size())
        return {
            "policy": sac.policy.state_dict(),
            "optimizers": [one.state_dict() for one in self._optimizers()],
            "log_ent_coef": None if sac.ent_coef_optimizer is None else sac.log_ent_coef.detach(),
            "memory": {name: getattr(memory, name)[kept] for name in PARTS} | {"pos": memory.pos, "full": memory.full},
            "environments": environment_state.state_dict(self.envs),
            "random_actions": sac.action_space.np_random.bit_generator.state,  # from which SAC draws its first actions
            "last": last,
            "num_timesteps": sac.num_timesteps,
            "compiled": getattr(sac, "compiled", None),
            "n_updates": sac._n_updates,
            "episode_num": sac._episode_num,
            "last_answer": self.last_answer,
            "episodes": [dict(episode) for episode in sac.ep_info_buffer or ()],
        }

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        sac = self.algorithm
        of_entropy = [] if sac.ent_coef_optimizer is None else [sac.ent_coef_optimizer]  # none for a fixed ent_coef
        return [sac.actor.optimizer, sac.critic.optimizer, *of_entropy]

    def load_state_dict(self, tree: dict[str, Any]) -> bool:
        sac, memory = self.algorithm, self.memory
        sac.policy.load_state_dict(tree["policy"])
        for optimizer, state in zip(self._optimizers(), tree["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        restore_compiled(sac, tree)
        if tree["log_ent_coef"] is not None:
            sac.log_ent_coef.data.copy_(tree["log_ent_coef"])
        for name in PARTS:
            part = tree["memory"][name]
            getattr(memory, name)[: len(part)] = part
        memory.pos, memory.full = tree["memory"]["pos"], tree["memory"]["full"]
        exact = environment_state.load_state_dict(self.envs, tree["environments"])
        sac.action_space.np_random.bit_generator.state = tree["random_actions"]
        sac.num_timesteps, sac._n_updates = tree["num_timesteps"], tree["n_updates"]
        sac._episode_num, self.last_answer = tree["episode_num"], tree["last_answer"]
        sac.ep_info_buffer = deque(tree["episodes"], maxlen=sac._stats_window_size)
        sac.ep_success_buffer = deque(maxlen=sac._stats_window_size)
        if (last := tree["last"]) is not None and exact:
            self.envs.old_obs = sac._last_original_obs = last["raw"]
            sac._last_obs, sac._last_episode_starts = last["observations"], last["starts"]
        elif last is not None:
            sac._last_obs, sac._last_episode_starts = self.envs.reset(), np.ones(self.envs.num_envs, dtype=bool)
            sac._last_original_obs = self.envs.get_original_obs()
        return exact


class _Rounds(BaseCallback):
    """At the end of each round the follower answers; then the state is consistent and can be saved."""

    def __init__(self, leader: SACLeader, game: Game) -> None:
        super().__init__()
        self.leader, self.game, self.returns = leader, game, []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.returns += [float(info["episode"]["r"]) for info in infos if "episode" in info]
        return True

    def _on_rollout_start(self) -> None:
        sac, leader = self.model, self.leader
        since = sac.num_timesteps - leader.last_answer
        if since == 0 or since >= leader.round_size:
            self.end_round()
            self.game.between_rounds()

    def end_round(self) -> None:
        """Have the follower answer, unless it has already, as in a run that is resumed."""
        sac, leader = self.model, self.leader
        require_finite(sac.policy)  # before anything is saved
        if sac.num_timesteps == leader.last_answer or not leader.memory.size():
            return
        leader.returns, self.returns = self.returns, []
        leader.last_answer = sac.num_timesteps
        sample = leader.memory.sample_transitions(leader.disc_sample_size)
        self.game.answer(sample, min(1.0, sac.num_timesteps / sac._total_timesteps))
        self.game.reward(sample)
        sac.dump_logs()


def make_sac(
    config: GAILConfig, envs: VecNormalize, device: torch.device, *, policy_kwargs: dict | None = None, **kwargs: Any
) -> CompiledSAC:
    """Stable-Baselines3's SAC with a configuration's settings; `kwargs` are arguments of its own over them."""
    if not isinstance(envs.action_space, spaces.Box):
        raise UserError(f"--leader sac needs continuous actions, not {envs.action_space}; use --leader ppo")
    given = {name: getattr(config, name) for name in SETTINGS}
    networks = {"net_arch": list(config.net_arch)} | (policy_kwargs or {})
    kind = policy_name(envs.observation_space)
    policy = getattr(critics, kind) if config.critic_layer_norm else kind
    kwargs = {"train_freq": 1, "stats_window_size": STATS_WINDOW, "policy_kwargs": networks} | given | kwargs
    return CompiledSAC(policy, envs, device=device, compiled=config.compile, **kwargs)


def _disc_sample_size(config: GAILConfig) -> int:
    """Replay transitions for one answer of the follower: a quarter of what its batches draw, from 1,000 to 10,000."""
    return min(max(config.disc_updates * config.disc_batch_size // 4, 1000), 10_000)


def _randint(below: int, count: int) -> np.ndarray:
    """Whole numbers from the generator that Stable-Baselines3 draws minibatches from."""
    return np.random.randint(0, below, count)  # noqa: NPY002
