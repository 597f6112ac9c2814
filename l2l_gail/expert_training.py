"""Trains an expert with Stable-Baselines3 on the environment's own reward; resumable.

Checkpoints are in Stable-Baselines3's own format, which contains pickles: open only those you made.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tqdm import tqdm

from l2l_experiment.errors import UserError
from l2l_experiment.interrupt import StopRequest
from l2l_gail import environments
from l2l_gail.expert_settings import MAY_CHANGE, OWN, ExpertSettings
from l2l_gail.recording import play

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def train(settings: ExpertSettings) -> tuple[OnPolicyAlgorithm, VecNormalize]:
    """A trained policy with its observation filter, from a fresh start or from a checkpoint.

    It is the last one or, with `select_episodes`, the one among the checkpoints that returned most when it was played.
    Ctrl-C saves and exits with status 130. A resumed run continues network, optimiser, schedule and filter; its
    environments start anew, so that it is equal in distribution to an uninterrupted one, not in every digit.
    """
    run_dir = settings.run_dir or Path("runs/experts") / f"{settings.env}-{settings.algo}-{settings.seed}"
    checkpoint = _existing(run_dir)
    if settings.resume:
        if checkpoint is None:
            raise UserError(f"nothing to resume: {run_dir} holds no checkpoint; start without --resume")
        _check_same_run(settings, checkpoint / "settings.json")
    elif checkpoint is not None and not settings.overwrite:
        raise UserError(f"{run_dir} holds a checkpoint; continue it with --resume, or name another --run-dir")
    done = 0
    if settings.resume and checkpoint is not None:
        done = _steps(checkpoint)
        model, normalizer = _load(checkpoint, settings, seed=settings.seed + done)
    else:
        shutil.rmtree(run_dir / "best", ignore_errors=True)
        normalizer = VecNormalize(_environments(settings, settings.seed), gamma=settings.gamma)
        model = _algorithm(settings.algo)("MlpPolicy", normalizer, **_hyperparameters(settings))
    if done < settings.steps:
        with StopRequest() as stop:
            run_dir.mkdir(parents=True, exist_ok=True)
            progress = _Progress(settings, run_dir, stop)
            model.learn(settings.steps - done, callback=progress, reset_num_timesteps=not settings.resume)
        progress.save()
        if model.num_timesteps < settings.steps:
            print(f"stopped at step {model.num_timesteps}; continue by adding --resume", file=sys.stderr)
            raise SystemExit(130)
    if settings.select_episodes:
        model, normalizer = _load(run_dir / "best", settings, seed=settings.seed)
    normalizer.training = False
    return model, normalizer


def greedy(model: OnPolicyAlgorithm, normalizer: VecNormalize) -> Callable[[np.ndarray], np.ndarray]:
    """The deterministic policy from raw observations to actions within bounds."""
    return lambda observation: model.predict(normalizer.normalize_obs(observation), deterministic=True)[0]


def mean_return(model: OnPolicyAlgorithm, normalizer: VecNormalize, settings: ExpertSettings) -> float:
    """Mean return of the deterministic policy, from reset seeds apart from those of training and of recording."""
    seed = 500_000 * (settings.seed + 1)
    env = environments.make(settings.env)
    played = play(env, greedy(model, normalizer), episodes=settings.select_episodes, first_seed=seed)
    return float(np.mean([episode.rewards.sum() for episode in played.episodes]))


def save_checkpoint(
    model: OnPolicyAlgorithm, normalizer: VecNormalize, settings: ExpertSettings, folder: Path, **progress: float
) -> None:
    """Replaces a checkpoint; an interruption leaves the old or the new one, never half of each."""
    fresh, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.save(fresh / "model.zip")
    normalizer.save(str(fresh / "vecnormalize.pkl"))
    (fresh / "settings.json").write_text(json.dumps(asdict(settings), default=str, indent=1) + "\n")
    (fresh / "progress.json").write_text(json.dumps({"steps": model.num_timesteps} | progress) + "\n")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


class _Progress(BaseCallback):
    """A progress bar with steps/s, ETA and training return; now and then, at a rollout's end, a checkpoint."""

    def __init__(self, settings: ExpertSettings, run_dir: Path, stop: StopRequest) -> None:
        super().__init__()
        self.settings, self.run_dir, self.stop = settings, run_dir, stop
        self.rounds_end = False
        self.bar: tqdm[Any] | None = None

    def _on_training_start(self) -> None:
        start = self.model.num_timesteps
        self.next_checkpoint = start + self.settings.checkpoint_every
        self.bar = tqdm(total=self.settings.steps, initial=start, desc=self.settings.env, unit="step", mininterval=1)

    def _on_step(self) -> bool:
        assert self.bar is not None
        if self.rounds_end and self.stop.requested:
            return False  # only a step can end SB3's training: the first after the round, which is not learned from
        self.rounds_end = False
        self.bar.update(self.training_env.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        self.rounds_end = True
        assert self.bar is not None
        if self.model.ep_info_buffer:
            self.bar.set_postfix_str(f"return {np.mean([info['r'] for info in self.model.ep_info_buffer]):.0f}")
        if self.num_timesteps >= self.next_checkpoint:
            self.next_checkpoint += self.settings.checkpoint_every
            self.save()

    def _on_training_end(self) -> None:
        assert self.bar is not None
        self.bar.close()

    def save(self) -> None:
        """Saves the run and, if it is to be selected from and plays best so far, the policy."""
        model, normalizer, settings = self.model, self.training_env, self.settings
        assert isinstance(model, OnPolicyAlgorithm)
        assert isinstance(normalizer, VecNormalize)
        if settings.select_episodes:
            score = mean_return(model, normalizer, settings)
            best = self.run_dir / "best"
            if not best.exists() or score > json.loads((best / "progress.json").read_text())["score"]:
                save_checkpoint(model, normalizer, settings, best, score=score)
            tqdm.write(f"step {model.num_timesteps}: return {score:.0f} over {settings.select_episodes} episodes")
        save_checkpoint(model, normalizer, settings, self.run_dir / "checkpoint")


def _environments(settings: ExpertSettings, seed: int) -> VecEnv:
    return make_vec_env(lambda: environments.make(settings.env), settings.n_envs, seed=seed)


def _algorithm(name: str) -> type[OnPolicyAlgorithm]:
    if name == "ppo":
        return PPO
    try:
        from sb3_contrib import TRPO
    except ImportError as error:
        raise UserError('--algo trpo needs sb3-contrib: pip install "l2l[experts]"') from error
    return TRPO


def _hyperparameters(settings: ExpertSettings) -> dict[str, Any]:
    """Keyword arguments of the algorithm's constructor."""
    s = settings
    layers = list(s.net)
    shared = {
        "seed": s.seed,
        "device": "cpu",
        "learning_rate": LinearSchedule(s.learning_rate, 0.0, 1.0) if s.linear_decay else s.learning_rate,
        "n_steps": s.n_steps,
        "batch_size": s.batch_size,
        "gamma": s.gamma,
        "gae_lambda": s.gae_lambda,
        "policy_kwargs": {
            "net_arch": {"pi": layers, "vf": layers},
            "activation_fn": ACTIVATIONS[s.activation],
            "log_std_init": s.log_std_init,
        },
    }
    return shared | {name: getattr(s, name) for name in OWN[s.algo]}


def _load(folder: Path, settings: ExpertSettings, seed: int) -> tuple[OnPolicyAlgorithm, VecNormalize]:
    """The model and the filter of a checkpoint, with fresh environments."""
    normalizer = VecNormalize.load(str(folder / "vecnormalize.pkl"), _environments(settings, seed))
    model = _algorithm(settings.algo).load(folder / "model.zip", env=normalizer, device="cpu")
    model.set_random_seed(seed)  # loading has seeded everything as at the beginning
    return model, normalizer


def _steps(folder: Path) -> int:
    return int(json.loads((folder / "progress.json").read_text())["steps"])


def _existing(run_dir: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    return next((path for path in (run_dir / "checkpoint", run_dir / "checkpoint.old") if path.is_dir()), None)


def _check_same_run(settings: ExpertSettings, file: Path) -> None:
    before = json.loads(file.read_text())
    now = json.loads(json.dumps(asdict(settings), default=str))
    for field in fields(settings):
        if field.name not in MAY_CHANGE and before.get(field.name) != now[field.name]:
            raise UserError(
                f"{file} was started with {field.name} {before.get(field.name)}, not {now[field.name]}; "
                "resume with the same settings or start another --run-dir"
            )
