"""What a training step of each method costs beside PGD-10: python benchmarks/at_cost.py [--dataset digits]

All methods train the same classifier in turns within one process; a turn is a few steps of each. On the CPU the
process's own time is measured, on CUDA the clock, and the multiplications and additions of a step beside what the
device does at best in a matrix product. Only the ratios mean something beyond this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from records import ROOT, trained_by
from torch.utils.flop_counter import FlopCounterMode
from turns import compare, write

from l2l_at import datasets, methods
from l2l_at.cli import parse
from l2l_at.config import ATConfig, tuned
from l2l_at.methods import METHODS
from l2l_at.trainer import Trainer
from l2l_experiment import process
from l2l_experiment.errors import exit_on_user_error
from l2l_experiment.settings import plain
from l2l_experiment.sweep_files import boolean_flags, expand, read


@dataclass(frozen=True)
class Args:
    """Measure the cost of a training step of every method."""

    dataset: str = "digits"
    """Data set; its tuned settings are used."""
    methods: tuple[str, ...] = ()
    """Methods and forms of them in benchmarks/at.yml (`zoo`, `frozen`), by default all; pgd is always among them."""
    model: str | None = None
    """Classifier, if not the tuned one."""
    attacker: str | None = None
    """Network of the published L2L methods, if not the tuned one."""
    batch_size: tuple[int, ...] = ()
    """Images in a step, if not the tuned number; of several, epochs are compared."""
    repeats: int = 10
    """How often each method has its turn."""
    steps: int = 8
    """Training steps in a turn."""
    data_dir: Path | None = None
    """Folder with the official CIFAR files."""
    device: str = "auto"
    """auto, cpu or cuda."""
    compile: bool = False
    """Compile the classifier."""
    out: Path | None = None
    """Write the figures into this JSON file."""


@exit_on_user_error
def main() -> None:
    """Measure in turns, print ratios with their spread."""
    args = tyro.cli(Args)
    process.configure()
    config = replace(tuned(args.dataset), device=args.device, compile=args.compile)
    config = replace(config, model=args.model or config.model, batch_size=(*args.batch_size, config.batch_size)[0])
    task = datasets.load(config.dataset, data_dir=args.data_dir)
    known = forms()
    names = dict.fromkeys(("pgd", *(args.methods or (*METHODS, *known))))
    configs = {name: variant(config, known.get(name, {"method": name}), args.attacker) for name in names}
    if args.compile:  # what differentiates a gradient cannot be compiled
        configs = {name: c for name, c in configs.items() if not methods.make(c, task.shape[0]).double_backward}
    if len(args.batch_size) > 1:
        sized = [
            (f"{name}, {size}", replace(c, batch_size=size)) for name, c in configs.items() for size in args.batch_size
        ]
        configs = dict(sized)
    trainers = {name: Trainer(config, task) for name, config in configs.items()}
    base = next(iter(trainers))
    device = trainers[base].device
    clock = cuda_clock if device.type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(args.repeats + 1):
        for name, trainer in trainers.items():
            taken = timed(trainer, args.steps, clock)
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    batches = {name: len(task.train) // config.batch_size for name, config in configs.items()}
    if len(args.batch_size) > 1:
        epochs = {name: [value * batches[name] for value in values] for name, values in seconds.items()}
        work = {"seconds_an_epoch": epochs, "summary": compare(epochs, base, "seconds")}
    else:
        milliseconds = {name: [1000 * value for value in values] for name, values in seconds.items()}
        work = {"batches_per_epoch": batches[base], "seconds_a_step": seconds}
        work["summary"] = compare(milliseconds, base, "milliseconds")
    if device.type == "cuda":  # where a step's work is compared with what the device could do
        del trainers
        work["matrix_rate"] = matrix_rate(device)
        work["operations_a_step"] = {name: operations(config, task) for name, config in configs.items()}
    settings = {name: getattr(config, name) for name in ("dataset", "model", "batch_size", "compile")}
    settings["attacker"] = args.attacker or config.attacker
    if args.out is not None:
        write(args.out, {"device": str(device), "settings": settings, **work})


def forms() -> dict[str, dict[str, Any]]:
    """Settings that forms of the methods change, by their names in the tables: the variants of benchmarks/at.yml."""
    _, experiments = read(str(ROOT / "benchmarks" / "at.yml"), ["--seed", "0"])
    usual, found = plain(parse([]).settings), {}
    switches = boolean_flags("at")
    for flags in (flags for name in ("frozen", "zoo") for flags in expand(experiments[name], switches).values()):
        settings = plain(parse(flags).settings)
        changed = {name: value for name, value in settings.items() if value != usual[name]}
        found[trained_by(settings)] = {"method": settings["method"]} | changed
    apart = {name: {n: v for n, v in some.items() if n not in ("eps", "seed")} for name, some in found.items()}
    return {name: some for name, some in apart.items() if name not in METHODS}


def variant(config: ATConfig, changes: dict[str, Any], attacker: str | None = None) -> ATConfig:
    """The settings of a method or a form of it; `attacker` is for those that have a choice of networks."""
    changes = dict(changes)
    if attacker and "attacker" in METHODS[changes["method"]].takes:
        changes["attacker"] = attacker
    # Weights are perturbed from the start, for what is measured are the first steps.
    return replace(config, **changes, **({"awp_from": 0.0} if changes.get("awp") else {}))


def timed(trainer: Trainer, steps: int, clock: Callable[[], float]) -> float:
    """Seconds of a training step, the mean over a turn."""
    start = clock()
    for _ in range(steps):
        if trainer.step_count >= trainer.total:  # the schedule ends there; the cost of a step does not depend on it
            trainer.schedule.last_epoch = trainer.step_count = 0
        trainer.step()
    return (clock() - start) / steps


def operations(config: ATConfig, task: datasets.Task) -> float:
    """Multiplications and additions of convolutions and matrix products in a training step, the mean over four.

    Four, for that is how often the residual attacker learns; counted without compilation, which hides them."""
    trainer = Trainer(replace(config, compile=False), task)
    with FlopCounterMode(display=False) as counter:
        for _ in range(4):
            trainer.step()
    return counter.get_total_flops() / 4


def matrix_rate(device: torch.device, size: int = 8192) -> float:
    """Operations a second of a bfloat16 matrix product of random numbers, the best of ten."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(12):
        start = cuda_clock()
        left @ right
        seconds.append(cuda_clock() - start)
    return 2 * size**3 / min(seconds[2:])


def cuda_clock() -> float:
    """The clock, once the device has caught up."""
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
