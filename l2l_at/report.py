"""What is said at the end of a training and of a grading."""

import shlex
import sys
from pathlib import Path
from typing import Any

from l2l_at import methods
from l2l_at.config import ATConfig
from l2l_at.datasets import SHIPPED
from l2l_at.threat import Threat
from l2l_experiment.run import Run


def of_run(result: dict[str, Any], run: Run, config: ATConfig) -> str:
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
        lines.append(f"  {skipped} fits of the attacker were skipped, because its gradient was NaN or infinite")
    if result["collapsed_at"] is not None:
        lines.append(f"  ALARM: catastrophic overfitting was seen at epoch {result['collapsed_at']:.0f}")
    folder, parent = (shlex.quote(str(path)) for path in (run.folder, run.folder.parent))
    lines += [
        "",
        f"  Everything is in {run.folder}: record.json, metrics.jsonl, checkpoints/, best/ and last/",
        f"  Grade it:    {grading(config, folder)}",
        f"  See curves:  tensorboard --logdir {parent}",
    ]
    return "\n".join(lines)


def resume_command(config: ATConfig, folder: Path) -> str:
    """The command that continues a run: of the running program, if it alone knows the data set or the method."""
    own = config.dataset not in SHIPPED or config.method not in methods.SHIPPED
    program = ["python", sys.argv[0]] if own else ["l2l-train-at"]
    return shlex.join([*program, "--resume", str(folder)])


def grading(config: ATConfig, folder: str) -> str:
    """How to grade a run's classifier: a command, unless only the program that trained it knows its data set."""
    if config.dataset not in SHIPPED:
        return f"l2l_at.grade(...) in a program that adds the data set {config.dataset}"
    return f"l2l-grade-at {folder} --tier standard"


def of_grade(record: dict[str, Any], folder: Path) -> str:
    """A grade in a few lines."""
    threat = Threat(record["norm"], record["radius"])
    lines = [
        f"\n  grade of {folder}: {threat}, {record['n']} test images, seed {record['seed']}",
        f"    clean            {record['clean']:6.1%}",
        *(f"    {name:16} {value:6.1%}" for name, value in record["attacks"].items()),
        f"    AutoAttack       {record['autoattack']:6.1%}   ({record['tier']}; over all {record['robust']:.1%})",
        f"    by {', '.join(record['packages'])}",
        *(f"    WARNING: {text}" for text in record["warnings"]),
    ]
    return "\n".join(lines)
