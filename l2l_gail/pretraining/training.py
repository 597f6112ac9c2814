"""Trains a follower's rule over many inner runs; resumable."""

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from tqdm import tqdm

from l2l_experiment import checkpoint, metrics, settings
from l2l_experiment.errors import UserError
from l2l_experiment.interrupt import StopRequest
from l2l_experiment.run import Run
from l2l_experiment.settings import Count, Natural, NotNegative, Positive, Range, Seed, Threads, check
from l2l_gail.config import GAILConfig, tuned
from l2l_gail.demonstrations import load_demonstrations
from l2l_gail.environments import Environment
from l2l_gail.followers import resolve_config
from l2l_gail.followers.pretrained import RULE, save_rule
from l2l_gail.pretraining.inner import InnerRun, Score, Stopped, record

KIND = "gail-follower"
RECORDED = 4  # demonstrations of the run that is recorded
CHECKED = 1_000_000  # seed of the inner runs on which a rule is checked


@dataclass(frozen=True)
class PretrainArgs:
    """Train the rule of the L2L follower before it is used: on rollouts that are recorded once and replayed many times.

    Example: l2l-train-follower --out runs/follower --envs HalfCheetah-v4 Hopper-v4; then
    l2l-train-gail --env Ant-v4 --follower l2l-pretrained --follower-from runs/follower"""

    out: Path = Path("runs/follower")  # Folder of the rule
    envs: tuple[str, ...] = ("HalfCheetah-v4", "Hopper-v4")  # Source tasks, whose shipped demonstrations are imitated
    check_env: str = "Walker2d-v4"  # A task on which the rule is only checked
    steps: Count = 300_000  # Environment steps of the run that is recorded in each task
    inner_runs: Count = 60  # How often a new discriminator is trained on a recording, to train the rule
    rates: tuple[Positive, ...] = (1e-4, 3e-4, 1e-3)  # Learning rates that inner runs start from, drawn anew for each
    num_demos: tuple[Count, ...] = (1, 4)  # Numbers of demonstrations, drawn likewise
    hidden: tuple[Count, ...] = (64, 128)  # Widths of the discriminator's two layers, drawn likewise
    score: Score = "held-out"
    """What the rule is fitted on: the held-out objective, or how the reward ranks earlier and later policies"""
    disc_updates: Count = 10  # Discriminator steps a round
    follower_steps: Count = 5  # Steps between two fits of the rule (K); must divide --disc-updates
    follower_learning_rate: NotNegative = 1e-3  # Learning rate of the rule's network
    check_every: Natural = 10  # Inner runs between two checks; 0: none
    seed: Seed = 0  # Of recordings and inner runs
    resume: bool = False  # Go on with the rule in --out, as it was started; may add --inner-runs, --threads, --rollouts
    threads: Threads = 1  # CPU threads of torch
    rounds: Annotated[int, Range(2)] | None = None
    """How many recorded rollouts an inner run takes, spread evenly; all if not given"""
    rollouts: Path | None = None
    """Folder of the recorded rollouts, which several rules may share; default: OUT/rollouts"""

    def __post_init__(self) -> None:
        check(self)
        if not (self.envs and self.rates and self.num_demos and self.hidden):
            raise UserError("--envs, --rates, --num-demos and --hidden need at least one value each")
        if self.check_every and self.check_env in self.envs:
            raise UserError(f"--check-env {self.check_env} is one of --envs: name a task that the rule has not seen")


def pretrain(args: PretrainArgs) -> Run:
    """Record what is not recorded yet, train the rule and save it, one inner run after the other."""
    checked = [args.check_env] if args.check_every else []
    for env in (*args.envs, *checked):  # mistakes show before hours of work
        follower_config(args, env, rate=args.rates[0], width=args.hidden[0], seed=0)
        load_demonstrations(None, Environment(env)).take(max(RECORDED, *args.num_demos))
    run = Run.open(args.out, kind=KIND) if args.resume else Run.create(args.out, kind=KIND, config=settings.plain(args))
    with run.locked():
        tree: dict[str, Any] = checkpoint.latest(run.folder) if checkpoint.exists(run.folder) else {"inner_runs": 0}
        log = metrics.JsonLines(run.folder / metrics.METRICS, after=tree["inner_runs"])
        bar = tqdm(total=args.inner_runs, initial=tree["inner_runs"], unit=" runs")
        with StopRequest() as request, log, bar, contextlib.suppress(Stopped):
            work = _RuleTrainer(args, run, log, lambda: request.requested)
            if args.check_every and tree["inner_runs"] == 0:
                work.check(tree)
            while tree["inner_runs"] < args.inner_runs and not request.requested:
                tree = work.train(tree)
                if args.check_every and tree["inner_runs"] % args.check_every == 0:
                    bar.set_postfix(work.check(tree))
                checkpoint.save(run.folder, tree, tree["inner_runs"])
                bar.update()
    status = "finished" if tree["inner_runs"] >= args.inner_runs else "interrupted"
    run.update(status=status, inner_runs=tree["inner_runs"])
    return run


def stored_args(args: PretrainArgs, given: set[str]) -> PretrainArgs:
    """The settings that the rule in `args.out` was started with, and of `args` those that may change."""
    stored = settings.read(PretrainArgs, Run.open(args.out, kind=KIND).config, str(args.out))
    may = {"--inner-runs": "inner_runs", "--threads": "threads", "--rollouts": "rollouts"}
    changes = {name: getattr(args, name) for flag, name in may.items() if flag in given}
    return replace(stored, out=args.out, resume=True, **changes)


def follower_config(args: PretrainArgs, env: str, *, rate: float, width: int, seed: int) -> GAILConfig:
    """The settings of an inner run. The log rate is not learned, because the rule is later used frozen."""
    own = {"disc_updates": args.disc_updates, "follower_steps": args.follower_steps, "seed": seed}
    learned = {"follower": "l2l", "follower_learning_rate": args.follower_learning_rate, "log_rate_learning_rate": 0.0}
    network = {"disc_learning_rate": rate, "disc_hidden": (width, width)}
    return resolve_config(replace(tuned(env), leader="ppo", compile=False, **own, **learned, **network))


def median_rate(args: PretrainArgs) -> float:
    """The rate that a rule is checked and used at: the middle one of those that inner runs start from."""
    return sorted(args.rates)[len(args.rates) // 2]


@dataclass(frozen=True)
class _RuleTrainer:
    """What training and checks have in common."""

    args: PretrainArgs
    run: Run
    log: metrics.JsonLines
    stop: Callable[[], bool]

    def inner(self, env: str, config: GAILConfig, demos: int, *, score: Score) -> InnerRun:
        """An inner run of `env` with these settings; its rollouts are recorded first, if need be."""
        args, everything = self.args, load_demonstrations(None, Environment(env))
        usual = replace(tuned(env), seed=args.seed)
        folder = (self.run.folder / "rollouts" if args.rollouts is None else args.rollouts) / env
        rollouts = record(env, everything.take(RECORDED), usual, folder, steps=args.steps, stop=self.stop)
        return InnerRun(rollouts, env, everything.take(demos), config, score=score, most=args.rounds)

    def train(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Train the rule on one inner run more; what is drawn for it follows from the seed and its number."""
        args, number = self.args, tree["inner_runs"]
        draw = np.random.default_rng((args.seed, number))
        env, rate, demos, width = (
            draw.choice(of).item() for of in (args.envs, args.rates, args.num_demos, args.hidden)
        )
        torch.manual_seed(number)
        config = follower_config(args, env, rate=rate, width=width, seed=args.seed + 1 + number)
        inner = self.inner(env, config, demos, score=args.score)
        if "follower" in tree:
            inner.follower.learner.load_state_dict(tree["follower"]["learner"])
        found = inner.run()
        self.log.write(number + 1, {f"inner/{name}": value for name, value in found.items()} | {"inner/rate": rate})
        kept = copy.deepcopy(inner.follower.learner.state_dict())
        inner.follower.rule.rate = median_rate(args)
        about = {
            name: value for name, value in settings.plain(args).items() if name not in ("out", "rollouts", "threads")
        }
        about |= {"inner_runs": number + 1, "versions": self.run.record["versions"]}
        save_rule(self.run.folder / RULE, inner.follower.rule, about)
        return {"inner_runs": number + 1, "follower": {"learner": kept, "anchored": inner.follower.rule.anchored}}

    def check(self, tree: dict[str, Any]) -> dict[str, float]:
        """Metrics of the frozen rule in an inner run of an unseen task; before any training the rule is Adam."""
        env, rate = self.args.check_env, median_rate(self.args)
        torch.manual_seed(CHECKED)
        config = replace(follower_config(self.args, env, rate=rate, width=128, seed=CHECKED), freeze_follower=True)
        inner = self.inner(env, config, 4, score="held-out")
        if "follower" in tree:
            inner.follower.rule.load_state_dict(tree["follower"]["learner"]["rule"])
        found = inner.run()
        self.log.write(tree["inner_runs"], {f"check/{name}": value for name, value in found.items()})
        return found
