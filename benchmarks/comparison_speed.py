"""How long a comparison of many runs takes: python benchmarks/comparison_speed.py [--runs 100]

Writes runs of 1M steps as `train_gail.py` logs them (one row of 34 figures a round of 2048 steps), half of them as our
folders and half as TensorBoard event files alone, and compares them."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from records import ROOT
from torch.utils.tensorboard import SummaryWriter
from turns import write as write_record

from l2l_experiment import metrics

ROUNDS, ROUND_STEPS, FIGURES = 488, 2048, 33
TAG = "rollout/ep_rew_mean"


@dataclass(frozen=True)
class Args:
    """Time scripts/compare.py on synthetic runs."""

    runs: int = 100
    """How many runs."""
    out: Path | None = None
    """Write the figures into this JSON file."""


def main() -> None:
    """Write runs, compare them, print the seconds."""
    args = tyro.cli(Args)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(args.runs):
            write(Path(folder) / f"{'ab'[index % 2]}_s{index}", index, ours=index % 4 < 2)
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *map(str, sorted(Path(folder).iterdir()))]
        subprocess.run([*command, "--out", str(Path(folder) / "out")], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        content = json.loads((Path(folder) / "out" / "comparison.json").read_text())
        assert sum(row["n"] for row in content["groups"].values()) == args.runs, "some runs were left out"
    print(f"{args.runs} runs of {ROUNDS * ROUND_STEPS:,} steps, half of them event files: {seconds:.1f} s")
    if args.out is not None:
        write_record(args.out, {"runs": args.runs, "seconds": seconds})


def write(folder: Path, seed: int, *, ours: bool) -> None:
    """One run: a noisy curve that rises, and figures beside it."""
    generator = np.random.default_rng(seed)
    values = 6000 * (1 - np.exp(-np.arange(ROUNDS) / 100)) + generator.normal(0, 100, ROUNDS)
    clock = 0.5 * np.arange(ROUNDS)
    rows = [
        {TAG: value, metrics.SECONDS: now} | {f"other/{i}": generator.normal() for i in range(FIGURES)}
        for value, now in zip(values, clock, strict=True)
    ]
    if ours:
        folder.mkdir()
        (folder / "record.json").write_text('{"kind": "gail", "format": 2, "status": "finished"}')
        (folder / "config.yaml").write_text("settings: {}\n")
        with metrics.JsonLines(folder / metrics.METRICS) as lines:
            for index, row in enumerate(rows):
                lines.write(index * ROUND_STEPS, row)
        return
    with SummaryWriter(str(folder)) as board:
        for index, row in enumerate(rows):
            for tag, value in row.items():
                board.add_scalar(tag, value, index * ROUND_STEPS)


if __name__ == "__main__":
    main()
