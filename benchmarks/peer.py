"""GAIL of the package `imitation` on our demonstrations, or Stable-Baselines3's PPO on the true reward, in a virtual
environment of its own: the package needs older packages.

    python -m venv peer
    peer/bin/pip install imitation==1.0.1 mujoco==2.3.7 "numpy<2" h5py imageio torch
    peer/bin/python benchmarks/peer.py HalfCheetah-v4 --num-demos 4 --steps 1000000 --seed 0 [--true-reward]

PPO, batch sizes, rates and networks are those of l2l_gail; all else is the package's default. PPO's rate does not fall:
the package calls `learn` once a round, and a schedule would be at its end in each. Writes a run into
docs/results/gail/peer.json, with the return of 20 deterministic episodes and the training return over steps."""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from platform import platform
from typing import Any

import h5py
import numpy as np
import torch

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs" / "results" / "gail" / "peer.json"


def demonstrations(env: str, count: int) -> list[Any]:
    """The first episodes of the set that ships, as the package has them."""
    from imitation.data.types import TrajectoryWithRew

    with h5py.File(ROOT / "expert_data" / "l2l" / f"{env.lower()}-expert-v0" / "data" / "main_data.hdf5") as file:
        parts = [
            {key: file[f"episode_{i}"][key][()] for key in ("observations", "actions", "rewards")} for i in range(count)
        ]
    return [TrajectoryWithRew(p["observations"], p["actions"], None, True, p["rewards"]) for p in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env")
    parser.add_argument("--num-demos", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--n-steps", type=int, default=256)
    parser.add_argument("--disc-updates", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--true-reward", action="store_true", help="PPO on the environment's own reward, no GAIL")
    args = parser.parse_args()
    from imitation.algorithms.adversarial.gail import GAIL
    from imitation.data.wrappers import RolloutInfoWrapper
    from imitation.policies.base import NormalizeFeaturesExtractor
    from imitation.rewards.reward_nets import BasicRewardNet
    from imitation.util.networks import RunningNorm
    from imitation.util.util import make_vec_env
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    generator = np.random.default_rng(args.seed)
    venv = make_vec_env(args.env, rng=generator, n_envs=8, post_wrappers=[lambda env, _: RolloutInfoWrapper(env)])
    normalised = {"features_extractor_class": NormalizeFeaturesExtractor}
    normalised["features_extractor_kwargs"] = {"normalize_class": RunningNorm}
    normalised["log_std_init"] = -1.5
    settings = {"n_steps": args.n_steps, "batch_size": 256, "n_epochs": 10, "learning_rate": 3e-4}
    scaled = VecNormalize(venv, norm_obs=False) if args.true_reward else venv
    learner = PPO("MlpPolicy", scaled, seed=args.seed, device="cpu", policy_kwargs=normalised, **settings)
    episodes = demonstrations(args.env, args.num_demos)
    expert = float(np.mean([episode.rews.sum() for episode in episodes]))
    curve: list[tuple[int, float]] = []

    def note(*_: Any) -> bool:
        if learner.ep_info_buffer and learner.num_timesteps % (8 * args.n_steps) == 0:
            episodes = [episode["r"] for episode in learner.ep_info_buffer]
            curve.append((learner.num_timesteps, float(f"{np.mean(episodes):.5g}")))
        return True

    if args.true_reward:
        begun = time.perf_counter()
        learner.learn(args.steps, callback=note)
    else:
        net = BasicRewardNet(
            venv.observation_space, venv.action_space, hid_sizes=(128, 128), normalize_input_layer=RunningNorm
        )
        trainer = GAIL(
            demonstrations=episodes,
            demo_batch_size=min(512, sum(map(len, episodes))),
            n_disc_updates_per_round=args.disc_updates,
            disc_opt_kwargs={"lr": 3e-4},
            venv=venv,
            gen_algo=learner,
            reward_net=net,
            allow_variable_horizon=True,
        )
        begun = time.perf_counter()
        trainer.train(args.steps, callback=note)
    seconds = time.perf_counter() - begun
    fresh = make_vec_env(args.env, rng=np.random.default_rng(10_000), n_envs=8)
    returns, _ = evaluate_policy(learner, fresh, 20, return_episode_rewards=True)
    shown = np.linspace(0, len(curve) - 1, min(100, len(curve))).round().astype(int)
    result = {
        "return": {"mean": float(np.mean(returns)), "sd": float(np.std(returns, ddof=1)), "n": len(returns)},
        "expert": {"mean": expert, "n": len(episodes)},
        "percent_of_expert": 100 * float(np.mean(returns)) / expert,
        "training_seconds": round(seconds, 1),
    }
    method = "ppo" if args.true_reward else "imitation"
    told = {"env": args.env, "follower": method, "num_demos": args.num_demos, "steps": args.steps}
    told |= {
        "n_steps": args.n_steps,
        "disc_updates": args.disc_updates,
        "seed": args.seed,
        "device": "cpu",
        "threads": 1,
    }
    packages = ("imitation", "stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
    run = {
        "settings": told,
        "versions": {name: version(name) for name in packages},
        "machine": {"platform": platform()},
    }
    run |= {
        "commit": None,
        "result": result,
        "curves": {"rollout/ep_rew_mean": [[curve[place][of] for place in shown] for of in (0, 1)]},
    }
    runs = json.loads(RECORD.read_text())["runs"] if RECORD.exists() else {}
    runs[f"{args.env}_{method}_s{args.seed}" if args.true_reward else f"{args.env}_s{args.seed}"] = run
    RECORD.write_text(json.dumps({"runs": runs}, separators=(",", ":")) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
