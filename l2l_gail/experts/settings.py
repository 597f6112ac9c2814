"""Settings of an expert: the command line of scripts/make_expert_data.py, with defaults from experts.yml."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from l2l_experiment.errors import UserError
from l2l_experiment.settings import (
    Count,
    Layers,
    Natural,
    Positive,
    Range,
    Seed,
    Share,
    check,
    load_block,
    reject_unused,
    value_of,
)
from l2l_experiment.settings import parse as parse_flags

ON_POLICY = ("n_steps", "gae_lambda", "log_std_init")
OFF_POLICY = ("buffer_size", "learning_starts", "tau", "gradient_steps")
ALGORITHM_SETTINGS = {  # settings that not every algorithm has
    "ppo": (*ON_POLICY, "n_epochs", "clip_range", "ent_coef", "vf_coef", "max_grad_norm"),
    "trpo": (*ON_POLICY, "target_kl", "cg_max_steps", "cg_damping", "n_critic_updates"),
    "sac": OFF_POLICY,
    "tqc": (*OFF_POLICY, "top_quantiles_to_drop_per_net"),
}

# Settings that may change between a run and its resumption; the others would make it a different run.
MAY_CHANGE = frozenset({"steps", "episodes", "min_return", "out", "run_dir", "resume", "overwrite", "checkpoint_every"})


@dataclass(frozen=True)
class ExpertSettings:
    """Train an expert and record it. Defaults come from l2l_gail/experts.yml, one block per environment."""

    env: str = "HalfCheetah-v4"  # Gymnasium id of the environment
    algo: Literal["ppo", "sac", "tqc", "trpo"] = "ppo"  # tqc and trpo need sb3-contrib
    steps: Count = 1_000_000  # Environment steps of training, rounded up to whole rollouts
    seed: Seed = 0  # Of network, environments and action noise
    episodes: Count = 10  # Episodes to record
    min_return: float | None = None  # An episode that returns less is played but not kept; None keeps all
    out: Path = Path("expert_data")  # Folder of data sets; its README.md is rewritten
    run_dir: Path | None = None  # Checkpoints; None: runs/experts/ENV-ALGO-SEED
    resume: bool = False  # Continue from the checkpoint in run_dir
    overwrite: bool = False  # Replace the data set, and the checkpoint, that are there
    checkpoint_every: Count = 100_000  # Environment steps between checkpoints
    select_episodes: Natural = 0  # Episodes each checkpoint plays; the best is recorded. 0: the last is, unplayed
    n_envs: Annotated[int, Range(1, 4096)] = 8  # Environments stepped together
    n_steps: Annotated[int, Range(2, 1_000_000)] = 256  # ppo, trpo: steps of each environment in a rollout
    batch_size: Annotated[int, Range(2)] = 256  # Of a gradient step (trpo: of the critic's)
    learning_rate: Positive = 3e-4  # Of Adam (trpo: of the critic's)
    linear_decay: bool = True  # Learning rate falls to 0 at the end
    gamma: Share = 0.99  # Discount, of reward and of reward normalisation
    gae_lambda: Share = 0.95  # ppo, trpo: generalised advantage estimation
    net_arch: Layers = (64, 64)  # Hidden layers of policy and of critic
    activation: Literal["tanh", "relu"] = "tanh"  # Between layers
    log_std_init: float = 0.0  # ppo, trpo: initial log standard deviation of actions
    n_epochs: Count = 10  # ppo: passes over a rollout
    clip_range: Positive = 0.2  # ppo: of the probability ratio
    ent_coef: float = 0.0  # ppo: weight of the entropy bonus
    vf_coef: float = 0.5  # ppo: weight of the critic's loss
    max_grad_norm: Positive = 0.5  # ppo: gradient clipping
    target_kl: Positive = 0.01  # trpo: size of the trust region
    cg_max_steps: Count = 25  # trpo: conjugate gradient steps
    cg_damping: float = 0.1  # trpo: added to the Fisher matrix
    n_critic_updates: Count = 20  # trpo: passes of the critic over a rollout
    buffer_size: Count = 1_000_000  # sac, tqc: transitions in the replay buffer; a checkpoint carries it
    learning_starts: Count = 10_000  # sac, tqc: random steps before the first update
    tau: Share = 0.005  # sac, tqc: share of the critic in its target after each update
    gradient_steps: Count = 1  # sac, tqc: updates after each step of all environments
    top_quantiles_to_drop_per_net: Natural = 2  # tqc: of 25 quantiles of each critic

    def __post_init__(self) -> None:
        check(self)
        if not self.net_arch:
            raise UserError("--net-arch needs at least one layer")


def parse(argv: Sequence[str]) -> ExpertSettings:
    """The settings that flags give, over the environment's block in experts.yml, if it has one."""
    env, file = value_of("--env", argv, ExpertSettings.env), resources.files("l2l_gail.experts").joinpath("experts.yml")
    usual = load_block(ExpertSettings, file, env, env=env)
    settings = parse_flags(ExpertSettings, argv, default=usual)
    of_others = frozenset().union(*ALGORITHM_SETTINGS.values()) - {*ALGORITHM_SETTINGS[settings.algo]}
    reject_unused(settings, (usual,), of_others, f"for --algo {settings.algo}")
    return settings
