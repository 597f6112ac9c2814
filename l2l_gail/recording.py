"""Records demonstrations: plays a policy, keeps the episodes a stated rule allows, and writes them to files."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from gymnasium.envs.registration import EnvSpec

from l2l_experiment.errors import UserError
from l2l_gail import environments
from l2l_gail.demonstrations import Demonstrations, Episode

# The version of Minari's standard that `save_minari` follows. It is written into the file, where Minari checks it.
MINARI_VERSION = "0.5.4"


@dataclass(frozen=True)
class Played:
    """Episodes that were kept, the reset seed of each, and the returns of those that were not."""

    episodes: list[Episode]
    seeds: list[int]
    dropped: list[float]


def play(
    env: gymnasium.Env[np.ndarray, np.ndarray],
    policy: Callable[[np.ndarray], np.ndarray],
    *,
    episodes: int,
    first_seed: int,
    min_return: float | None = None,
    on_episode: Callable[[float, bool], None] | None = None,
) -> Played:
    """Plays episodes reset with first_seed, first_seed+1, … until `episodes` of them return at least `min_return`.

    `policy` maps an observation (O,) to an action (A,) within bounds. A `UserError` as soon as more than half of the
    episodes would have to be dropped: what remained would say more about the rule than about the policy.
    """
    kept, seeds, dropped = [], [], []
    for seed in count(first_seed):
        if len(kept) == episodes:
            return Played(kept, seeds, dropped)
        episode = _play_one(env, policy, seed)
        total = float(episode.rewards.sum())
        good = min_return is None or total >= min_return
        if good:
            kept.append(episode)
            seeds.append(seed)
        else:
            dropped.append(total)
        if on_episode is not None:
            on_episode(total, good)
        if len(dropped) > episodes:
            raise UserError(
                f"{len(dropped)} of {len(kept) + len(dropped)} episodes returned less than {min_return:g} (mean "
                f"{np.mean(dropped):.0f}), more than half of those needed; train longer or lower --min-return"
            )
    raise AssertionError("unreachable")


def plain_spec(spec: EnvSpec) -> EnvSpec:
    """The spec with a class that it was registered with as text, `module:Class`: JSON has no classes."""
    entry = spec.entry_point
    if callable(entry):
        entry = f"{entry.__module__}:{entry.__qualname__}"
    return dataclasses.replace(spec, entry_point=entry)


def save_minari(
    root: str | Path,
    dataset_id: str,
    demonstrations: Demonstrations,
    *,
    seeds: Sequence[int] | None = None,
    algorithm: str = "",
    description: str = "",
    requirements: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Writes a data set in Minari's HDF5 layout under `root` and returns its folder.

    Minari opens it by its id where MINARI_DATASETS_PATH is `root`. Arrays are compressed (shuffle and gzip, lossless).
    The folder appears only when it is complete; a folder already there is a `UserError` unless `overwrite`.
    """
    from minari.serialization import serialize_space

    if demonstrations.env_id is None:
        raise ValueError("a Minari data set names its environment: set Demonstrations.env_id")
    folder = Path(root) / dataset_id
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} is there already; name another folder with --out or replace it with --overwrite")
    env = environments.make(demonstrations.env_id)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "data").mkdir(parents=True)
    file = fresh / "data" / "main_data.hdf5"
    with h5py.File(file, "w", track_order=True) as handle:
        for i, episode in enumerate(demonstrations.episodes):
            group = handle.create_group(f"episode_{i}")
            group.attrs["id"] = i
            group.attrs["total_steps"] = len(episode)
            if seeds is not None:
                group.attrs["seed"] = seeds[i]
            for key, values in _arrays(episode).items():
                # Chunks of whole arrays: the shuffle filter then groups equal bytes of all steps, which compresses
                # best.
                group.create_dataset(
                    key, data=values, chunks=values.shape, compression="gzip", compression_opts=9, shuffle=True
                )
    metadata: dict[str, Any] = {
        "total_episodes": len(demonstrations),
        "total_steps": sum(len(episode) for episode in demonstrations.episodes),
        "data_format": "hdf5",
        "observation_space": serialize_space(env.observation_space),
        "action_space": serialize_space(env.action_space),
        "env_spec": plain_spec(env.spec).to_json(),
        "dataset_id": dataset_id,
        "algorithm_name": algorithm,
        "description": description,
        "requirements": list(requirements),
        "minari_version": MINARI_VERSION,
        "dataset_size": round(file.stat().st_size / 1e6, 1),
    }
    env.close()
    (fresh / "data" / "metadata.json").write_text(json.dumps(metadata, indent=1) + "\n")
    for parent in folder.relative_to(root).parents[:-1]:  # Minari finds a namespace by this file
        namespace = Path(root) / parent / "namespace_metadata.json"
        if not namespace.exists():
            namespace.write_text("{}\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)
    return folder


def save_npz(path: str | Path, demonstrations: Demonstrations) -> Path:
    """Writes one .npz file in the format that `demonstrations.load` describes, with T+1 observations an episode."""
    path = Path(path)
    arrays = [_arrays(episode) for episode in demonstrations.episodes]
    if not arrays:
        raise ValueError("no episodes to save")
    merged = {key: np.concatenate([episode[key] for episode in arrays]) for key in arrays[0]}
    if demonstrations.env_id is not None:
        merged["env_id"] = np.array(demonstrations.env_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new.npz")
    np.savez_compressed(fresh, **merged)
    os.replace(fresh, path)
    return path


def _play_one(
    env: gymnasium.Env[np.ndarray, np.ndarray], policy: Callable[[np.ndarray], np.ndarray], seed: int
) -> Episode:
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = np.asarray(policy(observation), dtype=np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    return Episode(
        np.asarray(observations, dtype=np.float64),
        np.asarray(actions, dtype=np.float32),
        np.asarray(rewards, dtype=np.float64),
        bool(terminated),
        bool(truncated),
    )


def _arrays(episode: Episode) -> dict[str, np.ndarray]:
    """The five arrays of Minari's layout; its flags are per step."""
    last = np.arange(len(episode)) == len(episode) - 1
    return {
        "observations": episode.observations,
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminations": last & episode.terminated,
        "truncations": last & episode.truncated,
    }
