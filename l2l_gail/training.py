"""One GAIL run from settings to report: folder, logs, checkpoints, progress bar, evaluation."""

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat
from tqdm import tqdm

from l2l_experiment import checkpoint, events
from l2l_experiment.errors import Diverged, UserError
from l2l_experiment.interrupt import StopRequest
from l2l_experiment.run import Run, default_folder
from l2l_experiment.stability import summarise
from l2l_gail import alarm, cloning, evaluation
from l2l_gail.config import GAILConfig, from_run
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.demonstrations import load as load_demonstrations
from l2l_gail.environments import check, make
from l2l_gail.gail import GAIL, resolve_device
from l2l_gail.notes import notes

KIND = "gail"
RETURN = "rollout/ep_rew_mean"


@dataclass(frozen=True)
class TrainArgs:
    """Imitate demonstrations with GAIL: PPO against a discriminator that Adam or a learned follower (L2L) updates."""

    settings: Annotated[GAILConfig, tyro.conf.arg(name="")] = field(default_factory=GAILConfig)
    l2l: bool = False
    """Short for --follower l2l."""
    demos: str | None = None
    """Demonstrations: a Minari id, a folder in Minari's layout, or an .npz file; by default those in expert_data/."""
    num_demos: int = 4
    """Demonstrations to train on, from the first; the others of the set only measure the discriminator."""
    steps: int = 1_000_000
    """Environment steps in all; rounded up to whole rounds."""
    run_dir: Path | None = None
    """Folder of the run; by default a new one in runs/."""
    resume: Path | None = None
    """Continue the run in this folder from its last checkpoint; only --steps, --device, --demos beside it."""
    checkpoint_every: int = 20
    """Rounds between two checkpoints."""
    follower_from: Path | None = None
    """Start with the learned follower of this run (see also --freeze-follower)."""
    eval_episodes: int = 20
    """Episodes of the evaluation at the end."""
    threads: int = 1
    """CPU threads of torch; with networks this small one is fastest, and two runs can share two cores."""

    def __post_init__(self) -> None:
        if self.l2l and self.settings.follower == "adam":
            object.__setattr__(self, "settings", replace(self.settings, follower="l2l"))
        if self.settings.follower == "adam":
            for name in ("freeze_follower", "score_penalty", "score_smoothing", "follower_anchored"):
                if getattr(self.settings, name) not in (None, False):
                    raise UserError(f"--{name.replace('_', '-')} would change nothing: adam learns no rule; add --l2l")
        if self.settings.follower_anchored and self.settings.follower == "l2l-rate":
            raise UserError("--follower-anchored would change nothing: only --follower l2l looks at weights")
        if self.steps < 0:
            raise UserError(f"--steps must not be negative, got {self.steps}")
        for name in ("num_demos", "checkpoint_every", "eval_episodes", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")


def train(args: TrainArgs, resumed: Run | None = None) -> Run:
    """Make a run, or continue `resumed`; train it to its end, evaluate it and write the result into its record."""
    config = args.settings
    check(config.env)
    resolve_device(config.device)
    demonstrations, monitor = find_demonstrations(args)
    gail = GAIL(config, demonstrations, monitor=monitor)
    if resumed is None:
        if args.follower_from is not None:
            carry_follower(gail, args.follower_from)
        folder = args.run_dir or default_folder("runs", f"{config.env}_{config.follower}_s{config.seed}")
        run = Run.create(folder, kind=KIND, config=plain_args(args))
    else:
        run = resumed
    with run.held():
        if resumed is None or run.saved_nothing():
            if resumed is not None:
                if args.follower_from is not None:
                    carry_follower(gail, args.follower_from)
                run.start_over(target_steps=args.steps)
            gail.set_logger(make_logger(run.folder))
            if config.bc_epochs:
                run.update(bc_loss=cloning.clone(gail, demonstrations, epochs=config.bc_epochs))
        else:
            go_on(gail, run, args)
        say_what_to_expect(gail, demonstrations, run)
        started = time.monotonic()
        with StopRequest() as stop, progress_bar(gail, args.steps) as bar:
            finished = learn(gail, run, args, stop, bar)
        gail.ppo.logger.close()
        run.update(training_seconds=run.record.get("training_seconds", 0.0) + time.monotonic() - started)
        if not finished:
            run.update(status="interrupted", steps=gail.ppo.num_timesteps)
            print(f"Saved at step {gail.ppo.num_timesteps:,}. Continue with --resume {run.folder}")
            return run
        return finish(gail, run, args, demonstrations)


def go_on(gail: GAIL, run: Run, args: TrainArgs) -> None:
    """Take up a run where its last checkpoint left it."""
    gail.restore(*checkpoint.latest(run.folder))  # first: a checkpoint that does not fit leaves the logs alone
    done = gail.ppo.num_timesteps
    if done >= args.steps + gail.config.num_envs * gail.config.round_steps:
        raise UserError(f"{run.folder} has made {done:,} steps already, more than --steps {args.steps:,}")
    events.trim(run.folder, done)
    gail.set_logger(make_logger(run.folder))
    run.record.pop("result", None)  # of a finished run that is extended: no longer that of this folder
    run.resumed(done, target_steps=args.steps)


class _Stopped(Exception):
    """Leaves PPO's loop between two rounds."""


def learn(gail: GAIL, run: Run, args: TrainArgs, stop: StopRequest, bar: tqdm) -> bool:
    """Train to the end, with checkpoints; False if asked to stop before."""
    round_size = gail.config.num_envs * gail.config.round_steps
    saved, watch = -1, alarm.Alarm()

    def on_round(gail: GAIL) -> None:
        nonlocal saved
        step = gail.ppo.num_timesteps
        show(bar, gail)
        watch(gail.figures)
        due = step % (args.checkpoint_every * round_size) == 0 or step >= args.steps or stop.requested
        if due and step != saved:
            gail.save(run.folder)
            saved = step
        if stop.requested and step < args.steps:
            raise _Stopped

    try:
        gail.learn(args.steps, on_round=on_round)
    except _Stopped:
        return False
    except Diverged:
        run.update(status="diverged", steps=gail.ppo.num_timesteps)
        raise
    return True


def finish(gail: GAIL, run: Run, args: TrainArgs, demonstrations: Demonstrations) -> Run:
    """Export the policy, evaluate it, write the result and print the report."""
    gail.ppo.save(run.folder / "policy.zip")
    was, gail.envs.training = gail.envs.training, False  # as it is evaluated: one that is loaded must not go on moving
    gail.envs.save(str(run.folder / "observation_filter.pkl"))
    gail.envs.training = was
    config = gail.config
    print(f"Evaluating {args.eval_episodes} deterministic episodes ...", file=sys.stderr)
    measured = evaluation.returns(gail.ppo, config.env, episodes=args.eval_episodes, filter_of=gail.envs)
    chance = evaluation.random_returns(config.env, episodes=args.eval_episodes)
    result: dict[str, Any] = {
        "return": evaluation.summary(measured),
        "random": evaluation.summary(chance),
        "expert": evaluation.summary(demonstrations.returns),
        "percent_of_expert": percent(measured.mean(), demonstrations.mean_return),
        "evaluation_seed": evaluation.EVALUATION_SEED,
    }
    if config.follower != "adam":
        result["skipped_fits"] = gail.follower.learner.skipped
    metrics = run.folder / events.METRICS
    everything = events.read(metrics) if metrics.is_file() else []
    result |= alarm.since(everything)
    rows = [row for row in everything if RETURN in row]
    if len(rows) > 1:
        result["stability"] = summarise(np.array([r["step"] for r in rows]), np.array([r[RETURN] for r in rows]))
    run.update(status="finished", steps=gail.ppo.num_timesteps, result=result)
    print(report(result, run, config))
    return run


def percent(value: float, expert: float) -> float | None:
    """A return in percent of the expert's; None where that says nothing, for an expert at or below zero or unknown."""
    return float(100 * value / expert) if expert > 0 and np.isfinite(value) else None


def report(result: dict[str, Any], run: Run, config: GAILConfig) -> str:
    """The end of a run in a few lines."""
    lines = [f"\n{config.env}, {config.follower} follower, {run.record['steps']:,} steps, seed {config.seed}", ""]
    for name, label in (("return", "imitator"), ("expert", "demonstrations"), ("random", "random policy")):
        row = result[name]
        if not np.isfinite(row["mean"]):
            lines.append(f"  {label:15} their file holds no rewards, so there is no return to compare with")
            continue
        share = percent(row["mean"], result["expert"]["mean"])
        of_expert = "" if share is None else f"   {share:6.1f} % of expert"
        lines.append(f"  {label:15} {row['mean']:9.1f} ± {row['sd']:7.1f}{of_expert}   n = {row['n']}")
    if skipped := result.get("skipped_fits"):
        lines.append(f"  {skipped} fits of the learned rule were skipped, because its score was no finite number")
    for name, trouble in alarm.TROUBLES.items():
        if (step := result.get(name)) is not None:
            lines.append(f"  ALARM: from step {step:,} on {trouble.to_the_end}")
    if "stability" in result:
        lines += ["", "  stability of the training return:"]
        lines += [f"    {name.replace('_', ' '):22} {value:10.4g}" for name, value in result["stability"].items()]
    lines += [
        "",
        f"  Everything is in {run.folder}: record.json, metrics.jsonl, checkpoints/, policy.zip and",
        "  observation_filter.pkl (they open in plain Stable-Baselines3).",
        f"  Watch it:    python scripts/play.py {run.folder}",
        f"  See curves:  tensorboard --logdir {run.folder.parent}",
    ]
    return "\n".join(lines)


def find_demonstrations(args: TrainArgs) -> tuple[Demonstrations, Demonstrations]:
    """The demonstrations to train on, and the rest of their set."""
    env = make(args.settings.env)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    env.close()
    everything = load_demonstrations(args.demos, args.settings.env, **spaces)
    if args.num_demos > len(everything):
        raise UserError(f"--num-demos {args.num_demos}: {everything.source} holds {len(everything)} demonstrations")
    return everything.take(args.num_demos), everything.rest(args.num_demos)


def carry_follower(gail: GAIL, source: Path) -> None:
    """Take over the learned follower of another run."""
    if gail.config.follower == "adam":
        raise UserError("--follower-from needs a learned follower: add --l2l")
    tensors, meta = checkpoint.latest(Run.open(source, kind=KIND).folder)
    if "rule" not in tensors["follower"]:
        raise UserError(f"{source} was trained with the adam follower; --follower-from needs a run with --l2l")
    anchored = bool(from_run(meta["config"]).follower_anchored)
    gail.follower.carry(tensors["follower"]["rule"], str(source), anchored=anchored)


def plain_args(args: TrainArgs) -> dict[str, Any]:
    """The arguments as nested plain values, for config.yaml."""
    # Resuming from another folder must find the same demonstrations.
    whole = {"demos": str(Path(args.demos).resolve())} if args.demos and Path(args.demos).exists() else {}
    whole |= {} if args.follower_from is None else {"follower_from": args.follower_from.resolve()}
    args = replace(args, settings=args.settings.written_out)
    return {key: value for key, value in (asdict(args) | whole).items() if key not in ("l2l", "resume")}


def stored_args(run: Run, steps: int | None = None, device: str | None = None) -> TrainArgs:
    """The arguments that a run was started with, its steps as last asked for; `steps` may extend it, and `device` move
    it."""
    try:
        values = dict(run.config)
        settings = from_run(values.pop("settings"))
        paths = {name: Path(values.pop(name)) if values.get(name) else None for name in ("run_dir", "follower_from")}
        args = TrainArgs(settings=settings, **{**values, **paths})
    except (KeyError, TypeError) as error:
        raise UserError(f"{run.folder}/config.yaml does not hold the settings of a GAIL run ({error})") from error
    settings = settings if device is None else replace(settings, device=device)
    target = run.record.get("target_steps", args.steps)
    return replace(args, settings=settings, steps=target if steps is None else steps)


class _Rows(KVWriter):
    """Sends Stable-Baselines3's figures to `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.rows = events.JsonLines(path)

    def write(self, key_values: dict, key_excluded: dict, step: int = 0) -> None:
        self.rows.write(step, {k: v for k, v in key_values.items() if isinstance(v, int | float | np.number)})

    def close(self) -> None:
        self.rows.close()


def make_logger(folder: Path) -> Logger:
    """TensorBoard and `metrics.jsonl` in the run's folder."""
    return Logger(str(folder), [TensorBoardOutputFormat(str(folder)), _Rows(folder / events.METRICS)])


def progress_bar(gail: GAIL, total: int) -> tqdm:
    """Steps, steps/s, ETA; `show` adds the true return and the discriminator's accuracy."""
    return tqdm(
        total=total, initial=gail.ppo.num_timesteps, unit=" steps", unit_scale=True, mininterval=1.0, smoothing=0.05
    )


def show(bar: tqdm, gail: GAIL) -> None:
    """Bring the progress bar up to date."""
    bar.update(min(gail.ppo.num_timesteps, bar.total) - bar.n)
    episodes = gail.ppo.ep_info_buffer
    if episodes and "disc/disc_acc" in gail.figures:
        mean = np.mean([episode["r"] for episode in episodes])
        bar.set_postfix_str(f"return {mean:.0f}, D accuracy {gail.figures['disc/disc_acc']:.0%}", refresh=False)


def say_what_to_expect(gail: GAIL, demonstrations: Demonstrations, run: Run) -> None:
    """What is about to happen, and what about the task deserves a word."""
    mean = demonstrations.mean_return
    returns = f"with a mean return of {mean:.0f}" if np.isfinite(mean) else "without rewards"
    print(
        f"{gail.config.env}: {len(demonstrations)} demonstrations {returns} ({demonstrations.source}); "
        f"follower {gail.config.follower}; run folder {run.folder}"
    )
    for note in notes(gail.config):
        print(f"note: {note}")
