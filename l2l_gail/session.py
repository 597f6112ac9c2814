"""One GAIL run from settings to report: folder, logs, checkpoints, progress bar, evaluation."""

import shlex
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from l2l_experiment import board, checkpoint, metrics, settings
from l2l_experiment.errors import Diverged, UserError
from l2l_experiment.interrupt import StopRequest
from l2l_experiment.run import Run, default_folder
from l2l_experiment.settings import Count, Natural, Range, Threads, check
from l2l_gail import alarms, evaluation, report
from l2l_gail.config import GAILConfig, tuned
from l2l_gail.demonstrations import Demonstrations, load_demonstrations
from l2l_gail.environments import Environment, require_named
from l2l_gail.followers import resolve_config, uses_setting
from l2l_gail.followers.pretrained import rule_of
from l2l_gail.gail import GAIL
from l2l_gail.reward_model import RewardModel

KIND = "gail"
MOST_EVALUATED = 5  # episodes, while training
HPARAMS = ("env", "follower", "num_demos", "seed")  # in TensorBoard's HParams table, and the rate of followers with one
HPARAM_METRICS = ("eval/return", "eval/percent_of_expert", "rollout/ep_rew_mean", *board.STABILITY_TAGS)  # there, too
CHARTS = {  # in its Custom Scalars tab
    "return": {"training": ["rollout/ep_rew_mean"], "deterministic policy": ["eval/return"]},
    "stability": {tag.removeprefix("stability/"): [tag] for tag in board.STABILITY_TAGS},
    "discriminator": {
        "accuracy": ["train_disc/acc", "train_disc/heldout_acc"],
        "loss": ["train_disc/loss", "train_disc/heldout_loss"],
        "spread of reward and logits": ["train_reward/std", "train_disc/logit_std"],
    },
    "follower": {
        "learning rate": ["train_follower/rate"],
        "length of a round's update": ["train_follower/update_norm"],
    },
}
GROUPS = {  # of flags in --help, each by its first
    "l2l": "run",
    "env": "environment, seed, device",
    "every": "demonstrations",
    "filter": "leader: PPO or SAC",
    "reward": "reward",
    "disc_form": "discriminator",
    "follower_steps": "follower: l2l and l2l-rate",
}
RESET = "the state of these environments cannot be read back, so they were reset: the run goes on, but not bit for bit"
BAR = {"unit": " steps", "unit_scale": True, "mininterval": 1.0, "smoothing": 0.05}  # steps/s and ETA


@dataclass(frozen=True)
class TrainArgs:
    """Imitate demonstrations with GAIL: PPO or SAC against a discriminator that Adam or a learned rule (L2L) moves.

    Example: l2l-train-gail --env HalfCheetah-v4 --l2l"""

    settings: Annotated[GAILConfig, tyro.conf.arg(name="")] = field(default_factory=GAILConfig)
    l2l: bool = False  # Short for --follower l2l
    demos: str | None = None
    """An .npz file, D4RL's .hdf5, a folder of Minari or `imitation`, or a Minari id; default: the set that ships"""
    num_demos: Count = 4  # Demonstrations to train on, from the first; the others only measure the discriminator
    steps: Natural = 1_000_000  # Environment steps in all; rounded up to whole rounds
    run_dir: Path | None = None  # Folder of the run; by default a new one in runs/
    resume: Path | None = None
    """Continue the run in this folder; may add --steps, --device, --demos, --env, --threads, --eval-every,
    --eval-episodes, --checkpoint-every"""
    checkpoint_every: Count = 20  # Rounds between two checkpoints
    follower_from: Path | None = None
    """Start from a learned rule: a rule.safetensors, a folder of l2l-train-follower, or a run with --l2l"""
    reward_from: Path | None = None  # Train on the reward that this run learned, as it is; no demonstrations needed
    eval_every: Natural = 100_000  # Steps between evaluations of the deterministic policy while training; 0: none
    eval_episodes: Annotated[int, Range(1, 1_000_000)] = 20  # Episodes evaluated at the end; before it at most 5
    threads: Threads = 1  # CPU threads of torch; one is fastest with networks this small

    def __post_init__(self) -> None:
        check(self)
        if self.l2l and self.settings.follower == GAILConfig.follower:
            object.__setattr__(self, "settings", replace(self.settings, follower="l2l"))


def train(args: TrainArgs, resumed: Run | None = None) -> Run:
    """Make a run, or continue `resumed`; train it to its end, evaluate it and write the result into its record."""
    env = Environment(args.settings.env, rescale=args.settings.rescale_actions)
    demonstrations, monitor = find_demonstrations(args, env)
    given = None
    if args.reward_from is not None:  # a resumed run holds it
        holder = args.reward_from if resumed is None or resumed.saved_nothing() else resumed.folder
        given = RewardModel.load(holder, env, device=args.settings.device)
    gail = GAIL(env, demonstrations, config=args.settings, monitor=monitor, reward=given)
    config, run = gail.config, resumed
    if run is None:
        warm_start_follower(gail, args.follower_from)
        folder = args.run_dir or default_folder("runs", f"{config.env}_{config.follower}_s{config.seed}")
        stored = replace(args, settings=config, demos=absolute_path(args.demos))
        run = Run.create(folder, kind=KIND, config=settings.plain(stored))
        gail.set_logger(make_logger(run))
    with run.locked():
        if resumed is not None:
            resume_run(gail, run, args)
        gail.leader.prepare(args.steps)
        print(report.announce(gail, demonstrations, run.folder))
        started = time.monotonic()
        with StopRequest() as stop, tqdm(total=args.steps, initial=min(gail.num_timesteps, args.steps), **BAR) as bar:
            finished = learn(gail, run, args, stop, bar)
        run.update(training_seconds=run.record.get("training_seconds", 0.0) + time.monotonic() - started)
        told = shlex.join(["l2l-train-gail", "--resume", str(run.folder)])
        if not finished:
            gail.leader.algorithm.logger.close()
            if run.saved_nothing():  # stopped while cloning
                print(f"Stopped before anything was saved. Start over with: {told}")
                return run
            run.update(status="interrupted", steps=gail.num_timesteps)
            print(f"Saved at step {gail.num_timesteps:,}. Continue with: {told}")
            return run
        try:
            return finish(gail, run, args, demonstrations)
        except KeyboardInterrupt:
            run.update(status="interrupted", steps=gail.num_timesteps)
            print(f"Trained, but not evaluated. Evaluate it with: {told}")
            raise


def absolute_path(demos: str | None) -> str | None:
    """Demonstrations as named, a path as an absolute one: resuming from another folder must find the same file."""
    return str(Path(demos).resolve()) if demos and Path(demos).exists() else demos


def resume_run(gail: GAIL, run: Run, args: TrainArgs) -> None:
    """Resume a run from its last checkpoint, or start it over if it has none."""
    if (demos := absolute_path(args.demos)) != run.record.get("demos", run.config.get("demos")):
        run.update(demos=demos)
    if run.saved_nothing():
        warm_start_follower(gail, args.follower_from)
        print(f"{run.folder} was stopped before it saved a checkpoint; it starts over")
        gail.set_logger(make_logger(run, after=-1))  # drops what was logged before
        run.log_resume(0, target_steps=args.steps)
        return
    exact = gail.load_state_dict(checkpoint.latest(run.folder))  # first: one that does not fit leaves the logs alone
    done = gail.num_timesteps
    if done >= args.steps + gail.leader.round_size:
        raise UserError(f"{run.folder} has made {done:,} steps already, more than --steps {args.steps:,}")
    gail.set_logger(make_logger(run, after=done))
    run.record.pop("result", None)  # of a finished run that is extended: no longer that of this folder
    if not exact:
        print(f"note: {RESET}")
    exactly = [*run.record.get("resumed_exactly", []), exact]
    run.log_resume(done, every=gail.leader.round_size, target_steps=args.steps, resumed_exactly=exactly)


class _Stopped(Exception):
    """Leaves the leader's loop between two rounds."""


def learn(gail: GAIL, run: Run, args: TrainArgs, stop: StopRequest, bar: tqdm) -> bool:
    """Train to the end, with checkpoints; False if asked to stop before."""
    every, saved, log = args.checkpoint_every * gail.leader.round_size, -1, run.folder / metrics.METRICS
    waiting = gail.leader.algorithm.logger.name_to_value  # of the last round, which is written with the next
    alarm = alarms.Alarm([*(metrics.read(log) if log.is_file() else ()), waiting])
    evaluations = gail.num_timesteps // max(args.eval_every, 1)

    def on_round(gail: GAIL) -> None:
        nonlocal saved, evaluations
        step = gail.num_timesteps
        update_bar(bar, gail)
        alarm(gail.figures)
        if args.eval_every and step // args.eval_every > evaluations and step < args.steps:
            evaluations = step // args.eval_every
            few = min(args.eval_episodes, MOST_EVALUATED)
            found = evaluation.returns(gail.leader.algorithm, gail.env, episodes=few, filter_of=gail.envs)
            log_evaluation(gail, float(found.mean()))
        if step != saved and (step % every == 0 or step >= args.steps or stop.requested):
            for output in gail.leader.algorithm.logger.output_formats:
                if isinstance(output, _MetricsOutput):
                    output.rows.sync()
            gail.save(run.folder)
            saved = step
        if stop.requested and step < args.steps:
            raise _Stopped

    def on_epoch(epoch: int) -> None:
        bar.set_postfix_str(f"behaviour cloning, pass {epoch:,} of {gail.config.bc_epochs:,}", refresh=False)
        bar.update(0)
        if stop.requested:
            raise _Stopped

    done = gail.num_timesteps
    try:
        # False also at step 0: True would reset the environments that a checkpoint has just restored.
        gail.learn(max(args.steps - done, 0), reset_num_timesteps=False, on_round=on_round, on_epoch=on_epoch)
    except _Stopped:
        return False
    except Diverged:
        run.update(status="diverged", steps=gail.num_timesteps)
        raise
    return True


def log_evaluation(gail: GAIL, mean: float) -> None:
    """Log the mean true return of the deterministic policy at the step where the run is."""
    known = gail.demonstrations
    share = None if known is None else evaluation.percent(mean, known.mean_return)
    figures = {"eval/return": mean} | ({} if share is None else {"eval/percent_of_expert": share})
    for output in gail.leader.algorithm.logger.output_formats:  # not with what is waiting to be logged a round later
        output.write(figures, dict.fromkeys(figures, ()), gail.num_timesteps)


def finish(gail: GAIL, run: Run, args: TrainArgs, demonstrations: Demonstrations | None) -> Run:
    """Export the policy, evaluate it, write the result and print the report."""
    gail.leader.algorithm.save(run.folder / "policy.zip")
    was, gail.envs.training = gail.envs.training, False  # frozen, as in evaluation: once loaded, it must not update
    gail.envs.save(str(run.folder / "observation_filter.pkl"))
    gail.envs.training = was
    print(f"Evaluating {args.eval_episodes} deterministic episodes ...", file=sys.stderr)
    result = report.result(gail, demonstrations, run.folder, args.eval_episodes)
    rows = metrics.read(run.folder / metrics.METRICS)
    evaluated = {row["step"] for row in rows if "eval/return" in row}
    if gail.num_timesteps not in evaluated:  # as of a finished run that is resumed
        log_evaluation(gail, result["return"]["mean"])
    gail.leader.algorithm.logger.close()
    run.update(status="finished", steps=gail.num_timesteps, result=result)
    print(report.text(result, run, gail))
    return run


def find_demonstrations(args: TrainArgs, env: Environment) -> tuple[Demonstrations, Demonstrations] | tuple[None, None]:
    """The demonstrations to train on, and the rest of their set; none if the reward is another run's."""
    if args.reward_from is not None and args.demos is None:
        return None, None
    everything = load_demonstrations(args.demos, env)
    if args.num_demos > len(everything):
        raise UserError(f"--num-demos {args.num_demos}: {everything.source} holds {len(everything)} demonstrations")
    return everything.take(args.num_demos), everything.rest(args.num_demos)


def warm_start_follower(gail: GAIL, source: Path | None) -> None:
    """Take over the learned follower of another run, if one is named."""
    if source is None:
        return
    if not hasattr(gail.follower, "warm_start"):
        raise UserError("--follower-from needs a learned follower: add --l2l, or --follower l2l-pretrained")
    gail.follower.warm_start(rule_of(source), str(source))


def stored_args(run: Run, steps: int | None = None, device: str | None = None, *, env: str | None = None) -> TrainArgs:
    """The arguments a run was started with, its steps as last asked for; `steps` may extend and `device` move it. An
    environment's id that names a module is given again as `env`: whoever gives it trusts the module."""
    args = settings.read(TrainArgs, run.config, str(run.folder / "config.yaml"))
    require_named(args.settings.env, env)
    config = args.settings if device is None else replace(args.settings, device=device)
    target = run.record.get("target_steps", args.steps)
    demos = run.record.get("demos", args.demos)  # where they have moved, once somebody has said so
    return replace(args, settings=config, demos=demos, steps=target if steps is None else steps)


class _MetricsOutput(KVWriter):
    """Sends Stable-Baselines3's figures to `metrics.jsonl`."""

    def __init__(self, path: Path, after: int | None) -> None:
        self.rows = metrics.JsonLines(path, after=after)

    def write(self, key_values: dict, key_excluded: dict, step: int = 0) -> None:
        self.rows.write(step, {k: v for k, v in key_values.items() if isinstance(v, int | float | np.number)})

    def close(self) -> None:
        self.rows.close()


class _TensorBoardOutput(TensorBoardOutputFormat):
    """Stable-Baselines3's TensorBoard output, with what a killed run logged after step `after` hidden."""

    def __init__(self, folder: Path, after: int | None) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=None if after is None else after + 1)
        self._is_closed = False


def make_logger(run: Run, *, after: int | None = None) -> Logger:
    """TensorBoard and `metrics.jsonl` in the run's folder; a resumed run's go on `after` a step."""
    tensorboard = _TensorBoardOutput(run.folder, after)
    if after is None or after < 0:
        env, follower = (run.config["settings"][name] for name in ("env", "follower"))
        leader = run.config["settings"]["leader"]
        defaults = TrainArgs(settings=resolve_config(replace(tuned(env, leader), follower=follower)))
        about = {"command": run.record["command"], "settings": run.config, "defaults": settings.plain(defaults)}
        rate = ("disc_learning_rate",) if uses_setting(follower, "disc_learning_rate") else ()
        names = HPARAMS + rate
        board.describe(tensorboard.writer, **about, hparam_names=names, metric_tags=HPARAM_METRICS, charts=CHARTS)
    return Logger(str(run.folder), [tensorboard, _MetricsOutput(run.folder / metrics.METRICS, after)])


def update_bar(bar: tqdm, gail: GAIL) -> None:
    """Bring the progress bar up to date: the true return and the discriminator's accuracy stand behind the steps."""
    bar.update(min(gail.num_timesteps, bar.total) - bar.n)
    episodes = gail.leader.algorithm.ep_info_buffer
    if episodes and "train_disc/acc" in gail.figures:
        mean = np.mean([episode["r"] for episode in episodes])
        bar.set_postfix_str(f"return {mean:.0f}, D accuracy {gail.figures['train_disc/acc']:.0%}", refresh=False)
