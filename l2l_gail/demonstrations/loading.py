"""Demonstrations from a file, a data set or arrays, checked against the environment."""

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.episodes import Demonstrations, Episode, check_count
from l2l_gail.demonstrations.readers.base import RawEpisode, Recording, named_arrays
from l2l_gail.demonstrations.readers.imitation import is_huggingface, read_huggingface
from l2l_gail.demonstrations.readers.minari import MINARI_ID, read_hdf5, read_minari
from l2l_gail.demonstrations.readers.npz import read_arrays, read_npz
from l2l_gail.environments import Environment, EnvLike, environment
from l2l_gail.vectorised import LARGEST

# Environment versions with equal dynamics, rewards and observations: data of one serves the other. Hopper, Walker2d,
# Ant and Humanoid differ between v4 and v5 (friction, healthy reward, observations), so they are not here.
INTERCHANGEABLE = (frozenset({"HalfCheetah-v4", "HalfCheetah-v5"}),)

# Where the shipped sets lie: in the working directory, in the checkout that this file belongs to, or as installed.
SHIPPED = (Path("expert_data"), *(Path(__file__).resolve().parents[2] / name for name in ("expert_data", "l2l_data")))

Source = str | Path | Mapping[str, Any] | Demonstrations | None


def load_demonstrations(source: Source, env: EnvLike, *, num_demos: int | None = None) -> Demonstrations:
    """Demonstrations for an environment, checked against its spaces; the first `num_demos` episodes, or all.

    `source` is one of
      - None: the set that ships for the environment, in ./expert_data or in the checkout;
      - a folder in Minari's HDF5 layout (the data set, its `data` folder, or `main_data.hdf5` itself), or a flat .hdf5
        file of D4RL;
      - the id of a Minari data set that lies in Minari's local folder (MINARI_DATASETS_PATH), such as
        mujoco/hopper/expert-v0;
      - a .npz file, or a mapping from names to arrays, with `observations` (N, …) or (N + episodes, …), which in a
        mapping may be dictionaries or tuples as the environment's space has them, `actions` (N, …), optionally
        `rewards` (N,), and the ends: `episode_ends` (for each episode, one past its last action: the last is N), or
        `dones` (N,), or `terminations` and `truncations` (N,). With one observation more than actions per episode
        nothing is lost; with equally many, the last action of each episode leads nowhere known and is dropped (its
        reward is added to the one before, so that returns stay what they were). `dones` and `episode_ends` do not tell
        why an episode ended; such episodes count as truncated, and so does a last one that no flag ends;
      - trajectories of the package `imitation`: its .npz file (`obs`, `acts`, `rews`, `terminal`, `indices`), or the
        folder that its `serialize.save` writes, which needs the package `datasets`;
      - `Demonstrations`, as this function returns them or as you made them.

    Where a source has no actions, only observations can be imitated (`imitate="states"`).

    A wrong shape, a value that is NaN or infinite, an action out of bounds, a damaged file, another environment or too
    few episodes is a `UserError` that names the file, the episode and what would be right."""
    env = environment(env)
    checked_for = (env.id, env.observations.raw, env.actions.space)
    if isinstance(source, Demonstrations) and source.checked_for == checked_for:
        return source if num_demos is None else source.take(num_demos)
    name, env_id, count, episodes = _open(source, env)
    _check_environment(env_id, env.id, name)
    if count == 0:
        raise UserError(f"{name} holds no episodes; at least one is needed")
    check_count(count if num_demos is None else num_demos, count, name)
    checked = [_checked(raw, f"episode {i} of {name}", env) for i, raw in enumerate(islice(episodes, num_demos))]
    return Demonstrations(env_id or env.id, checked, name).as_checked_for(checked_for)


def shipped_dataset_id(env_id: str) -> str:
    """Id of the data set that ships for an environment: HalfCheetah-v4 gives l2l/halfcheetah-v4-expert-v0."""
    return f"l2l/{env_id.rpartition(':')[2].lower()}-expert-v0"  # without the module that an id may name


def _open(source: Source, env: Environment) -> Recording:
    """Finds the reader for a source."""
    if source is None:
        return read_hdf5(_shipped(env.id))
    if isinstance(source, Demonstrations):
        return Recording(source.source, source.env_id, len(source), (one.arrays() for one in source.episodes))
    if isinstance(source, Mapping):
        return read_arrays(source, "the given arrays")
    if not isinstance(source, str | os.PathLike):
        kinds = "a path, an id, a mapping of arrays or Demonstrations(env_id, episodes, source)"
        raise UserError(f"demonstrations must be {kinds}; got a {type(source).__name__}")
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        return read_npz(path)
    if is_huggingface(path):
        return read_huggingface(path)
    if path.exists():
        return read_hdf5(path)
    for root in SHIPPED:
        if (root / path).is_dir():  # a shipped set by its id
            return read_hdf5(root / path)
    if MINARI_ID.fullmatch(str(source)):
        return read_minari(str(source))
    known = "a folder, a .npz file nor the id of a Minari data set (such as mujoco/hopper/expert-v0)"
    raise UserError(f"{source} is neither {known}")


def _shipped(env_id: str | None) -> Path:
    """Folder of the set that ships for `env_id`."""
    if env_id is None:
        raise UserError("the environment has no id, so no demonstrations ship for it; give some")
    twins = next((twins for twins in INTERCHANGEABLE if env_id in twins), frozenset())
    for root in SHIPPED:
        for candidate in (env_id, *sorted(twins - {env_id})):
            folder = root / shipped_dataset_id(candidate)
            if folder.exists():
                return folder
    raise UserError(
        f"no demonstrations ship for {env_id}: name some with --demos (a folder, a .npz file or a Minari id), "
        f"or make them: l2l-make-expert-data --env {env_id}"
    )


def _check_environment(recorded: str | None, wanted: str | None, name: str) -> None:
    if recorded is None or wanted is None:
        return
    wanted = wanted.rpartition(":")[2]  # gymnasium's `module:` names whom to import, not the task
    if recorded.rpartition(":")[2] == wanted:
        return
    if any({recorded, wanted} <= twins for twins in INTERCHANGEABLE):
        print(f"note: {name} was recorded in {recorded}; its dynamics and rewards equal those of {wanted}")
        return
    raise UserError(f"{name} was recorded in {recorded}, not in {wanted}; the two are different tasks")


def _frames(observations: np.ndarray, where: str) -> np.ndarray:
    """Frames of another type as uint8, or a `UserError` if they are not whole numbers from 0 to 255."""
    frames = observations.astype(np.uint8)
    if not (frames == observations).all():
        raise UserError(
            f"{where} has frames of dtype {observations.dtype} that are not whole numbers from 0 to 255; save them as "
            "uint8, as the environment gives them"
        )
    return frames


def _checked(raw: RawEpisode, where: str, env: Environment) -> Episode:
    """An episode of the right shapes and types, or a `UserError` that says what is wrong."""
    numbers = ("observations", "actions", "rewards")
    for key, values in (*((key, raw[key]) for key in numbers[1:]), *named_arrays(raw["observations"])):
        if values.dtype.kind not in "biuf":
            raise UserError(f"{where} has {key} that are not real numbers (dtype {values.dtype})")
    actions, rewards = raw["actions"], np.asarray(raw["rewards"], dtype=np.float64)
    steps, without = len(actions), actions.shape[1:] == (0,)
    if steps == 0:
        raise UserError(f"{where} has no steps")
    observations = env.observations.convert(raw["observations"], where)
    if not env.observations.image:
        observations = observations.astype(np.float64, copy=False)
    elif observations.dtype != np.uint8:
        observations = _frames(observations, where)
    if len(observations) != steps + 1:
        raise UserError(f"{where} has {len(observations)} observations for {steps} actions; {steps + 1} would be right")
    for key in ("rewards", "terminations", "truncations"):
        shape = raw[key].shape
        if shape != (steps,):
            raise UserError(f"{where} has {key} of shape {shape} for {steps} actions; ({steps},) would be right")
    missing_rewards = raw["rewards"].dtype.kind == "f" and bool(np.isnan(rewards).all())
    for key, values in zip(numbers, (observations, actions, rewards), strict=True):
        if not np.isfinite(values).all() and not (key == "rewards" and missing_rewards):
            at = int(np.argwhere(~np.isfinite(values))[0][0])
            raise UserError(f"{where} has {key} that are NaN or infinite (first at step {at}); remove the episode")
    if not (within := np.abs(observations) < LARGEST).all():
        at = int(np.argwhere(~within)[0][0])
        raise UserError(f"{where} has observations of {LARGEST:g} and more (first at step {at}); remove the episode")
    terminations, truncations = raw["terminations"].astype(bool), raw["truncations"].astype(bool)
    ends = terminations | truncations
    if ends[:-1].any():
        raise UserError(f"{where} ends at step {int(ends.argmax())} but goes on to step {steps - 1}; split it there")
    actions = actions.astype(np.float32) if without else env.actions.check_recorded(actions, where)
    return Episode(observations, actions, rewards, bool(terminations[-1]), bool(truncations[-1]))
