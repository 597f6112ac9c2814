"""Trains an expert with Stable-Baselines3 on the environment's own reward; resumable.

Checkpoints are in Stable-Baselines3's own format, which contains pickles: open only those you made.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tqdm import tqdm

from l2l_experiment.errors import UserError
from l2l_experiment.files import plain, write_atomically
from l2l_experiment.interrupt import StopRequest
from l2l_gail import environments
from l2l_gail.experts.settings import MAY_CHANGE, OWN, ExpertSettings

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
CHECKPOINT = re.compile(r"expert_(\d+)_steps\.zip")
BEST, SETTINGS, SCORE = "best_model.zip", "settings.json", "best.json"
BEST_FILTER = "best_vecnormalize.pkl"


def train(settings: ExpertSettings) -> tuple[OnPolicyAlgorithm, VecNormalize]:
    """A trained policy with its observation filter, from a fresh start or from a checkpoint.

    It is the last one or, with `select_episodes`, the one that returned most in the evaluations during training.
    Ctrl-C saves and exits with status 130. A resumed run continues network, optimiser, schedule and filter; its
    environments start anew, so that it is equal in distribution to an uninterrupted one, not in every digit.
    """
    run_dir = settings.run_dir or Path("runs/experts") / f"{settings.env}-{settings.algo}-{settings.seed}"
    done = newest(run_dir)
    if settings.resume:
        if done is None:
            raise UserError(f"nothing to resume: {run_dir} holds no checkpoint; start without --resume")
        check_same_run(settings, run_dir / SETTINGS)
        model, normalizer = load(settings, *files(run_dir, done), seed=settings.seed + done)
    else:
        if done is not None and not settings.overwrite:
            raise UserError(f"{run_dir} holds a checkpoint; continue it with --resume, or name another --run-dir")
        shutil.rmtree(run_dir, ignore_errors=True)
        normalizer = VecNormalize(make_envs(settings, settings.seed), gamma=settings.gamma)
        model = algorithm(settings.algo)("MlpPolicy", normalizer, **hyperparameters(settings))
        done = 0
    if done < settings.steps:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run_dir / SETTINGS, json.dumps(plain(asdict(settings)), indent=1).encode())
        with StopRequest() as stop:
            progress = _Progress(settings.env, settings.steps, stop)
            callbacks = CallbackList([progress, *saving(settings, run_dir)])
            model.learn(settings.steps - done, callback=callbacks, reset_num_timesteps=not settings.resume)
        model_file, filter_file = files(run_dir, model.num_timesteps)
        model.save(model_file)
        normalizer.save(str(filter_file))
        if model.num_timesteps < settings.steps:
            print(f"stopped at step {model.num_timesteps}; continue by adding --resume", file=sys.stderr)
            raise SystemExit(130)
    if settings.select_episodes:
        model, normalizer = load(settings, run_dir / BEST, run_dir / BEST_FILTER, seed=settings.seed)
    normalizer.training = False
    return model, normalizer


def saving(settings: ExpertSettings, run_dir: Path) -> list[BaseCallback]:
    """Callbacks that save a checkpoint now and then and, with `select_episodes`, the policy that returns most."""
    calls = max(settings.checkpoint_every // settings.n_envs, 1)
    callbacks: list[BaseCallback] = [CheckpointCallback(calls, str(run_dir), "expert", save_vecnormalize=True)]
    if settings.select_episodes:
        apart = 500_000 * (settings.seed + 1)  # from the seeds of training and of recording
        envs = VecNormalize(make_envs(settings, apart, 1), training=False, norm_reward=False)
        best = EvalCallback(
            envs,
            callback_on_new_best=_KeepBest(run_dir),
            n_eval_episodes=settings.select_episodes,
            eval_freq=calls,
            best_model_save_path=str(run_dir),
            verbose=0,
        )
        if (run_dir / SCORE).is_file():
            best.best_mean_reward = json.loads((run_dir / SCORE).read_text())["score"]
        callbacks.append(best)
    return callbacks


class _KeepBest(BaseCallback):
    """Saves, beside the best policy, the observation filter that belongs to it and its score."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.run_dir = run_dir

    def _on_step(self) -> bool:
        self.model.get_vec_normalize_env().save(str(self.run_dir / BEST_FILTER))
        score = {"score": float(self.parent.best_mean_reward), "steps": self.num_timesteps}
        write_atomically(self.run_dir / SCORE, (json.dumps(score) + "\n").encode())
        return True


class _Progress(BaseCallback):
    """A progress bar with steps/s, ETA and training return; ends training after a rollout if asked to stop."""

    def __init__(self, env: str, steps: int, stop: StopRequest) -> None:
        super().__init__()
        self.env, self.steps, self.stop = env, steps, stop
        self.rollout_ended = False

    def _on_training_start(self) -> None:
        start = self.model.num_timesteps
        self.bar = tqdm(total=self.steps, initial=start, desc=self.env, unit="step", mininterval=1)

    def _on_step(self) -> bool:
        if self.rollout_ended and self.stop.requested:
            return False  # only a step can end SB3's training: the first after the round, which is not learned from
        self.rollout_ended = False
        self.bar.update(self.training_env.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        self.rollout_ended = True
        if self.model.ep_info_buffer:
            self.bar.set_postfix_str(f"return {np.mean([info['r'] for info in self.model.ep_info_buffer]):.0f}")

    def _on_training_end(self) -> None:
        self.bar.close()


def greedy(model: OnPolicyAlgorithm, normalizer: VecNormalize) -> Callable[[np.ndarray], np.ndarray]:
    """The deterministic policy from raw observations to actions within bounds."""
    return lambda observation: model.predict(normalizer.normalize_obs(observation), deterministic=True)[0]


def files(run_dir: Path, steps: int) -> tuple[Path, Path]:
    """Model and observation filter of a checkpoint, as Stable-Baselines3's `CheckpointCallback` calls them."""
    return run_dir / f"expert_{steps}_steps.zip", run_dir / f"expert_vecnormalize_{steps}_steps.pkl"


def newest(run_dir: Path) -> int | None:
    """Steps of the newest complete checkpoint of a run; None if there is none."""
    found = [int(match[1]) for path in run_dir.glob("*.zip") if (match := CHECKPOINT.fullmatch(path.name))]
    # The filter is written after the model: where it is there, the model is whole.
    return max((steps for steps in found if files(run_dir, steps)[1].is_file()), default=None)


def load(settings: ExpertSettings, model: Path, filter_: Path, *, seed: int) -> tuple[OnPolicyAlgorithm, VecNormalize]:
    """The model and the filter of a checkpoint, with fresh environments."""
    normalizer = VecNormalize.load(str(filter_), make_envs(settings, seed))
    loaded = algorithm(settings.algo).load(model, env=normalizer, device="cpu")
    loaded.set_random_seed(seed)  # loading has seeded everything as at the beginning
    return loaded, normalizer


def make_envs(settings: ExpertSettings, seed: int, count: int | None = None) -> VecEnv:
    """So many environments, by default those of training."""
    return make_vec_env(lambda: environments.make(settings.env), count or settings.n_envs, seed=seed)


def algorithm(name: str) -> type[OnPolicyAlgorithm]:
    """The class behind `--algo`."""
    if name == "ppo":
        return PPO
    try:
        from sb3_contrib import TRPO
    except ImportError as error:
        raise UserError('--algo trpo needs sb3-contrib: pip install "l2l[experts]"') from error
    return TRPO


def hyperparameters(settings: ExpertSettings) -> dict[str, Any]:
    """Keyword arguments of the algorithm's constructor."""
    rate, layers = settings.learning_rate, list(settings.net_arch)
    same = ("seed", "n_steps", "batch_size", "gamma", "gae_lambda", *OWN[settings.algo])
    return {
        "device": "cpu",
        "learning_rate": LinearSchedule(rate, 0.0, 1.0) if settings.linear_decay else rate,
        "policy_kwargs": {
            "net_arch": {"pi": layers, "vf": layers},
            "activation_fn": ACTIVATIONS[settings.activation],
            "log_std_init": settings.log_std_init,
        },
    } | {name: getattr(settings, name) for name in same}


def check_same_run(settings: ExpertSettings, file: Path) -> None:
    """UserError if a run was started with other settings than those it is to be resumed with."""
    before, now = json.loads(file.read_text()), plain(asdict(settings))
    for name in sorted(now.keys() - MAY_CHANGE):
        if before.get(name) != now[name]:
            raise UserError(
                f"{file} was started with {name} {before.get(name)}, not {now[name]}; "
                "resume with the same settings or start another --run-dir"
            )
