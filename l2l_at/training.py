"""One adversarial-training run from settings to report: folder, logs, checkpoints, probes, export."""

import math
import sys
import time
from typing import Any, NoReturn

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from l2l_at import export, parallel, probe
from l2l_at.arguments import KIND, TrainArgs, plain_args
from l2l_at.config import ATConfig
from l2l_at.data import Batch, Task
from l2l_at.data import load as load_data
from l2l_at.trainer import Trainer
from l2l_experiment import checkpoint, events, provenance
from l2l_experiment.errors import Diverged, UserError
from l2l_experiment.interrupt import StopRequest
from l2l_experiment.run import Run, default_folder, plain


def train(args: TrainArgs, resumed: Run | None = None) -> Run:
    """Make a run, or continue `resumed`; train it to its end, export, grade, and write the result into its record."""
    config = args.settings
    if resumed is not None and resumed.record.get("status") == "finished":  # its grades would be lost
        print(report(resumed.record["result"], resumed, config))
        print("\n  Finished already; there is nothing left to do.")
        return resumed
    task = load_task(args)
    trainer = Trainer(config, task)
    if resumed is None:
        folder = args.run_dir or default_folder("runs", f"{config.dataset}_{config.method}_s{config.seed}")
        run = Run.create(folder, kind=KIND, config=plain_args(args))
    else:
        run = resumed
    with run.held():
        run.update(processes=parallel.count())
        session = Session(trainer, task, run, args)
        if resumed is not None and run.saved_nothing():
            run.start_over()
        elif resumed is not None:
            session.restore(*checkpoint.latest(run.folder))  # first: one that does not fit leaves the logs alone
            events.trim(run.folder, trainer.step_count)
            run.resumed(trainer.step_count)
        print(
            f"{config.dataset}: {len(task.train):,} images to train on, {len(task.held_out):,} to choose by, "
            f"{len(task.test):,} to report; {config.model} on {trainer.device}, method {config.method}, "
            f"{config.threat}; run folder {run.folder}"
        )
        with StopRequest(launched=parallel.count() > 1) as stop:
            finished = session.learn(stop)
        parallel.leave()
        if not finished:
            run.update(status="interrupted", steps=trainer.step_count)
            print(f"Saved at step {trainer.step_count:,} of {trainer.total:,}. Continue with --resume {run.folder}")
            return run
        return session.finish()


def load_task(args: TrainArgs) -> Task:
    """The images that the settings name."""
    config = args.settings
    with parallel.first():
        return load_data(
            config.dataset, data_dir=args.data_dir, holdout=config.holdout, seed=config.seed, subset=config.subset
        )


def follow(args: TrainArgs, resumed: Run | None = None) -> None:
    """What every process but the first does: the same steps, on its share, for as long as the first goes on."""
    trainer = Trainer(args.settings, load_task(args))
    if resumed is not None and not resumed.saved_nothing():
        tensors, meta = checkpoint.latest(resumed.folder)
        trainer.restore(tensors, meta["trainer"])
    with StopRequest(quiet=True, launched=True):  # of what the first process decides
        while parallel.of_first(True):
            trainer.step()


class Session:
    """A trainer at work in a run's folder: what it logs, measures, saves and exports."""

    def __init__(self, trainer: Trainer, task: Task, run: Run, args: TrainArgs) -> None:
        self.trainer, self.task, self.run, self.args = trainer, task, run, args
        self.held_out = task.held_out.subset(slice(0, args.probe_images)).to(trainer.device)
        rows = torch.arange(min(256, len(task.train)), device=trainer.device)
        self.fixed = Batch(*trainer.batches.images.take(rows), rows)
        self.alarm = probe.CollapseAlarm()
        self.best: dict[str, float] = {}
        self.sums: dict[str, tuple[Any, int]] = {}  # of the figures of this epoch's steps, and their number
        self.seconds = 0.0  # of training alone: no probe, no saving
        self.collapsed_at: float | None = None

    def learn(self, stop: StopRequest) -> bool:
        """Train to the end; False if asked to stop before."""
        trainer, every, stopped = self.trainer, self.trainer.batches.per_epoch, False
        with (
            SummaryWriter(str(self.run.folder)) as board,
            events.JsonLines(self.run.folder / events.METRICS) as rows,
            tqdm(total=trainer.total, initial=trainer.step_count, unit=" steps", mininterval=1.0) as bar,
        ):
            started = time.monotonic()
            while parallel.of_first(trainer.step_count < trainer.total and not (stopped or self.gives_up)):
                for name, value in trainer.step().items():
                    total, count = self.sums.get(name, (0.0, 0))
                    self.sums[name] = (total + torch.as_tensor(value, dtype=torch.float64), count + 1)
                bar.update()
                step = trainer.step_count
                ending = step == trainer.total
                if step % every and not stop.requested:
                    continue
                if trainer.device.type == "cuda":
                    torch.cuda.synchronize(trainer.device)
                self.seconds += time.monotonic() - started
                if not trainer.is_finite():
                    self.diverged("the classifier's weights are no finite numbers")
                if step % every == 0:
                    figures = {name: float(total) / count for name, (total, count) in self.sums.items()}
                    figures["train/rate"] = trainer.optimizer.param_groups[0]["lr"]
                    figures[events.SECONDS] = self.seconds
                    if (step // every) % self.args.probe_every == 0 or ending:
                        figures |= self.measure(board)
                        bar.set_postfix_str(
                            f"clean {figures['robust/clean']:.1%}, PGD-10 {figures['robust/pgd10']:.1%}", refresh=False
                        )
                    for name, value in figures.items():
                        board.add_scalar(name, value, step)
                    rows.write(step, figures)
                    self.sums = {}
                    if not math.isfinite(figures["train/loss"]):
                        self.diverged("the mean loss of an epoch is not a finite number")
                due = (step // every) % self.args.checkpoint_every == 0
                if stop.requested or ending or due or self.gives_up:
                    checkpoint.save(self.run.folder, *self.state(), step)
                stopped = stop.requested and not ending
                started = time.monotonic()
        if self.gives_up:
            print("stopped: catastrophic overfitting", file=sys.stderr)
        return not stopped

    def diverged(self, reason: str) -> NoReturn:
        """End the run before anything of it is measured, exported or saved."""
        step = self.trainer.step_count
        self.run.update(status="diverged", steps=step)
        raise Diverged(
            f"training in {self.run.folder} diverged before step {step:,}: {reason}; "
            "a smaller --rate or --clip-norm 1 may help"
        )

    @property
    def gives_up(self) -> bool:
        """Whether the run ends here because its robustness collapsed."""
        return self.args.stop_on_collapse and self.collapsed_at is not None

    def measure(self, board: SummaryWriter) -> dict[str, float]:
        """Held-out accuracy, the attacker's strength, the alarm, a picture; keeps the best classifier so far."""
        trainer = self.trainer
        held_out = probe.robust_accuracy(trainer.evaluated, self.held_out, trainer.config.threat)
        figures = {f"robust/{name}": value for name, value in held_out.items()}
        figures |= probe.follower_figures(trainer.model, trainer.method.follower, self.fixed)
        collapsed = trainer.method.defends and self.alarm(figures)
        if collapsed and self.collapsed_at is None:
            self.collapsed_at = trainer.epoch
            print(
                f"\nALARM: catastrophic overfitting at epoch {trainer.epoch:.0f}: on training images the classifier "
                f"withstands one step ({figures['train/fgsm']:.0%}) but not ten ({figures['train/pgd10']:.0%}). "
                "Its robustness is an illusion; try more steps, a smaller radius or another method.",
                file=sys.stderr,
            )
        figures["robust/collapsed"] = float(collapsed)
        assert trainer.batch is not None
        assert trainer.delta is not None
        drawn = probe.picture(trainer.batch.images, trainer.delta, trainer.config.threat.radius)
        board.add_image("images", drawn, trainer.step_count)
        chosen = {"pgd10": held_out["pgd10"], "clean": held_out["clean"]}
        if not self.best or tuple(chosen.values()) >= (self.best["pgd10"], self.best["clean"]):
            self.best = chosen | {"epoch": trainer.epoch}
            self.save_classifier("best", chosen)
        return figures

    def save_classifier(self, name: str, held_out: dict[str, float]) -> None:
        """Export the classifier as it is into the run's folder `name`."""
        config = self.trainer.config
        card = {
            "model": config.model,
            "dataset": config.dataset,
            "classes": self.task.classes,
            "shape": list(self.task.shape),
            "threat": {"norm": config.norm, "radius": config.threat.radius},
            "method": config.method,
            "seed": config.seed,
            "epoch": self.trainer.epoch,
            "held_out": {"n": len(self.held_out)} | held_out,
            "data": data_note(self.task, self.args),
            "versions": provenance.versions(),
        }
        export.save(self.run.folder / name, self.trainer.evaluated, plain(card, finite=True))

    def finish(self) -> Run:
        """Export the last classifier, write the record, report, and grade if asked to."""
        rows = events.read(self.run.folder / events.METRICS)
        last = next(row for row in reversed(rows) if "robust/pgd10" in row)
        chosen = {"pgd10": last["robust/pgd10"], "clean": last["robust/clean"]}
        self.save_classifier("last", chosen)
        if not self.best:  # it was lost, and no epoch is left to find another
            self.best = chosen | {"epoch": self.trainer.epoch}
            self.save_classifier("best", chosen)
        result = {
            "best": self.best,
            "last": {name.split("/")[1]: last[name] for name in ("robust/pgd10", "robust/clean")},
            "strength": last.get("follower/strength"),
            "gain": last.get("follower/gain"),
            "collapsed_at": self.collapsed_at,
            "skipped_fits": self.trainer.method.follower.skipped,
            "training_seconds": self.seconds,
            "seconds_per_epoch": self.seconds / max(self.trainer.epoch, 1e-9),
        }
        self.run.update(steps=self.trainer.step_count, result=result)
        print(report(result, self.run, self.args.settings))
        if self.args.tier != "none":
            from l2l_at.grading import grade_folder  # its packages load slowly, and not every run is graded

            limit = self.args.grade_images or (100 if self.task.name == "digits" else None)
            grade = grade_folder(
                self.run.folder,
                tier=self.args.tier,
                images=limit,
                data_dir=self.args.data_dir,
                device=self.trainer.device,
            )
            self.run.update(result=result | {"grade": grade})
        self.run.update(status="finished")  # last: a run whose grading was cut off is resumed, and then graded
        return self.run

    def state(self) -> tuple[dict, dict]:
        """The trainer's state and what this session remembers."""
        tensors, meta = self.trainer.state()
        session = {
            "best": self.best,
            "seconds": self.seconds,
            "alarm": self.alarm.best,
            "raised": self.alarm.raised,
            "collapsed": self.collapsed_at,
            "sums": {name: [float(total), count] for name, (total, count) in self.sums.items()},
        }
        return tensors, {"trainer": meta, "session": session}

    def restore(self, tensors: dict, meta: dict) -> None:
        """Continue from a `state`."""
        try:
            session, inner = meta["session"], meta["trainer"]
        except KeyError as error:
            raise UserError(f"the checkpoint in {self.run.folder} is none of adversarial training ({error})") from error
        self.trainer.restore(tensors, inner)
        self.best, self.seconds = session["best"], session["seconds"]
        # Checkpoints of earlier versions do not say whether the alarm stands.
        self.alarm = probe.CollapseAlarm(session["alarm"], session.get("raised", False))
        self.collapsed_at = session["collapsed"]
        self.sums = {name: (total, count) for name, (total, count) in session["sums"].items()}
        # A classifier exported after this checkpoint belongs to a future that was given up: the next one replaces it.
        card = self.run.folder / "best" / export.CARD
        if not card.is_file() or export.read_card(card.parent).get("epoch") != self.best.get("epoch"):
            self.best = {}


def data_note(task: Task, args: TrainArgs) -> str:
    """Where the images came from."""
    if task.name == "digits":
        return "scikit-learn's digits"
    return f"{task.name}, " + (f"from {args.data_dir}" if args.data_dir else "the official binary archive")


def report(result: dict[str, Any], run: Run, config: ATConfig) -> str:
    """The end of training in a few lines."""
    best, last = result["best"], result["last"]
    lines = [
        f"\n{config.dataset}, {config.method}, {config.threat}, {run.record['steps']:,} steps, seed {config.seed}",
        "",
        "  on held-out images, by our own PGD-10 (a probe, no grade):",
        f"    best   clean {best['clean']:6.1%}   PGD-10 {best['pgd10']:6.1%}   epoch {best['epoch']:.0f}",
        f"    last   clean {last['clean']:6.1%}   PGD-10 {last['pgd10']:6.1%}",
        f"  training took {result['training_seconds']:.0f} s, {result['seconds_per_epoch']:.2f} s an epoch",
    ]
    if skipped := result.get("skipped_fits"):
        lines.append(f"  {skipped} fits of the attacker were skipped, because its gradient was no finite number")
    if result["collapsed_at"] is not None:
        lines.append(f"  ALARM: catastrophic overfitting was seen at epoch {result['collapsed_at']:.0f}")
    lines += [
        "",
        f"  Everything is in {run.folder}: record.json, metrics.jsonl, checkpoints/, best/ and last/",
        f"  Grade it:    python scripts/grade_at.py {run.folder} --tier standard",
        f"  See curves:  tensorboard --logdir {run.folder.parent}",
    ]
    return "\n".join(lines)
