"""Trains an expert with Stable-Baselines3 on the environment's own reward; resumable.

Checkpoints are in Stable-Baselines3's own format, which contains pickles: open only those you made."""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, ConvertCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tqdm import tqdm

from l2l_experiment.errors import UserError
from l2l_experiment.files import plain, write_atomically
from l2l_experiment.interrupt import StopRequest
from l2l_gail import environments
from l2l_gail.experts.settings import MAY_CHANGE, OWN, ExpertSettings
from l2l_gail.leaders.ppo import arguments

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
CHECKPOINT = re.compile(r"expert_(\d+)_steps\.zip")
BEST, BEST_FILTER, SETTINGS, SCORE = "best_model.zip", "best_vecnormalize.pkl", "settings.json", "best.json"


def train(settings: ExpertSettings) -> tuple[OnPolicyAlgorithm, VecNormalize]:
    """A trained policy with its observation filter, from a fresh start or from a checkpoint. It is the last one or,
    with `select_episodes`, the one that returned most in the evaluations during training. Ctrl-C saves and exits with
    status 130. A resumed run continues network, optimiser, schedule and filter; its environments start anew, so that it
    is equal in distribution to an uninterrupted one, not in every digit."""
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
        for old in (*run_dir.glob("expert_*_steps.*"), *(run_dir / name for name in (BEST, BEST_FILTER, SCORE))):
            old.unlink(missing_ok=True)
        normalizer = VecNormalize(make_envs(settings, settings.seed), gamma=settings.gamma)
        names = ("seed", "n_steps", "batch_size", "gamma", "gae_lambda", *OWN[settings.algo])
        shared = arguments(settings, names, ACTIVATIONS[settings.activation], decay=settings.linear_decay)
        model = algorithm(settings.algo)("MlpPolicy", normalizer, device="cpu", **shared)
        done = 0
    if done < settings.steps:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run_dir / SETTINGS, json.dumps(plain(asdict(settings)), indent=1).encode())
        bar = tqdm(total=settings.steps, initial=done, desc=settings.env, unit="step", mininterval=1)
        with StopRequest() as stop, bar:
            callbacks = [_Progress(bar, stop), *saving(settings, run_dir)]
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
    checkpoints = CheckpointCallback(calls, str(run_dir), "expert", save_vecnormalize=True)
    if not settings.select_episodes:
        return [checkpoints]

    def keep_filter_and_score(*_: object) -> bool:
        """What belongs to the best policy, which Stable-Baselines3 saves alone."""
        best.model.get_vec_normalize_env().save(str(run_dir / BEST_FILTER))
        score = {"score": float(best.best_mean_reward), "steps": best.num_timesteps}
        write_atomically(run_dir / SCORE, (json.dumps(score) + "\n").encode())
        return True

    apart = 500_000 * (settings.seed + 1)  # from the seeds of training and of recording
    best = EvalCallback(
        VecNormalize(make_envs(settings, apart, 1), training=False, norm_reward=False),
        callback_on_new_best=ConvertCallback(keep_filter_and_score),
        n_eval_episodes=settings.select_episodes,
        eval_freq=calls,
        best_model_save_path=str(run_dir),
        verbose=0,
    )
    if (run_dir / SCORE).is_file():
        best.best_mean_reward = json.loads((run_dir / SCORE).read_text())["score"]
    return [checkpoints, best]


class _Progress(BaseCallback):
    """Moves a progress bar and shows the training return; ends training after a rollout if asked to stop."""

    def __init__(self, bar: tqdm, stop: StopRequest) -> None:
        super().__init__()
        self.bar, self.stop, self.rollout_ended = bar, stop, False

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


def check_same_run(settings: ExpertSettings, file: Path) -> None:
    """UserError if a run was started with other settings than those it is to be resumed with."""
    before, now = json.loads(file.read_text()), plain(asdict(settings))
    for name in sorted(now.keys() - MAY_CHANGE):
        if before.get(name) != now[name]:
            raise UserError(
                f"{file} was started with {name} {before.get(name)}, not {now[name]}; "
                "resume with the same settings or start another --run-dir"
            )
