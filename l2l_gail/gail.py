"""Generative adversarial imitation learning (Ho and Ermon, 2016) with Stable-Baselines3's PPO as the leader.

PPO is not modified: a callback waits for the end of each rollout, lets the follower move the discriminator, scores the
whole rollout with it, writes the rewards and has the advantages computed again. The true reward is only monitored.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor, nn

from l2l_experiment import checkpoint
from l2l_experiment.errors import Diverged, UserError
from l2l_gail import state
from l2l_gail.config import GAILConfig, from_run
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.discriminator import Batch, Discriminator, draw, health, objective
from l2l_gail.environments import check, make_envs
from l2l_gail.filters import MixtureFilter
from l2l_gail.followers import make_follower
from l2l_gail.rewards import ReturnScale, reward

Pairs = tuple[np.ndarray, np.ndarray]
MOST_MEASURED = 10_000  # transitions on which the discriminator is measured
DIVERGED = "the policy diverged: it holds or answers with no finite numbers; a smaller --policy-rate may help"


class GAIL:
    """Imitate demonstrations; the verbs are Stable-Baselines3's.

    `demonstrations` train the discriminator. `monitor`, if given, are other demonstrations of the same expert on which
    it is only measured (`disc/heldout_*`). See `GAILConfig` for the settings.
    """

    def __init__(
        self, config: GAILConfig, demonstrations: Demonstrations | None, *, monitor: Demonstrations | None = None
    ) -> None:
        self.config, self.scoring = config, config.scoring
        check(config.env)
        device = resolve_device(config.device)
        self.envs = make_envs(config.env, config.num_envs, config.seed)
        self.ppo = make_ppo(config, self.envs, device)
        self.ppo.set_logger(Logger(None, []))  # silent until `set_logger`
        self.device = device
        inputs = self.envs.observation_space.shape[0] + self.envs.action_space.shape[0]
        self.discriminator = Discriminator(inputs, config.disc_hidden, spectral_norm=config.spectral_norm).to(device)
        self.follower = make_follower(self.discriminator, config)
        self.scale = ReturnScale(config.num_envs, config.gamma)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.train_pairs = self.score_pairs = self.filter = None
        if demonstrations is not None:
            holdout = 0.0 if config.follower == "adam" else config.holdout
            self.train_pairs, self.score_pairs = split(demonstrations, holdout)
            self.filter = MixtureFilter(pairs(demonstrations)[0])
            if config.filter == "demonstrations":
                # A running filter remembers every fall: a robot that once lay on its back sees pitch ten times smaller.
                self.envs.training = False
                self.envs.obs_rms.mean, self.envs.obs_rms.var = self.filter.mean, self.filter.deviation**2
        self.monitor_pairs = thinned(pairs(monitor)) if monitor is not None and len(monitor) else None
        self.replay: list[Pairs] = []
        self.figures: dict[str, float] = {}

    def learn(self, steps: int, *, on_round: Callable[["GAIL"], None] | None = None) -> "GAIL":
        """Train until `steps` environment steps have been made in all (a whole number of rounds, rounded up).

        `on_round(self)` is called between rounds, when everything is consistent and can be saved; it may raise to stop.
        """
        if self.train_pairs is None:
            raise UserError("GAIL has no demonstrations to learn from; it was loaded without them, for predict() alone")
        remaining = steps - self.ppo.num_timesteps
        if remaining > 0:
            fresh = self.ppo._last_obs is None  # else the environments stand where a checkpoint left them
            try:
                self.ppo.learn(remaining, callback=_Relabel(self, on_round), reset_num_timesteps=fresh)
            except ValueError as error:
                if "of distribution" not in str(error):  # so torch says that the policy's actions are no numbers
                    raise
                raise Diverged(DIVERGED) from error
        self.require_finite()
        if on_round is not None:
            on_round(self)
        return self

    def require_finite(self) -> None:
        """Diverged if the policy's weights are no longer finite numbers."""
        if not all(weight.isfinite().all() for weight in self.ppo.policy.parameters()):
            raise Diverged(DIVERGED)

    def predict(self, observations: np.ndarray, deterministic: bool = True) -> np.ndarray:
        """Actions for raw (unfiltered) observations of shape (obs,) or (batch, obs)."""
        return self.ppo.predict(self.envs.normalize_obs(observations), deterministic=deterministic)[0]

    def save(self, folder: Path | str) -> Path:
        """Write a checkpoint, from which `load` continues, into `folder/checkpoints`; returns the checkpoint."""
        tensors, meta = state.capture(self)
        return checkpoint.save(
            folder, tensors, meta | {"config": asdict(self.config.written_out)}, self.ppo.num_timesteps
        )

    @classmethod
    def load(
        cls,
        folder: Path | str,
        demonstrations: Demonstrations | None = None,
        *,
        monitor: Demonstrations | None = None,
        device: str | None = None,
    ) -> Self:
        """The newest checkpoint that `save` wrote into a folder. Without demonstrations it can predict, not learn."""
        tensors, meta = checkpoint.latest(folder)
        config = from_run(meta["config"] | ({"device": device} if device else {}))
        gail = cls(config, demonstrations, monitor=monitor)
        gail.restore(tensors, meta)
        return gail

    def restore(self, tensors: dict, meta: dict) -> bool:
        """Continue from a checkpoint made with the same settings. False if the environments had to be reset, which
        happens where their inner state cannot be read (not MuJoCo): the run goes on, but not bit for bit."""
        return state.restore(self, tensors, meta)

    def set_logger(self, logger: Logger) -> None:
        """Where figures go: a Stable-Baselines3 logger. Figures not yet written, as after `restore`, go along."""
        for key, value in self.ppo.logger.name_to_value.items():
            logger.record(key, value)
        self.ppo.set_logger(logger)

    def transitions(self, data: Pairs) -> Tensor:
        """Raw observations and actions as the discriminator sees them, side by side, shape (n, inputs)."""
        observations = self.filter(data[0])
        return torch.as_tensor(np.concatenate([observations, data[1]], axis=1), dtype=torch.float32, device=self.device)

    def objectives(self, recent: list[Pairs]) -> tuple[Callable[[], Callable], Callable[[], Callable]]:
        """What draws a fresh objective for a follower's step, and what draws one for the score of its rule.

        `recent` are rollouts, the newest last. A rule is scored on held-out demonstrations and on the end of the
        newest rollout, which its steps do not see, as on the end of every episode.
        """
        policy = torch.cat([self.transitions(data) for data in recent])
        train, score = self.transitions(self.train_pairs), self.transitions(self.score_pairs)
        held = 0 if self.config.follower == "adam" else round(self.config.holdout * len(recent[-1][0]))
        seen, unseen = (policy[:-held], policy[-held:]) if held else (policy, policy)

        def fresh(expert: Tensor, imitator: Tensor, config: GAILConfig) -> Callable:
            sample: Batch = draw(expert, imitator, config.disc_batch, self.generator)
            return objective(self.discriminator, sample, config)

        return lambda: fresh(train, seen, self.config), lambda: fresh(score, unseen, self.scoring)

    def respond(self, rollout: Pairs, progress: float) -> dict[str, float]:
        """One answer of the follower to a rollout; returns the figures for the log."""
        self.filter.update(rollout[0])
        recent = [*self.replay, rollout]
        self.replay = recent[len(recent) - self.config.replay_rounds :]
        self.discriminator.refresh()
        train, fresh = self.transitions(self.train_pairs), self.transitions(rollout)
        seldom = train[:: -(-len(train) // MOST_MEASURED)]
        figures = {f"disc/{key}": value for key, value in health(self.discriminator, seldom, fresh).items()}
        if self.monitor_pairs is not None:
            other = health(self.discriminator, self.transitions(self.monitor_pairs), fresh)
            figures |= {"disc/heldout_loss": other["disc_loss"], "disc/heldout_acc": other["disc_acc_expert"]}
        answer = self.follower.respond(*self.objectives(recent), progress)
        return figures | {f"follower/{key}": value for key, value in answer.items()}


class _Relabel(BaseCallback):
    """At the end of each rollout: move the discriminator, then pay the rollout by it."""

    def __init__(self, gail: GAIL, on_round: Callable[[GAIL], None] | None) -> None:
        super().__init__()
        self.gail, self.on_round = gail, on_round

    def _on_rollout_start(self) -> None:
        self.gail.require_finite()  # before anything is saved
        if self.on_round is not None:
            self.on_round(self.gail)
        self.raw = [self.gail.envs.get_original_obs()]
        self.ends: list[np.ndarray] = []
        self.truncated: list[tuple[int, int, np.ndarray]] = []

    def _on_step(self) -> bool:
        self.raw.append(self.gail.envs.get_original_obs())
        dones = self.locals["dones"]
        self.ends.append(dones)
        if dones.any():
            for index in np.flatnonzero(dones):
                info = self.locals["infos"][index]
                if info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
                    self.truncated.append((len(self.ends) - 1, index, info["terminal_observation"]))
        return True

    def _on_rollout_end(self) -> None:
        gail, ppo = self.gail, self.model
        buffer, ends = ppo.rollout_buffer, np.array(self.ends)
        steps, num_envs = ends.shape
        # The environment clips what the policy samples, and demonstrations hold what the environment saw.
        actions = np.clip(buffer.actions, ppo.action_space.low, ppo.action_space.high).reshape(steps * num_envs, -1)
        observations = np.array(self.raw[:-1]).reshape(steps * num_envs, -1)
        progress = min(1.0, ppo.num_timesteps / ppo._total_timesteps)  # the last round may reach beyond
        figures = gail.respond((observations, actions), progress)
        with torch.no_grad():
            logits = gail.discriminator(gail.transitions((observations, actions)))
            learned = reward(logits, gail.config.reward).cpu().numpy().reshape(steps, num_envs)
        rewards = gail.scale(learned, ends) if gail.config.normalize_reward else learned
        buffer.rewards[:] = rewards
        self._bootstrap_truncations(buffer)
        buffer.compute_returns_and_advantage(last_values=self.locals["values"], dones=self.locals["dones"])
        figures |= {"reward/mean": float(learned.mean()), "reward/std": float(learned.std())}
        figures |= {"reward/scaled_mean": float(rewards.mean()), "disc/logit_std": float(logits.std())}
        gail.figures = figures
        for key, value in figures.items():
            self.logger.record(key, value)

    def _bootstrap_truncations(self, buffer: object) -> None:
        """Add gamma·V(last observation) where a time limit cut an episode: PPO had added it to rewards now replaced."""
        if not self.truncated:
            return
        rows, columns, terminal = zip(*self.truncated, strict=True)
        with torch.no_grad():
            observations, _ = self.model.policy.obs_to_tensor(np.array(terminal))
            values = self.model.policy.predict_values(observations).cpu().numpy().ravel()
        buffer.rewards[list(rows), list(columns)] += self.model.gamma * values


def make_ppo(config: GAILConfig, envs: object, device: torch.device) -> PPO:
    """Stable-Baselines3's PPO with the configuration's settings; also the plain PPO of the benchmark."""
    return PPO(
        "MlpPolicy",
        envs,
        seed=config.seed,
        device=device,
        n_steps=config.round_steps,
        batch_size=config.policy_batch,
        n_epochs=config.policy_epochs,
        learning_rate=LinearSchedule(config.policy_rate, 0.0, 1.0),
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.policy_entropy,
        target_kl=config.policy_kl or None,
        policy_kwargs={
            "net_arch": {"pi": list(config.policy_hidden), "vf": list(config.policy_hidden)},
            "activation_fn": nn.Tanh,
            "log_std_init": config.log_std_init,
        },
    )


def resolve_device(name: str) -> torch.device:
    """auto means cpu, where small networks are fastest; cuda without one is a UserError."""
    if name == "auto":
        return torch.device("cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA device that torch can use; use --device cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu or cuda, not {name!r}")
    return device


def pairs(demonstrations: Demonstrations) -> Pairs:
    """All raw (observation, action) pairs of the demonstrations."""
    observations, actions, _ = demonstrations.transitions()
    return observations, actions


def thinned(data: Pairs) -> Pairs:
    """At most `MOST_MEASURED` pairs, evenly chosen: more would say the same and cost time in every round."""
    every = -(-len(data[0]) // MOST_MEASURED)
    return data[0][::every], data[1][::every]


def split(demonstrations: Demonstrations, holdout: float) -> tuple[Pairs, Pairs]:
    """Pairs to train on and pairs held out: the last stretch of every episode, whole, since neighbours are alike.

    With `holdout` 0 both are everything.
    """
    train, held = [], []
    for episode in demonstrations.episodes:
        length = len(episode.actions)
        cut = length - round(holdout * length)
        if not 0 < cut < length and holdout:
            raise UserError(f"an episode of {length} steps is too short to hold out {holdout:.0%} of it")
        data = episode.observations[:length], episode.actions
        train.append((data[0][:cut], data[1][:cut]))
        held.append((data[0][cut:], data[1][cut:]) if holdout else data)
    join = lambda parts: tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # noqa: E731
    return join(train), join(held)
