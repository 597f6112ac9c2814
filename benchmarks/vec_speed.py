"""How fast environments step in this process, in a process each, and in EnvPool: python benchmarks/vec_speed.py

Environment steps per second with random actions, in turns within one process, on all cores."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import tyro
from turns import compare, write

from l2l_gail import Environment
from l2l_gail.config import Vec

ROUND = 128  # steps of each environment in a turn


@dataclass(frozen=True)
class Args:
    """Measure the ways of `--vec` beside each other."""

    env: str = "HalfCheetah-v4"
    """Environment."""
    n_envs: int = 8
    """Environments side by side."""
    repeats: int = 8
    """How often each way has its turn."""
    out: Path | None = None
    """Write the figures into this JSON file."""


def main() -> None:
    """Measure in turns, print ratios with their spread."""
    args = tyro.cli(Args)
    ways = {vec: Environment(args.env).vectorised(args.n_envs, 0, vec) for vec in get_args(Vec)}
    speeds: dict[str, list[float]] = {vec: [] for vec in ways}
    draw, space = np.random.default_rng(0), ways["sync"].action_space
    actions = draw.uniform(-1, 1, (ROUND, args.n_envs, *space.shape)).astype(space.dtype)
    for envs in ways.values():
        envs.reset()
    for turn in range(args.repeats + 1):
        for vec, envs in ways.items():
            start = time.perf_counter()
            for action in actions:
                envs.step(action)
            if turn:  # the first turn warms up
                speeds[vec].append(ROUND * args.n_envs / (time.perf_counter() - start))
    for envs in ways.values():
        envs.close()
    summary = compare(speeds, "sync", "steps_per_second")
    if args.out is not None:
        write(args.out, {"env": args.env, "n_envs": args.n_envs, "steps_per_second": speeds, "summary": summary})


if __name__ == "__main__":
    main()
