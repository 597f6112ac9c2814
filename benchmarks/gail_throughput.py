"""What imitation costs beside plain PPO or SAC: python benchmarks/gail_throughput.py [--leader sac]

Environment steps per second of Stable-Baselines3's own algorithm on the true reward, GAIL with Adam and L2L-GAIL, with
the same settings, environments and one thread, in turns within one process. Imitation compiles the policy's updates, as
long runs do. Only ratios mean something beyond this machine."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from turns import compare, write

from l2l_experiment import devices, process
from l2l_gail import GAIL, GAILConfig, load_demonstrations, tuned
from l2l_gail.environments import environment
from l2l_gail.leaders.ppo import make_ppo
from l2l_gail.leaders.sac import make_sac
from l2l_gail.session import TrainArgs

ROUNDS = 4


@dataclass(frozen=True)
class Args:
    """Measure the throughput of PPO or SAC, GAIL and L2L-GAIL side by side."""

    env: str = "HalfCheetah-v4"
    """Environment; its tuned settings are used."""
    leader: Literal["ppo", "sac"] = "ppo"
    """Who trains the policy."""
    repeats: int = 10
    """How often each of the three has its turn of a few rounds."""
    device: str = "cpu"
    """Where the networks live: cpu or cuda."""
    compile: bool = True
    """Compile the policy's updates of imitation."""
    disc_updates: int | None = None
    """Discriminator steps a round, if not the tuned number."""
    disc_hidden: tuple[int, ...] = ()
    """Hidden layers of the discriminator, if not the tuned ones."""
    out: Path | None = None
    """Write the figures into this JSON file."""


def main() -> None:
    """Measure in turns, print ratios with their spread."""
    args = tyro.cli(Args)
    process.configure()
    config = replace(tuned(args.env, args.leader), device=args.device)
    if args.leader == "sac":
        config = replace(config, learning_starts=200)  # within the turn that warms up
    if args.disc_updates is not None:
        config = replace(config, disc_updates=args.disc_updates)
    if args.disc_hidden:
        config = replace(config, disc_hidden=args.disc_hidden)
    runners = {
        args.leader: plain(config),
        "gail": imitation(replace(config, follower="adam", compile=args.compile)),
        "l2l-gail": imitation(replace(config, follower="l2l", compile=args.compile)),
    }
    steps = ROUNDS * config.n_envs * config.n_steps
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(args.repeats + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            run(steps)
            if turn:  # the first turn warms up
                speeds[name].append(steps / (time.perf_counter() - start))
    summary = compare(speeds, args.leader, "steps_per_second")
    if args.out is not None:
        names = ("disc_hidden", "disc_updates", "disc_batch_size")
        found = {
            "device": args.device,
            "compiled": args.compile,
            "settings": {name: getattr(config, name) for name in names},
        }
        write(args.out, found | {"steps_a_turn": steps, "steps_per_second": speeds, "summary": summary})


def plain(config: GAILConfig) -> Any:
    """Stable-Baselines3's algorithm on the true reward, as a function that makes so many steps."""
    env = environment(config.env)
    envs = VecNormalize(DummyVecEnv([lambda: Monitor(env.make())] * config.n_envs), norm_reward=False)
    make = {"ppo": make_ppo, "sac": make_sac}[config.leader]
    config = replace(config, compile=False, critic_layer_norm=False)  # as Stable-Baselines3 has it
    algorithm = make(config, envs, devices.resolve(config.device, auto="cpu"))
    return lambda steps: algorithm.learn(steps, reset_num_timesteps=algorithm.num_timesteps == 0)


def imitation(config: GAILConfig) -> Any:
    """GAIL with a configuration's follower, as a function that makes so many steps."""
    demonstrations = load_demonstrations(None, config.env, num_demos=TrainArgs.num_demos)
    gail = GAIL(config.env, demonstrations, config=config)
    return lambda steps: gail.learn(steps, reset_num_timesteps=gail.leader.algorithm.num_timesteps == 0)


if __name__ == "__main__":
    main()
