"""Experts: trains a policy on the true reward with Stable-Baselines3 and records it as demonstrations.

Behind scripts/make_expert_data.py. Training saves a checkpoint now and then and when interrupted; `--resume` continues
from it. Checkpoints are in Stable-Baselines3's own format, which contains pickles: open only those you made.
"""

import json
import os
import shlex
import shutil
import sys
from argparse import ArgumentParser
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
import yaml
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from tqdm import tqdm

from l2l_experiment.errors import UserError
from l2l_experiment.interrupt import StopRequest
from l2l_gail import environments, expert_cards
from l2l_gail.demonstrations import Demonstrations, shipped_dataset_id
from l2l_gail.recording import Played, play, save_minari

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}

# Settings that only one algorithm has.
OWN = {
    "ppo": ("n_epochs", "clip_range", "ent_coef", "vf_coef", "max_grad_norm"),
    "trpo": ("target_kl", "cg_max_steps", "cg_damping", "n_critic_updates"),
}

# Settings that may change between a run and its resumption; the others would make it a different run.
MAY_CHANGE = frozenset({"steps", "episodes", "min_return", "out", "run_dir", "resume", "overwrite", "checkpoint_every"})


@dataclass(frozen=True)
class ExpertSettings:
    """Train an expert and record it. Defaults come from l2l_gail/experts.yml, one block per environment."""

    env: str = "HalfCheetah-v4"  # Gymnasium id of the environment
    algo: Literal["ppo", "trpo"] = "ppo"  # trpo needs sb3-contrib
    steps: int = 1_000_000  # environment steps of training, rounded up to whole rollouts
    seed: int = 0  # of network, environments and action noise
    episodes: int = 10  # episodes to record
    min_return: float | None = None  # an episode that returns less is played but not kept; None keeps all
    out: Path = Path("expert_data")  # folder of data sets; its README.md is rewritten
    run_dir: Path | None = None  # checkpoints; None: runs/experts/ENV-ALGO-SEED
    resume: bool = False  # continue from the checkpoint in run_dir
    overwrite: bool = False  # replace the data set, and the checkpoint, that are there
    checkpoint_every: int = 100_000  # environment steps between checkpoints
    n_envs: int = 8  # environments stepped together
    n_steps: int = 256  # steps of each environment in a rollout
    batch_size: int = 256  # of a gradient step (trpo: of the critic's)
    learning_rate: float = 3e-4  # of Adam (trpo: of the critic's)
    linear_decay: bool = True  # learning rate falls to 0 at the end
    gamma: float = 0.99  # discount, of reward and of reward normalisation
    gae_lambda: float = 0.95  # generalised advantage estimation
    net: tuple[int, ...] = (64, 64)  # hidden layers of policy and of critic
    activation: Literal["tanh", "relu"] = "tanh"  # between layers
    log_std_init: float = 0.0  # initial log standard deviation of actions
    n_epochs: int = 10  # ppo: passes over a rollout
    clip_range: float = 0.2  # ppo: of the probability ratio
    ent_coef: float = 0.0  # ppo: weight of the entropy bonus
    vf_coef: float = 0.5  # ppo: weight of the critic's loss
    max_grad_norm: float = 0.5  # ppo: gradient clipping
    target_kl: float = 0.01  # trpo: size of the trust region
    cg_max_steps: int = 25  # trpo: conjugate gradient steps
    cg_damping: float = 0.1  # trpo: added to the Fisher matrix
    n_critic_updates: int = 20  # trpo: passes of the critic over a rollout


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, trains (or resumes), records, writes data set, card and README.md."""
    arguments = sys.argv[1:] if arguments is None else arguments
    settings = parse(arguments)
    environments.check(settings.env)
    torch.set_num_threads(1)  # networks this small lose time to thread hand-over
    folder = settings.out / shipped_dataset_id(settings.env)
    if folder.exists() and not settings.overwrite:  # said before training, not after
        raise UserError(f"{folder} is there already; name another folder with --out or replace it with --overwrite")
    model, normalizer = train(settings)
    played = record(settings, model, normalizer)
    # The card says how to make the data from nothing, so that recording again does not change it.
    flags = [flag for flag in arguments if flag not in ("--resume", "--overwrite")]
    command = shlex.join(["python", "scripts/make_expert_data.py", *flags])
    write(settings, played, trained_steps=model.num_timesteps, command=command)


def parse(arguments: list[str]) -> ExpertSettings:
    """Settings from the environment's block in experts.yml, overridden by flags."""
    first = ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--env", default=ExpertSettings.env)
    env = first.parse_known_args(arguments)[0].env
    return tyro.cli(ExpertSettings, default=settings_for(env), args=arguments, description=ExpertSettings.__doc__)


def settings_for(env: str) -> ExpertSettings:
    """Settings of the environment's block in experts.yml; the defaults where there is none."""
    blocks = yaml.safe_load(Path(__file__).with_name("experts.yml").read_text())
    block = dict(blocks.get(env, {}))
    if "net" in block:
        block["net"] = tuple(block["net"])
    return replace(ExpertSettings(env=env), **block)


def train(settings: ExpertSettings) -> tuple[OnPolicyAlgorithm, VecNormalize]:
    """A trained policy with its observation filter, from a fresh start or from a checkpoint.

    Ctrl-C saves and exits with status 130. A resumed run continues network, optimiser, schedule and filter; its
    environments start anew, so that it is equal in distribution to an uninterrupted one, not in every digit.
    """
    run_dir = settings.run_dir or Path("runs/experts") / f"{settings.env}-{settings.algo}-{settings.seed}"
    checkpoint = _existing(run_dir)
    if settings.resume:
        if checkpoint is None:
            raise UserError(f"nothing to resume: {run_dir} holds no checkpoint; start without --resume")
        _check_same_run(settings, run_dir / "settings.json")
    elif checkpoint is not None and not settings.overwrite:
        raise UserError(
            f"{run_dir} holds a checkpoint; continue it with --resume, or name another folder with --run-dir"
        )
    done = json.loads((checkpoint / "progress.json").read_text())["steps"] if settings.resume and checkpoint else 0
    stepped = _environments(settings, seed=settings.seed + done)
    if settings.resume and checkpoint is not None:
        normalizer = VecNormalize.load(str(checkpoint / "vecnormalize.pkl"), stepped)
        model = _algorithm(settings.algo).load(checkpoint / "model.zip", env=normalizer, device="cpu")
    else:
        normalizer = VecNormalize(stepped, gamma=settings.gamma)
        model = _algorithm(settings.algo)("MlpPolicy", normalizer, **_hyperparameters(settings))
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "settings.json").write_text(json.dumps(asdict(settings), default=str, indent=1) + "\n")
    if done < settings.steps:
        with StopRequest() as stop:
            progress = _Progress(settings, run_dir, stop)
            model.learn(settings.steps - done, callback=progress, reset_num_timesteps=not settings.resume)
        save_checkpoint(model, normalizer, run_dir)
        if model.num_timesteps < settings.steps:
            print(
                f"stopped at step {model.num_timesteps}; continue with the same command and --resume", file=sys.stderr
            )
            raise SystemExit(130)
    normalizer.training = False
    return model, normalizer


def record(settings: ExpertSettings, model: OnPolicyAlgorithm, normalizer: VecNormalize) -> Played:
    """Deterministic episodes of the policy, in environments with seeds that training has not used."""

    def policy(observation: np.ndarray) -> np.ndarray:
        return model.predict(normalizer.normalize_obs(observation), deterministic=True)[0]

    with tqdm(total=settings.episodes, desc="record", unit="episode") as bar:

        def show(total: float, kept: bool) -> None:
            bar.update(int(kept))
            bar.set_postfix_str(f"return {total:.0f}{'' if kept else ' (dropped)'}")

        return play(
            environments.make(settings.env),
            policy,
            episodes=settings.episodes,
            first_seed=1_000_000 * (settings.seed + 1),
            min_return=settings.min_return,
            on_episode=show,
        )


def write(settings: ExpertSettings, played: Played, *, trained_steps: int, command: str) -> Path:
    """Writes the data set with its card, and README.md from all cards; returns the data set's folder."""
    dataset_id = shipped_dataset_id(settings.env)
    demonstrations = Demonstrations(settings.env, played.episodes, dataset_id)
    card = expert_cards.card(
        dataset_id=dataset_id,
        demonstrations=demonstrations,
        played=played,
        settings=_relevant(settings),
        trained_steps=trained_steps,
        command=command,
        min_return=settings.min_return,
    )
    folder = save_minari(
        settings.out,
        dataset_id,
        demonstrations,
        seeds=played.seeds,
        algorithm=f"{settings.algo.upper()} of {'Stable-Baselines3' if settings.algo == 'ppo' else 'sb3-contrib'}",
        description=f"Deterministic episodes of an expert in {settings.env}; how it was made is in card.json.",
        requirements=[f"mujoco=={card['versions']['mujoco']}"],
        overwrite=settings.overwrite,
    )
    expert_cards.write(folder, card)
    expert_cards.write_readme(settings.out)
    print(f"{folder}: {len(demonstrations)} episodes, return {card['return_mean']:.0f} ± {card['return_sd']:.0f}")
    return folder


def save_checkpoint(model: OnPolicyAlgorithm, normalizer: VecNormalize, run_dir: Path) -> None:
    """Replaces run_dir/checkpoint; an interruption leaves the old or the new one, never half of each."""
    fresh, current, old = run_dir / "checkpoint.new", run_dir / "checkpoint", run_dir / "checkpoint.old"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    model.save(fresh / "model.zip")
    normalizer.save(str(fresh / "vecnormalize.pkl"))
    (fresh / "progress.json").write_text(json.dumps({"steps": model.num_timesteps}) + "\n")
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        os.replace(current, old)
    os.replace(fresh, current)
    shutil.rmtree(old, ignore_errors=True)


class _Progress(BaseCallback):
    """A progress bar with steps/s, ETA and training return; a checkpoint at the rollout's end every so often."""

    def __init__(self, settings: ExpertSettings, run_dir: Path, stop: StopRequest) -> None:
        super().__init__()
        self.settings, self.run_dir, self.stop = settings, run_dir, stop
        self.rounds_end = False
        self.bar: tqdm[Any] | None = None

    def _on_training_start(self) -> None:
        start = self.model.num_timesteps
        self.next_checkpoint = start + self.settings.checkpoint_every
        self.bar = tqdm(total=self.settings.steps, initial=start, desc=self.settings.env, unit="step")

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
            assert isinstance(self.training_env, VecNormalize)
            assert isinstance(self.model, OnPolicyAlgorithm)
            save_checkpoint(self.model, self.training_env, self.run_dir)

    def _on_training_end(self) -> None:
        assert self.bar is not None
        self.bar.close()


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


def _relevant(settings: ExpertSettings) -> dict[str, Any]:
    """The settings that shaped the policy, for the card."""
    others = MAY_CHANGE | {"env"} | {name for algo, names in OWN.items() if algo != settings.algo for name in names}
    return {name: value for name, value in asdict(settings).items() if name not in others}


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
