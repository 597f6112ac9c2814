"""What a training step of each method costs beside PGD-10: python benchmarks/at_cost.py [--dataset digits]

All methods train the same classifier in turns within one process; a turn is a few steps of each. On the CPU the
process's own time is measured, on CUDA the clock, and the multiplications and additions of a step beside what the
device does at best in a matrix product. Only the ratios mean something beyond this machine.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from at_variants import VARIANTS
from torch.utils.flop_counter import FlopCounterMode
from turns import compare

from l2l_at import methods
from l2l_at.config import ATConfig, tuned
from l2l_at.data import Dataset, Task
from l2l_at.data import load as load_data
from l2l_at.methods import METHODS
from l2l_at.trainer import Trainer
from l2l_experiment import provenance
from l2l_experiment.errors import exit_on_user_error


@dataclass(frozen=True)
class Args:
    """Measure the cost of a training step of every method."""

    dataset: Dataset = "digits"
    """Data set; its tuned settings are used."""
    methods: tuple[str, ...] = (*METHODS, *VARIANTS)
    """Methods and variants (benchmarks/at_variants.py) to measure; pgd is always among them."""
    model: str | None = None
    """Classifier, if not the tuned one."""
    attacker: str | None = None
    """Network of the published L2L methods, if not the tuned one."""
    batch_size: int | None = None
    """Images in a step, if not the tuned number."""
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
    torch.set_num_threads(1)
    changes = {name: getattr(args, name) for name in ("model", "batch_size") if getattr(args, name)}
    config = replace(tuned(args.dataset), device=args.device, compile=args.compile, **changes)
    task = load_data(config.dataset, data_dir=args.data_dir)
    names = list(dict.fromkeys(("pgd", *args.methods)))
    configs = {name: variant(config, name, args.attacker) for name in names}
    if args.compile:  # what differentiates a gradient cannot be compiled
        configs = {name: c for name, c in configs.items() if not methods.make(c, task.shape[0]).differentiates}
    trainers = {name: Trainer(config, task) for name, config in configs.items()}
    clock = cuda_clock if trainers["pgd"].device.type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(args.repeats + 1):
        for name, trainer in trainers.items():
            taken = timed(trainer, args.steps, clock)
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    milliseconds = {name: [1000 * value for value in values] for name, values in seconds.items()}
    summary = compare(milliseconds, "pgd", "milliseconds")
    device = trainers["pgd"].device
    work = {}
    if device.type == "cuda":  # where a step's work is compared with what the device could do
        del trainers
        work["matrix_rate"] = matrix_rate(device)
        work["operations_a_step"] = {name: operations(config, task) for name, config in configs.items()}
        for name, count in work["operations_a_step"].items():
            rate = 1000 * count / summary[name]["milliseconds"]
            print(f"{name:12}{rate / 1e12:8.1f} TFLOP/s, {rate / work['matrix_rate']:.1%} of a matrix product's")
    if args.out is not None:
        record = {
            "command": provenance.command_line(),
            "git": provenance.git_state(),
            "machine": provenance.machine(),
            "versions": provenance.versions(),
            "device": str(device),
            "settings": {name: getattr(config, name) for name in ("dataset", "model", "batch_size", "compile")}
            | {"attacker": args.attacker or config.attacker},
            "batches_per_epoch": len(task.train) // config.batch_size,
            "seconds_a_step": seconds,
            "summary": summary,
        } | work
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")


def variant(config: ATConfig, name: str, attacker: str | None = None) -> ATConfig:
    """The settings of a method or variant; `attacker` is for those that have a choice of networks."""
    changes = dict(VARIANTS.get(name, {"method": name}))
    if attacker and "attacker" in METHODS[changes.get("method", config.method)].takes:
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


def operations(config: ATConfig, task: Task) -> float:
    """Multiplications and additions of convolutions and matrix products in a training step, the mean over four.

    Four, for that is how often the residual attacker learns; counted without compilation, which hides them.
    """
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
