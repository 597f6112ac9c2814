"""How training grows with the demonstrations and with runs side by side: python benchmarks/scale.py

Random demonstrations of HalfCheetah-v4. Each training is a process of its own with one thread, and compiles nothing:
its peak memory, and environment steps per second after the first round."""

import multiprocessing
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from turns import compare, write

from l2l_gail import GAIL, Demonstrations, Episode, GAILConfig

LENGTH = 1000  # of an episode


@dataclass(frozen=True)
class Args:
    """Measure trainings of more and more demonstrations, then more and more trainings at once."""

    transitions: tuple[int, ...] = (10_000, 1_000_000, 10_000_000)
    """Numbers of transitions in the demonstrations."""
    runs: tuple[int, ...] = tuple(range(2, (os.cpu_count() or 1) + 1))
    """Numbers of trainings side by side."""
    follower: str = "l2l"
    """Who updates the discriminator."""
    rounds: int = 10
    """Rounds of a training."""
    repeats: int = 8
    """How often each has its turn."""
    out: Path | None = None
    """Write the speeds into this JSON file, and the memory beside it."""


def training(job: tuple[int, str, int]) -> dict[str, float]:
    """Train for some rounds on so many transitions: its peak memory in MB, and environment steps a second."""
    transitions, follower, rounds = job
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    episodes = []
    for _ in range(transitions // LENGTH):
        actions = draw.uniform(-1, 1, (LENGTH, 6)).astype(np.float32)
        seen = draw.standard_normal((LENGTH + 1, 17), dtype=np.float32)
        episodes.append(Episode(seen, actions, np.ones(LENGTH), terminated=False, truncated=True))
    demonstrations = Demonstrations(env_id=None, source="random", episodes=episodes)
    gail = GAIL("HalfCheetah-v4", demonstrations, config=GAILConfig(follower=follower, compile=False))
    size = gail.config.n_envs * gail.config.n_steps
    gail.learn(size)
    start = time.perf_counter()
    gail.learn(rounds * size, reset_num_timesteps=False)
    seconds = (time.perf_counter() - start) / rounds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"megabytes": peak, "speed": size / seconds}


def side_by_side(number: int, job: tuple[int, str, int]) -> list[dict[str, float]]:
    """So many trainings at once."""
    with multiprocessing.get_context("spawn").Pool(number) as pool:
        return pool.map(training, [job] * number, chunksize=1)


def main() -> None:
    """Measure in turns, print ratios with their spread."""
    args = tyro.cli(Args)
    speeds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(args.repeats):
        for transitions in args.transitions:
            (found,) = side_by_side(1, (transitions, args.follower, args.rounds))
            speeds.setdefault(f"{transitions} transitions", []).append(found["speed"])
            memory.setdefault(f"{transitions} transitions", []).append(found["megabytes"])
        for number in args.runs:
            each = side_by_side(number, (args.transitions[0], args.follower, args.rounds))
            speeds.setdefault(f"{number} at once", []).append(sum(one["speed"] for one in each))
    told = {"steps_per_second": speeds, "summary": compare(speeds, next(iter(speeds)), "steps_per_second")}
    peaks = {"megabytes": memory, "summary": compare(memory, next(iter(memory)), "megabytes")}
    if args.out is not None:
        write(args.out, told)
        write(args.out.with_stem(f"{args.out.stem}_memory"), peaks)


if __name__ == "__main__":
    main()
