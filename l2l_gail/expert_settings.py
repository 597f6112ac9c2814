"""Settings of an expert: the command line of scripts/make_expert_data.py, with defaults from experts.yml."""

from argparse import ArgumentParser
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml

from l2l_experiment.errors import UserError
from l2l_experiment.flags import require_finite

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
    select_episodes: int = 0  # episodes each checkpoint plays; the best one is recorded. 0: the last one is, unplayed
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

    def __post_init__(self) -> None:
        require_finite(self)
        least = {"steps": 1, "seed": 0, "episodes": 1, "checkpoint_every": 1, "select_episodes": 0, "n_envs": 1}
        least |= {"n_steps": 2, "batch_size": 2, "n_epochs": 1, "cg_max_steps": 1, "n_critic_updates": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise UserError(f"--{name.replace('_', '-')} must be at least {value}, got {getattr(self, name)}")
        if self.seed >= 2**31:
            raise UserError(f"--seed must be below 2^31, got {self.seed}")
        for name in ("learning_rate", "clip_range", "target_kl", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name.replace('_', '-')} must lie in [0, 1], got {getattr(self, name)}")
        if not self.net or min(self.net) < 1:
            raise UserError("--net needs at least one layer, of at least one unit")


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


def relevant(settings: ExpertSettings) -> dict[str, Any]:
    """The settings that shaped the policy, for the card."""
    of_others = {name for algo, names in OWN.items() if algo != settings.algo for name in names}
    others = MAY_CHANGE | {"env", "select_episodes"} | of_others
    return {name: value for name, value in asdict(settings).items() if name not in others}
