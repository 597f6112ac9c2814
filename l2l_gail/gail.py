"""Generative adversarial imitation learning (Ho and Ermon, 2016): a leader, a discriminator, a follower.

The leader trains a policy on the discriminator's reward; once a round the follower moves the discriminator. The true
reward is only monitored."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import yaml
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from torch import Tensor, nn

from l2l_experiment import checkpoint, devices, randomness, settings
from l2l_experiment.errors import UserError
from l2l_experiment.files import write_atomically
from l2l_experiment.run import CONFIG
from l2l_experiment.stability import RunningStability
from l2l_gail import cloning, objects
from l2l_gail.config import GAILConfig, stored, tuned
from l2l_gail.demonstrations import Demonstrations, load_demonstrations
from l2l_gail.environments import EnvLike, environment, require_named
from l2l_gail.followers import FOLLOWERS, Follower, Objectives, resolve_config, score_config
from l2l_gail.leaders import LEADERS, Leader
from l2l_gail.losses import disc_stats, draw, objective
from l2l_gail.notes import notes
from l2l_gail.reward_model import LazyInputs, RewardModel
from l2l_gail.transitions import Transitions, split, transitions_of, update_replay

OBJECT = "an environment object"  # what the settings call an environment that has no id
MAY_CHANGE = frozenset({"device", "vec"})  # settings that may change between saving and loading
MOST_MEASURED = 2_000  # transitions of demonstrations on which the discriminator is measured: an accuracy to a per cent


class GAIL:
    """Imitate demonstrations; `learn`, `predict`, `save` and `load` are Stable-Baselines3's verbs.

    `env`: a Gymnasium id, a function that makes an environment, or a Stable-Baselines3 `VecEnv` (which a resumed run
    cannot put back mid-episode).
    `demonstrations`: those to train on; whatever `load_demonstrations` takes; None for a policy that only predicts.
    `config`: the settings, by default the tuned ones of the environment.
    `leader`, `discriminator`, `follower`: objects in place of those that the settings name. A leader brings the
    environments of its algorithm; a discriminator answers transitions of shape (n, inputs) with logits of shape (n,);
    a follower is an object, or a function of discriminator and settings that makes one.
    `reward`: a frozen `RewardModel`, such as that of another run; only the policy learns, and needs no demonstrations.
    `monitor`: other demonstrations of the same expert, to measure the discriminator on (`train_disc/heldout_*`).
    `policy_kwargs`: of Stable-Baselines3's policy, over those that the settings give.
    `tensorboard_log`: a folder in which every `learn` logs into a run of its own, as in Stable-Baselines3.
    """

    def __init__(
        self,
        env: EnvLike,
        demonstrations: Any = None,
        *,
        config: GAILConfig | None = None,
        leader: Leader | None = None,
        discriminator: nn.Module | None = None,
        follower: Follower | Callable[[nn.Module, GAILConfig], Follower] | None = None,
        reward: RewardModel | None = None,
        monitor: Demonstrations | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: Path | str | None = None,
    ) -> None:
        objects.require_objects(config, leader, discriminator, follower, reward, monitor, policy_kwargs)
        self.env = environment(env, rescale=None if config is None else config.rescale_actions)
        config = tuned(self.env.id or "") if config is None else config
        config = replace(config, env=self.env.id or OBJECT, rescale_actions=self.env.rescale)
        if follower is None:
            config = resolve_config(config)
        self.device = devices.resolve(config.device, auto="cpu")
        if leader is None:
            envs = self.env.vectorised(config.n_envs, config.seed, config.vec)
            leader = LEADERS[config.leader].make(envs, config, self.device, policy_kwargs=policy_kwargs)
        objects.require_leader_of(leader, self.env)
        # A given leader has its own.
        self.config = config = replace(config, n_envs=leader.envs.num_envs, gamma=leader.algorithm.gamma)
        self.tensorboard_log = tensorboard_log
        self.leader, self.envs, self.fixed = leader, leader.envs, reward is not None
        self.model = reward or RewardModel(self.env, config, discriminator, lambda data: leader.log_prob(data))
        self.discriminator = self.model.discriminator
        make = FOLLOWERS[config.follower].make if follower is None else follower
        self.follower = make(self.discriminator, config) if callable(make) else make
        objects.require_follower_of(self.follower, self.discriminator)
        if follower is not None:
            self.config = replace(config, follower=type(self.follower).__name__)
        self.scoring = score_config(self.config)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.demonstrations: Demonstrations | None = None
        self.replay: list[Transitions] = []
        self.figures: dict[str, float] = {}
        self.stability = RunningStability(block=10, window=100)  # in episodes
        self.bc_loss: float | None = None  # of behaviour cloning at its end, if it came first
        self.on_round: Callable[[GAIL], None] | None = None
        if demonstrations is not None:
            self._set_demonstrations(load_demonstrations(demonstrations, self.env), monitor)
        elif self.fixed:
            self._set_observation_filter()

    def _set_demonstrations(self, demonstrations: Demonstrations, monitor: Demonstrations | None) -> None:
        if not demonstrations.have_actions and (self.config.imitate == "pairs" or self.config.bc_epochs):
            raise UserError(f"{demonstrations.source} has no actions: only --imitate states learns from it, uncloned")
        objects.require_next_observations(demonstrations, self.config)
        self.demonstrations = demonstrations
        held, every = self.follower.holdout, self.config.every
        self.train_expert, self.score_expert = split(demonstrations, held, every, ends=self.config.absorbing)
        if not (self.fixed or self.env.observations.image):
            seen = np.concatenate([one.observations[:-1:every].astype(np.float32) for one in demonstrations.episodes])
            self.model.filter.fit(self.env.observations.features(seen))
        self._set_observation_filter()
        self.monitored = None
        if monitor is not None and len(monitor):
            # Thinned: more would say the same and cost time in every round.
            whole = transitions_of(load_demonstrations(monitor, self.env)).float32()
            self.monitored = whole.rows(slice(None, None, -(-len(whole) // MOST_MEASURED)))

    __deepcopy__ = objects.refuse_copy

    def _set_observation_filter(self) -> None:
        """Normalise the policy's observations by the demonstrations' moments, if `filter` says so; never images."""
        if self.config.filter == "demonstrations" and self.envs.norm_obs:  # not of images
            # Running moments include early falls; that variance would shrink the pitch differences of an upright robot.
            filter = self.model.filter
            self.envs.training = False
            self.envs.obs_rms.mean, self.envs.obs_rms.var = filter.mean, filter.deviation**2

    @property
    def num_timesteps(self) -> int:
        """Environment steps made so far."""
        return self.leader.algorithm.num_timesteps

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        *,
        tb_log_name: str = "GAIL",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        on_round: Callable[["GAIL"], None] | None = None,
        on_epoch: Callable[[int], None] | None = None,
    ) -> Self:
        """Train for `total_timesteps` environment steps, rounded up to whole rounds; behaviour cloning comes first, if
        the settings ask for it.

        Arguments are those of Stable-Baselines3. With `reset_num_timesteps=False` training goes on as one, its
        schedules included. `on_round(self)` is called between rounds, when everything is consistent and can be saved;
        it may raise to stop. So may `on_epoch`, called with the number of passes of behaviour cloning after each."""
        objects.require_steps(total_timesteps)
        if self.demonstrations is None and not self.fixed:
            raise UserError("GAIL has no demonstrations to learn from; it was made without them, for predict() alone")
        self.on_round = on_round
        if on_round is None:  # called by a program: the command tells them by itself
            for note in notes(self.config, self.env, fixed=self.fixed):
                warnings.warn(note, stacklevel=2)
        if self.tensorboard_log is not None:
            self.set_logger(configure_logger(0, str(self.tensorboard_log), tb_log_name, reset_num_timesteps))
        if self.config.bc_epochs and self.bc_loss is None:
            self.bc_loss = self._clone(on_epoch)
        if total_timesteps > 0:
            kwargs = {"callback": callback, "reset_num_timesteps": reset_num_timesteps, "progress_bar": progress_bar}
            self.leader.learn(total_timesteps, self, **kwargs)
        self.between_rounds()
        return self

    def _clone(self, on_epoch: Callable[[int], None] | None) -> float:
        if self.demonstrations is None:
            raise UserError("--bc-epochs clones demonstrations, and there are none")
        expert, policy = transitions_of(self.demonstrations, self.config.every).float32(), self.leader.algorithm.policy
        if self.config.filter == "running" and self.num_timesteps == 0 and self.envs.norm_obs:
            self.envs.obs_rms.update(expert.observations.astype(np.float64))
        seen, targets = self.envs.normalize_obs(expert.observations), self.env.actions.to_policy(expert.actions)
        epochs, generator = self.config.bc_epochs, self.generator
        return cloning.clone(policy, seen, targets, epochs=epochs, generator=generator, on_epoch=on_epoch)

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions of the environment for its observations, one or a batch of them, and the state."""
        space = self.env.observations
        single = space.is_single(observation)
        seen = space.convert_one(observation) if single else space.convert(observation, "predict")
        actions, state = self.leader.algorithm.predict(
            self.envs.normalize_obs(seen), state, episode_start, deterministic
        )
        return self.env.actions.to_env(actions), state

    def save(self, folder: Path | str) -> Path:
        """Write `folder/checkpoints/step_…`, which is returned, and `folder/config.yaml` unless that is there.
        UserError if the folder holds a run with other settings."""
        config = Path(folder) / CONFIG
        if config.exists():
            there = {"what": f"{folder} holds a run with other settings", "advice": "save into another folder"}
            settings.require_same(settings.plain(stored(folder)), self.config, but=MAY_CHANGE, **there)
        saved = checkpoint.save(folder, self.state_dict(), self.num_timesteps)
        if not config.exists():
            text = yaml.safe_dump({"settings": settings.plain(self.config)}, sort_keys=False)
            write_atomically(config, text.encode())
        return saved

    @classmethod
    def load(
        cls,
        folder: Path | str,
        demonstrations: Any = None,
        *,
        env: EnvLike | None = None,
        device: str | None = None,
        **parts: Any,
    ) -> Self:
        """The newest checkpoint that `save` wrote into a folder. Without demonstrations it can predict, not learn.

        Objects that were given in place of what the settings name are given again (`env`, `leader`, …), and so is an
        environment's id that names a module to import: `env="module:Name-v0"`."""
        config = stored(folder)
        if config.env != OBJECT and (env is None or isinstance(env, str)):
            require_named(config.env, env)
        elif env is None:
            raise UserError(f"{folder} was trained on an environment object; give it again: env=...")
        config = replace(config, vec="sync", device=config.device if device is None else device)  # what runs anywhere
        made = environment(config.env if env is None else env, rescale=config.rescale_actions)
        tree = checkpoint.latest(folder)
        if "reward_settings" in tree and "reward" not in parts:
            parts["reward"] = RewardModel.load(folder, made, device=config.device)
        gail = cls(made, demonstrations, config=config, **parts)
        gail.load_state_dict(tree)
        return gail

    def state_dict(self) -> dict[str, Any]:
        """The state between two rounds as a tree; bit for bit in MuJoCo and classic-control environments."""
        kept = {"reward_settings": settings.plain(self.model.config)} if self.fixed else {}
        return kept | {
            "settings": settings.plain(self.config),
            "leader": self.leader.state_dict(),
            **self.model.state_dict(),
            "follower": self.follower.state_dict(),
            "replay": [past.parts() for past in self.replay],
            "generator": self.generator.get_state(),
            "networks": objects.layers(policy=self.leader.algorithm.policy, discriminator=self.discriminator),
            "demonstrations": None if self.demonstrations is None else self.train_expert.fingerprint,
            "bc_loss": self.bc_loss,
            "stability": self.stability.state_dict(),
            "rng": randomness.state_dict(),
        }

    def load_state_dict(self, tree: dict[str, Any]) -> bool:
        """Continue from a `state_dict` made with the same settings. False if the environments had to be reset, which
        happens where their state cannot be read (see `environment_state`): the run goes on, but not bit for bit."""
        settings.require_same(tree.get("settings", {}), self.config, but=MAY_CHANGE)
        objects.require_made_with(tree, own := self.state_dict())
        try:
            checkpoint.check_compatible(tree, own)
            self.model.load_state_dict(tree)
            self.follower.load_state_dict(tree["follower"])
            self.replay = [Transitions(*parts) for parts in tree["replay"]]
            self.generator.set_state(tree["generator"])
            self.bc_loss = tree["bc_loss"]
            self.stability.load_state_dict(tree["stability"])
            exact = self.leader.load_state_dict(tree["leader"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"the checkpoint does not fit this run's settings ({str(error).splitlines()[0]}); "
                "resume with the config.yaml that made it, and with the objects that GAIL was given"
            ) from error
        randomness.load_state_dict(tree["rng"])  # last: everything above may have drawn
        return exact

    def set_logger(self, logger: Logger) -> None:
        """Set the Stable-Baselines3 logger. Values recorded but not yet written, as after `load`, are kept."""
        before = self.leader.algorithm.logger
        for key, value in before.name_to_value.items():
            logger.record(key, value, exclude=before.name_to_excluded.get(key))
        self.leader.algorithm.set_logger(logger)

    def inputs(self, data: Transitions) -> Tensor:
        """Transitions as the discriminator is trained on them, shape (n, inputs)."""
        return LazyInputs(self.model, data)[:]

    def objectives(self, recent: list[Transitions]) -> Objectives:
        """What the follower works on, given rollouts, the newest last. Held out are the end of every demonstration and
        of the newest rollout, as much as the follower wants."""
        newest = self.inputs(recent[-1])
        policy = torch.cat([*(self.inputs(data) for data in recent[:-1]), newest])
        train, score = (LazyInputs(self.model, expert) for expert in (self.train_expert, self.score_expert))
        held = round(self.follower.holdout * len(newest))
        seen, unseen = (policy[:-held], policy[-held:]) if held else (policy, policy)

        def fresh(expert: LazyInputs, imitator: Tensor, config: GAILConfig) -> Callable:
            sample = draw(expert, imitator, config.disc_batch_size, self.generator)
            return objective(self.discriminator, sample, config)

        return Objectives(lambda: fresh(train, seen, self.config), lambda: fresh(score, unseen, self.scoring))

    def between_rounds(self) -> None:
        """Called by the leader when everything is consistent."""
        if self.on_round is not None:
            self.on_round(self)

    def answer(self, transitions: Transitions, progress: float) -> None:
        """Called by the leader with a round's transitions: the follower moves the discriminator."""
        figures = {} if self.fixed else self._answer(transitions, progress)
        steady = self.stability.add(self.leader.returns)
        self.figures = {}
        self._log(figures | {f"stability/{key}": value for key, value in steady.items()})

    def _answer(self, transitions: Transitions, progress: float) -> dict[str, float]:
        self.model.filter.update(self.env.observations.features(transitions.observations))
        recent = [*self.replay, transitions]
        config, so_far = self.config, self.num_timesteps // self.leader.round_size
        update_replay(self.replay, transitions, config.replay_rounds, config.replay_kind, so_far, self.generator)
        if hasattr(self.discriminator, "refresh"):
            self.discriminator.refresh()
        train, fresh = LazyInputs(self.model, self.train_expert), self.inputs(transitions)
        thinned = train[:: -(-len(train) // MOST_MEASURED)]
        figures = {f"train_disc/{key}": value for key, value in disc_stats(self.discriminator, thinned, fresh).items()}
        if self.monitored is not None:
            other = disc_stats(self.discriminator, self.inputs(self.monitored), fresh)
            figures |= {"train_disc/heldout_loss": other["loss"], "train_disc/heldout_acc": other["acc_expert"]}
        self.discriminator.train()
        answer = self.follower.answer(self.objectives(recent), progress)
        self.discriminator.eval()  # one of a user's own may have dropout: a reward must not be drawn at random
        return figures | {f"train_follower/{key}": value for key, value in answer.items()}

    def score(self, transitions: Transitions) -> np.ndarray:
        """Called by the leader: the learned reward by the discriminator as it is now, shape (n,)."""
        return self.model.transfer_reward(transitions) if self.fixed else self.model.score(transitions)

    def reward(self, transitions: Transitions) -> np.ndarray:
        """The same for the transitions of a round, with figures for the log."""
        logits = self.model.logits(transitions)
        learned = self.model.transfer_reward(transitions) if self.fixed else self.model.score(transitions, logits)
        figures = {"train_reward/mean": float(learned.mean()), "train_reward/std": float(learned.std())}
        self._log(figures | {"train_disc/logit_std": float(logits.std())})
        return learned

    def _log(self, figures: dict[str, float]) -> None:
        self.figures |= figures
        for key, value in figures.items():
            self.leader.algorithm.logger.record(key, value)
