"""One adversarial-training run from its arguments to its report: folder, log, checkpoints, probes, export."""

import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import torch
import tyro
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from l2l_at import alarms, datasets, export, grading, parallel, probe, report
from l2l_at.batches import Batch
from l2l_at.config import ATConfig, tuned
from l2l_at.datasets import Task
from l2l_at.trainer import Trainer
from l2l_experiment import board, checkpoint, metrics, provenance, settings
from l2l_experiment.errors import Diverged, UserError
from l2l_experiment.files import plain
from l2l_experiment.interrupt import StopRequest
from l2l_experiment.run import Run, default_folder
from l2l_experiment.settings import Count, Threads
from l2l_experiment.stability import RunningStability

WARM_UP, LONG = 10, 2.0  # steps before a CPU's speed is known; hours that are worth a note
KIND = "at"  # of such a run, in its record
HPARAMS = ("dataset", "method", "eps", "model", "seed")  # in TensorBoard's HParams table
HPARAM_METRICS = ("grade/autoattack", "grade/clean", "robust/pgd10", "robust/clean", *board.STABILITY_TAGS)
CHARTS = {  # in its Custom Scalars tab
    "return": {"held out": ["robust/clean", "robust/pgd10"], "training": ["robust/train_fgsm", "robust/train_pgd10"]},
    "stability": {tag.removeprefix("stability/"): [tag] for tag in board.STABILITY_TAGS},
    "classifier": {"loss": ["train_classifier/loss"], "learning rate": ["train_classifier/learning_rate"]},
    "attacker": {"strength and gain beside PGD-10": ["train_attacker/strength", "train_attacker/gain"]},
}

GROUPS = {  # of flags in --help, each by its first
    "list": "run",
    "dataset": "data, method, classifier, threat model",
    "holdout": "training",
    "attack_steps": "attack in training",
    "regularisation": "methods",
    "attacker": "learned attacker: l2l",
}


@dataclass(frozen=True)
class TrainArgs:
    """Train a classifier to withstand small perturbations of its input, with a learned or a hand-designed attacker.

    Example: l2l-train-at --dataset digits --method l2l --eps 0.2"""

    settings: Annotated[ATConfig, tyro.conf.arg(name="")] = field(default_factory=ATConfig)
    list: bool = False  # Print the methods, a line each, and do nothing else
    data_dir: Path | None = None  # Folder with the official CIFAR files; without it they are fetched into a cache
    run_dir: Path | None = None  # Folder of the run; by default a new one in runs/
    resume: Path | None = None  # Continue the run in this folder; only --device and --data-dir may be added
    attacker_from: Path | None = None  # Start with the learned attacker of this run (see also --freeze-attacker)
    checkpoint_every: Count = 1  # Epochs between two checkpoints
    probe_every: Count = 1  # Epochs between two measurements on held-out and training images
    probe_images: Count = 1000  # Measure on so many held-out images; the best classifier is chosen by them
    stop_on_collapse: bool = False  # End the run when catastrophic overfitting is seen, not only raise the alarm
    grade: Literal["none", "quick", "standard"] | None = None
    """Grade the best classifier at the end; by default quick (digits), none (CIFAR)."""
    grade_images: Count | None = None  # Grade on so many test images only; by default 100 of the digits, all of CIFAR
    threads: Threads = 1  # CPU threads of torch

    def __post_init__(self) -> None:
        settings.check(self)

    @property
    def tier(self) -> str:
        return self.grade or datasets.find(self.settings.dataset).grade


def stored_args(run: Run) -> TrainArgs:
    return settings.read(TrainArgs, run.config, f"{run.folder}/config.yaml")


def warm_start_attacker(trainer: Trainer, source: Path | None) -> None:
    """Take over the learned attacker of another run, if one is named; UserError if it is of another kind."""
    if source is None:
        return
    theirs, own = checkpoint.latest(Run.open(source, kind=KIND).folder)["trainer"], settings.plain(trainer.config)
    for name in ("method", "attacker", "attacker_sees", "gradient_scale"):
        if theirs["settings"].get(name) != own[name]:
            raise UserError(f"--attacker-from {source}: its {settings.flag(name)} is another than this run's")
    trainer.method.follower.warm_start(theirs["follower"], str(source))


def load_task(args: TrainArgs) -> Task:
    c = args.settings
    with parallel.main_process_first():
        return datasets.load(c.dataset, data_dir=args.data_dir, holdout=c.holdout, seed=c.seed, subset=c.subset)


def train(args: TrainArgs, resumed: Run | None = None) -> Run:
    """Make a run, or continue `resumed`; train it to its end, export, grade, and write the result into its record."""
    config = args.settings
    if resumed is not None and resumed.record.get("status") == "finished":  # its grades would be lost
        print(report.of_run(resumed.record["result"], resumed, config))
        print("\n  Finished already; there is nothing left to do.")
        return resumed
    task = load_task(args)
    trainer, run = Trainer(config, task), resumed
    if run is None:
        folder = args.run_dir or default_folder("runs", f"{config.dataset}_{config.method}_s{config.seed}")
        warm_start_attacker(trainer, args.attacker_from)
        run = Run.create(folder, kind=KIND, config=settings.plain(args))
    with run.locked():
        run.update(processes=parallel.world_size())
        session = Session(trainer, task, run, args)
        if resumed is not None:
            if run.saved_nothing():
                warm_start_attacker(trainer, args.attacker_from)
                print(f"{run.folder} was stopped before it saved a checkpoint; it starts over")
            else:
                session.load_state_dict(checkpoint.latest(run.folder))
            run.log_resume(trainer.step_count, every=trainer.batches.per_epoch)
        counts = [f"{len(part):,}" for part in (task.train, task.held_out, task.test)]
        sizes = "{} images to train on, {} to choose by, {} to report".format(*counts)
        what = f"{config.model} on {trainer.device}, method {config.method}, {config.threat}"
        print(f"{config.dataset}: {sizes}; {what}; run folder {run.folder}")
        with StopRequest(launched=parallel.world_size() > 1) as stop:
            finished = session.learn(stop, resuming=resumed is not None)
        parallel.destroy_group()
        told = report.resume_command(config, run.folder)
        if not finished:
            run.update(status="interrupted", steps=trainer.step_count)
            print(f"Saved at step {trainer.step_count:,} of {trainer.total:,}. Continue with: {told}")
            return run
        try:
            return session.finish()
        except KeyboardInterrupt:
            run.update(status="interrupted")
            print(f"Trained, but not graded. Grade it with: {told}")
            raise


def train_worker(args: TrainArgs, resumed: Run | None = None) -> None:
    """Train in every process but rank 0: the same steps on its own shard, for as long as rank 0 goes on."""
    trainer = Trainer(args.settings, load_task(args))
    if resumed is None or resumed.saved_nothing():
        warm_start_attacker(trainer, args.attacker_from)
    else:
        trainer.load_state_dict(checkpoint.latest(resumed.folder)["trainer"])
    with StopRequest(quiet=True, launched=True):  # of what the first process decides
        while parallel.broadcast_bool(True):
            trainer.step()


class Session:
    """A trainer at work in a run's folder: what it logs, measures, saves and exports."""

    def __init__(self, trainer: Trainer, task: Task, run: Run, args: TrainArgs) -> None:
        self.trainer, self.task, self.run, self.args = trainer, task, run, args
        self.held_out = task.held_out.subset(slice(0, args.probe_images)).to(trainer.device)
        rows = torch.arange(min(256, len(task.train)), device=trainer.device)
        self.probe_batch = Batch(*trainer.batches.images.take(rows), rows)
        self.alarm = alarms.CollapseAlarm()
        self.stability = RunningStability(block=1, window=10)  # in probes
        self.best: dict[str, float] = {}
        self.sums: dict[str, tuple[Any, int]] = {}  # of the figures of this epoch's steps, and their number
        self.seconds = 0.0  # of training alone: no probe, no saving
        self.collapsed_at: float | None = None

    def learn(self, stop: StopRequest, *, resuming: bool = False) -> bool:
        """Train to the end; False if asked to stop before. A run that `goes_on` gives up what it logged later."""
        trainer, every, stopped = self.trainer, self.trainer.batches.per_epoch, False
        after, purged = (trainer.step_count, trainer.step_count + 1) if resuming else (None, None)
        with (
            SummaryWriter(str(self.run.folder), purge_step=purged) as writer,
            metrics.JsonLines(self.run.folder / metrics.METRICS, after=after) as rows,
            tqdm(total=trainer.total, initial=trainer.step_count, unit=" steps", mininterval=1.0) as bar,
        ):
            if not resuming:
                defaults = settings.plain(TrainArgs(settings=tuned(self.args.settings.dataset)))
                about = {"command": self.run.record["command"], "settings": self.run.config, "defaults": defaults}
                board.describe(writer, **about, hparam_names=HPARAMS, metric_tags=HPARAM_METRICS, charts=CHARTS)
            started = time.monotonic()
            while parallel.broadcast_bool(trainer.step_count < trainer.total and not (stopped or self.stops_early)):
                for name, value in trainer.step().items():
                    total, count = self.sums.get(name, (0.0, 0))
                    self.sums[name] = (total + torch.as_tensor(value, dtype=torch.float64), count + 1)
                bar.update()
                step = trainer.step_count
                if bar.n - bar.initial == WARM_UP:
                    self.warn(bar, (time.monotonic() - started) / WARM_UP)
                epoch, ending = step // every, step == trainer.total
                if step % every and not stop.requested:
                    continue
                if trainer.device.type == "cuda":
                    torch.cuda.synchronize(trainer.device)
                self.seconds += time.monotonic() - started
                if not trainer.is_finite():
                    self.diverged("a weight of the classifier is NaN or infinite")
                if step % every == 0:
                    figures = {name: float(total) / count for name, (total, count) in self.sums.items()}
                    figures["train_classifier/learning_rate"] = trainer.optimizer.param_groups[0]["lr"]
                    figures[metrics.SECONDS] = self.seconds
                    if epoch % self.args.probe_every == 0 or ending:
                        figures |= self.measure(writer)
                        found = f"clean {figures['robust/clean']:.1%}, PGD-10 {figures['robust/pgd10']:.1%}"
                        bar.set_postfix_str(found, refresh=False)
                    for name, value in figures.items():
                        writer.add_scalar(name, value, step)
                    rows.write(step, figures)
                    self.sums = {}
                    if not math.isfinite(figures["train_classifier/loss"]):
                        self.diverged("the mean loss of an epoch is NaN or infinite")
                if stop.requested or ending or epoch % self.args.checkpoint_every == 0 or self.stops_early:
                    rows.sync()
                    checkpoint.save(self.run.folder, self.state_dict(), step)
                stopped = stop.requested and not ending
                started = time.monotonic()
        if self.stops_early:
            print("stopped: catastrophic overfitting", file=sys.stderr)
        return not stopped

    def warn(self, bar: tqdm, seconds: float) -> None:
        """Say early that a run will take long on a CPU, given the seconds that a step takes."""
        hours = seconds * (bar.total - bar.n) / 3600
        if self.trainer.device.type == "cpu" and hours > LONG:
            bar.write(f"note: {hours:.0f} hours to go on this CPU; use a GPU, or a smaller --model, --subset, --epochs")

    def diverged(self, reason: str) -> NoReturn:
        """End the run before anything of it is measured, exported or saved."""
        self.run.update(status="diverged", steps=self.trainer.step_count)
        raise Diverged(
            f"training in {self.run.folder} diverged before step {self.trainer.step_count:,}: {reason}; "
            "a smaller --learning-rate or --clip-norm 1 may help"
        )

    @property
    def stops_early(self) -> bool:
        """Whether the run ends here because its robustness collapsed."""
        return self.args.stop_on_collapse and self.collapsed_at is not None

    def measure(self, writer: SummaryWriter) -> dict[str, float]:
        """Held-out accuracy, the attacker's strength, the alarm, a picture; keeps the best classifier so far."""
        trainer = self.trainer
        held_out = probe.robust_accuracy(trainer.eval_model, self.held_out, trainer.config.threat)
        figures = {f"robust/{name}": value for name, value in held_out.items()}
        figures |= {f"stability/{name}": value for name, value in self.stability.add([held_out["pgd10"]]).items()}
        figures |= probe.attack_metrics(trainer.model, trainer.method.follower, self.probe_batch)
        collapsed = trainer.method.defends and self.alarm(figures)
        if collapsed and self.collapsed_at is None:
            self.collapsed_at = trainer.epoch
            print(f"\n{alarms.alarm_message(trainer.epoch, figures)}", file=sys.stderr)
        figures["robust/collapsed"] = float(collapsed)
        drawn = probe.example_images(trainer.batch.images, trainer.delta, trainer.config.threat.radius)
        for name, row in drawn.items():
            writer.add_image(f"images/{name}", row, trainer.step_count)
        chosen = {"pgd10": held_out["pgd10"], "clean": held_out["clean"]}
        if not self.best or tuple(chosen.values()) >= (self.best["pgd10"], self.best["clean"]):
            self.best = chosen | {"epoch": trainer.epoch}
            self.save_classifier("best", chosen)
        return figures

    def save_classifier(self, name: str, held_out: dict[str, float]) -> None:
        """Export the classifier as it is into the run's folder `name`."""
        about = {
            "shape": self.task.shape,
            "epoch": self.trainer.epoch,
            "held_out": {"n": len(self.held_out)} | held_out,
            "data": self.task.data.note(self.args.data_dir),
            "versions": provenance.versions(),
        }
        config, classifier = self.trainer.config, self.trainer.eval_model
        export.save(self.run.folder / name, classifier, config, **plain(about, finite=True))

    def finish(self) -> Run:
        """Export the last classifier, write the record, report, and grade if asked to."""
        rows = metrics.read(self.run.folder / metrics.METRICS)
        last = next(row for row in reversed(rows) if "robust/pgd10" in row)
        chosen = {"pgd10": last["robust/pgd10"], "clean": last["robust/clean"]}
        self.save_classifier("last", chosen)
        if not self.best:  # it was lost, and no epoch is left to find another
            self.best = chosen | {"epoch": self.trainer.epoch}
            self.save_classifier("best", chosen)
        result = {
            "best": self.best,
            "last": chosen,
            "strength": last.get("train_attacker/strength"),
            "gain": last.get("train_attacker/gain"),
            "collapsed_at": self.collapsed_at,
            "skipped_fits": self.trainer.method.follower.skipped,
            "training_seconds": self.seconds,
            "seconds_per_epoch": self.seconds / max(self.trainer.epoch, 1e-9),
        }
        self.run.update(steps=self.trainer.step_count, result=result)
        print(report.of_run(result, self.run, self.args.settings))
        if self.args.tier != "none":
            images = self.args.grade_images or self.task.data.grade_images
            where = {"data_dir": self.args.data_dir, "device": self.trainer.device}
            grade = grading.grade_folder(self.run.folder, tier=self.args.tier, images=images, **where)
            self.run.update(result=result | {"grade": grade})
            self.log_grade(grade)
        self.run.update(status="finished")  # last: a run whose grading was cut off is resumed, and then graded
        return self.run

    def log_grade(self, grade: dict[str, Any]) -> None:
        """Log the accuracies of a grade at the step where training ended."""
        found = {
            "clean": grade["clean"],
            **grade["attacks"],
            "autoattack": grade["autoattack"],
            "robust": grade["robust"],
        }
        figures = {f"grade/{name}": value for name, value in found.items()}
        folder = self.run.folder
        if any("grade/clean" in row for row in metrics.read(folder / metrics.METRICS)):
            return  # a run that was stopped before it could say that it is finished
        with SummaryWriter(str(folder)) as writer, metrics.JsonLines(folder / metrics.METRICS) as rows:
            for name, value in figures.items():
                writer.add_scalar(name, value, self.trainer.step_count)
            rows.write(self.trainer.step_count, figures)

    def state_dict(self) -> dict[str, Any]:
        return {
            "trainer": self.trainer.state_dict(),
            "alarm": asdict(self.alarm),
            "stability": self.stability.state_dict(),
            "best": self.best,
            "seconds": self.seconds,
            "collapsed_at": self.collapsed_at,
            "sums": {name: [float(total), count] for name, (total, count) in self.sums.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state["trainer"])
        self.alarm = alarms.CollapseAlarm(**state["alarm"])
        self.stability.load_state_dict(state["stability"])
        self.best, self.seconds, self.collapsed_at = state["best"], state["seconds"], state["collapsed_at"]
        self.sums = {name: (total, count) for name, (total, count) in state["sums"].items()}
        # A classifier exported after this checkpoint is not part of the resumed run: the next probe replaces it.
        card = self.run.folder / "best" / export.CARD
        if not card.is_file() or export.read_card(card.parent).get("epoch") != self.best.get("epoch"):
            self.best = {}
