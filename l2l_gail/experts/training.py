"""Trains an expert with Stable-Baselines3 on the environment's own reward; resumable.

Checkpoints are in Stable-Baselines3's own format, which contains pickles: open only those you made."""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tqdm import tqdm

from l2l_experiment.errors import UserError
from l2l_experiment.files import file_name, plain, write_atomically
from l2l_experiment.interrupt import StopRequest
from l2l_gail.environments import Environment
from l2l_gail.experts.settings import ALGORITHM_SETTINGS, MAY_CHANGE, OFF_POLICY, ExpertSettings
from l2l_gail.leaders.base import policy_name, raise_on_divergence
from l2l_gail.leaders.compiled import CompiledPPO, CompiledSAC
from l2l_gail.leaders.ppo import algorithm_kwargs
from l2l_gail.spaces import is_image
from l2l_gail.vectorised import VecCheckObservations

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
CHECKPOINT = re.compile(r"expert_(\d+)_steps\.zip")
BEST, BEST_FILTER, SETTINGS, SCORE = "best_model.zip", "best_vecnormalize.pkl", "settings.json", "best.json"


def train(settings: ExpertSettings) -> tuple[BaseAlgorithm, VecNormalize]:
    """A trained policy with its observation filter, from a fresh start or from a checkpoint.

    It is the last one or, with `select_episodes`, the one that returned most in the evaluations during training. Ctrl-C
    saves and exits with status 130. A resumed run continues network, optimiser, schedule and filter; its environments
    start anew, so that it is equal in distribution to an uninterrupted one, not in every digit."""
    run_dir = settings.run_dir or Path("runs/experts") / file_name(f"{settings.env}-{settings.algo}-{settings.seed}")
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
        normalizer = vec_normalize(settings, make_envs(settings, settings.seed), gamma=settings.gamma)
        names = [
            "seed",
            "batch_size",
            "gamma",
            *(name for name in ALGORITHM_SETTINGS[settings.algo] if name != "log_std_init"),
        ]
        shared = algorithm_kwargs(settings, names, ACTIVATIONS[settings.activation], decay=settings.linear_decay)
        if off_policy(settings):
            shared["policy_kwargs"] |= {"net_arch": [*settings.net_arch]}
            del shared["policy_kwargs"]["log_std_init"]
        model = algorithm(settings.algo)(policy_name(normalizer.observation_space), normalizer, device="cpu", **shared)
        done = 0
    if done < settings.steps:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run_dir / SETTINGS, json.dumps(plain(asdict(settings)), indent=1).encode())
        bar = tqdm(total=settings.steps, initial=done, desc=settings.env, unit="step", mininterval=1)
        with StopRequest() as stop, bar:

            def on_step(*_: object) -> bool:
                """Updates the progress bar; returns False, which ends training, if a stop was requested."""
                bar.update(settings.n_envs)
                bar.set_postfix_str(f"return {safe_mean([i['r'] for i in model.ep_info_buffer]):.0f}", refresh=False)
                return not stop.requested

            callbacks = [ConvertCallback(on_step), *checkpoint_callbacks(settings, run_dir)]
            message = f"the policy diverged: {settings.env}'s reward may be NaN, or --learning-rate too large"
            with raise_on_divergence(model.policy, message):
                model.learn(settings.steps - done, callback=callbacks, reset_num_timesteps=not settings.resume)
        model_file, filter_file = files(run_dir, model.num_timesteps)
        model.save(model_file)
        if isinstance(model, OffPolicyAlgorithm):
            model.save_replay_buffer(replay_file(run_dir, model.num_timesteps))
        normalizer.save(str(filter_file))
        if model.num_timesteps < settings.steps:
            print(f"stopped at step {model.num_timesteps}; continue by adding --resume", file=sys.stderr)
            raise SystemExit(130)
    if settings.select_episodes and (run_dir / BEST_FILTER).is_file():  # not if training was too short to evaluate
        model, normalizer = load(settings, run_dir / BEST, run_dir / BEST_FILTER, seed=settings.seed)
    normalizer.training = False
    return model, normalizer


def checkpoint_callbacks(settings: ExpertSettings, run_dir: Path) -> list[BaseCallback]:
    """Callbacks that save checkpoints and, with `select_episodes`, the policy with the highest mean return."""
    calls = max(settings.checkpoint_every // settings.n_envs, 1)

    def keep_newest_replay(*_: object) -> bool:
        """Removes the replay buffers of older checkpoints: one of them is all that a resumed run needs."""
        for old in run_dir.glob("expert_replay_buffer_*_steps.pkl"):
            if old != replay_file(run_dir, newest(run_dir)):
                old.unlink()
        return True

    checkpoints = CheckpointCallback(
        calls, str(run_dir), "expert", save_vecnormalize=True, save_replay_buffer=off_policy(settings)
    )
    after = [EveryNTimesteps(settings.checkpoint_every, ConvertCallback(keep_newest_replay))]
    if not settings.select_episodes:
        return [checkpoints, *after]

    def keep_filter_and_score(*_: object) -> bool:
        """Save the best policy's observation filter and score; `EvalCallback` saves the model alone."""
        best.model.get_vec_normalize_env().save(str(run_dir / BEST_FILTER))
        score = {"score": float(best.best_mean_reward), "steps": best.num_timesteps}
        write_atomically(run_dir / SCORE, (json.dumps(score) + "\n").encode())
        return True

    eval_seed = 500_000 * (settings.seed + 1)  # apart from the seeds of training and of recording
    best = EvalCallback(
        vec_normalize(settings, make_envs(settings, eval_seed, 1), training=False),
        callback_on_new_best=ConvertCallback(keep_filter_and_score),
        n_eval_episodes=settings.select_episodes,
        eval_freq=calls,
        best_model_save_path=str(run_dir),
        verbose=0,
    )
    if (run_dir / SCORE).is_file():
        best.best_mean_reward = json.loads((run_dir / SCORE).read_text())["score"]
    return [checkpoints, *after, best]


def files(run_dir: Path, steps: int) -> tuple[Path, Path]:
    """Model and observation filter of a checkpoint, as Stable-Baselines3's `CheckpointCallback` calls them."""
    return run_dir / f"expert_{steps}_steps.zip", run_dir / f"expert_vecnormalize_{steps}_steps.pkl"


def replay_file(run_dir: Path, steps: int | None) -> Path:
    """The replay buffer of a checkpoint, as `CheckpointCallback` calls it."""
    return run_dir / f"expert_replay_buffer_{steps}_steps.pkl"


def newest(run_dir: Path) -> int | None:
    """Steps of the newest complete checkpoint of a run; None if there is none."""
    found = [int(match[1]) for path in run_dir.glob("*.zip") if (match := CHECKPOINT.fullmatch(path.name))]
    # The filter is written after the model: where it is there, the model is whole.
    return max((steps for steps in found if files(run_dir, steps)[1].is_file()), default=None)


def load(settings: ExpertSettings, model: Path, filter_: Path, *, seed: int) -> tuple[BaseAlgorithm, VecNormalize]:
    """The model and the filter of a checkpoint, with fresh environments."""
    normalizer = VecNormalize.load(str(filter_), make_envs(settings, seed))
    loaded = algorithm(settings.algo).load(model, env=normalizer, device="cpu")
    if (replay := replay_file(model.parent, loaded.num_timesteps)).is_file():
        loaded.load_replay_buffer(replay)
    loaded.set_random_seed(seed)  # loading has seeded everything as at the beginning
    return loaded, normalizer


def make_envs(settings: ExpertSettings, seed: int, count: int | None = None) -> VecEnv:
    """So many environments, by default those of training."""
    envs = make_vec_env(Environment(settings.env).make, count or settings.n_envs, seed=seed)
    return VecCheckObservations(envs, settings.env)


def off_policy(settings: ExpertSettings) -> bool:
    """Whether the algorithm is off-policy; if so, observations and rewards are not normalised."""
    return OFF_POLICY[0] in ALGORITHM_SETTINGS[settings.algo]


def vec_normalize(settings: ExpertSettings, envs: VecEnv, *, training: bool = True, **kwargs: float) -> VecNormalize:
    """`VecNormalize` around the environments: of observations and, in training, rewards; neither if off-policy."""
    usual, frames = not off_policy(settings), is_image(envs.observation_space)
    return VecNormalize(
        envs, training=training, norm_obs=usual and not frames, norm_reward=usual and training, **kwargs
    )


def algorithm(name: str) -> type[BaseAlgorithm]:
    """The class behind `--algo`; long trainings compile their updates."""
    if name in (own := {"ppo": CompiledPPO, "sac": CompiledSAC}):
        return own[name]
    try:
        import sb3_contrib
    except ImportError as error:
        raise UserError(f'--algo {name} needs sb3-contrib: pip install "l2l[experts]"') from error
    return getattr(sb3_contrib, name.upper())


def check_same_run(settings: ExpertSettings, file: Path) -> None:
    """UserError if a run was started with other settings than those it is to be resumed with."""
    before, now = json.loads(file.read_text()), plain(asdict(settings))
    for name in sorted(now.keys() - MAY_CHANGE):
        if before.get(name) != now[name]:
            raise UserError(
                f"{file} was started with {name} {before.get(name)}, not {now[name]}; "
                "resume with the same settings or start another --run-dir"
            )
