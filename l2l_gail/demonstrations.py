"""Demonstrations: what an expert did, read from a file, checked against the environment and ready to imitate.

`load` accepts four kinds of source and ends in one of two ways: demonstrations that fit the environment, or a
`UserError` that names the file, the episode and what would be right.
"""

import warnings
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box

from l2l_experiment.errors import UserError
from l2l_gail import _readers

# Environment versions with equal dynamics, rewards and observations: data of one serves the other. Hopper, Walker2d,
# Ant and Humanoid differ between v4 and v5 (friction, healthy reward, observations), so they are not here.
INTERCHANGEABLE = (frozenset({"HalfCheetah-v4", "HalfCheetah-v5"}),)

# Where the shipped sets lie: in the working directory, or in the checkout that this file belongs to.
SHIPPED = (Path("expert_data"), Path(__file__).resolve().parents[1] / "expert_data")

# Actions may leave their bounds by this much, the rounding of a float32 policy; they are then clipped.
BOUND_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Episode:
    """One episode of T steps, from reset to end."""

    observations: np.ndarray  # (T+1, O) float64: the last one is where the last action led
    actions: np.ndarray  # (T, A) float32
    rewards: np.ndarray  # (T,) float64: the true reward, for reports only; NaN where the file has none
    terminated: bool
    truncated: bool

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of an expert in one environment."""

    env_id: str | None  # None where the file does not say
    episodes: list[Episode] = field(repr=False)
    source: str

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted true return of each episode, (episodes,); NaN where the file has no rewards."""
        return np.array([episode.rewards.sum() for episode in self.episodes], dtype=np.float64)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean()) if self.episodes else float("nan")

    def transitions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations (N, O), actions (N, A) and next observations (N, O) of all episodes, in order, float32."""
        if not self.episodes:
            raise ValueError("no episodes: an empty Demonstrations has no transitions")
        observations = np.concatenate([episode.observations[:-1] for episode in self.episodes])
        actions = np.concatenate([episode.actions for episode in self.episodes])
        next_observations = np.concatenate([episode.observations[1:] for episode in self.episodes])
        return observations.astype(np.float32), actions.astype(np.float32), next_observations.astype(np.float32)

    def take(self, n: int, offset: int = 0) -> "Demonstrations":
        """The `n` episodes from `offset` on; a `UserError` where there are fewer."""
        if n < 1:
            raise UserError(f"the number of demonstrations must be at least 1, not {n}")
        if offset < 0 or offset + n > len(self):
            after = f" after the first {offset}" if offset else ""
            raise UserError(
                f"{self.source} holds {max(len(self) - offset, 0)} episodes{after}, fewer than the {n} asked for"
            )
        return Demonstrations(self.env_id, self.episodes[offset : offset + n], self.source)

    def rest(self, n: int) -> "Demonstrations":
        """The episodes after the first `n`, to monitor on; possibly none."""
        return Demonstrations(self.env_id, self.episodes[n:], self.source)


def load(
    source: str | Path | None,
    env_id: str,
    *,
    observation_space: Space[Any],
    action_space: Space[Any],
    num_demos: int | None = None,
) -> Demonstrations:
    """Demonstrations for `env_id`, checked against its spaces; the first `num_demos` episodes, or all.

    `source` is one of
      - None: the set that ships for `env_id`, in ./expert_data or in the checkout;
      - a folder in Minari's HDF5 layout (the data set, its `data` folder, or `main_data.hdf5` itself);
      - the id of a Minari data set that lies in Minari's local folder (MINARI_DATASETS_PATH), such as
        mujoco/hopper/expert-v0;
      - a .npz file with `observations` (N, O) or (N + episodes, O), `actions` (N, A), optionally `rewards` (N,), and
        the ends: `episode_ends` (for each episode, one past its last action: the last is N), or `dones` (N,), or
        `terminations` and `truncations` (N,). With one observation more than actions per episode nothing is lost; with
        equally many, the last action of each episode leads nowhere known and is dropped (its reward is added to the
        one before, so that returns stay what they were). `dones` and `episode_ends` do
        not tell why an episode ended; such episodes count as truncated, and so does a last one that no flag ends.

    A wrong shape, a value that is not finite, an action out of bounds, a damaged file, another environment or too few
    episodes is a `UserError`.
    """
    if num_demos is not None and num_demos < 1:
        raise UserError(f"the number of demonstrations must be at least 1, not {num_demos}")
    recording = _open(source, env_id)
    name = recording.name
    _check_environment(recording.env_id, env_id, name)
    if recording.count == 0:
        raise UserError(f"{name} holds no episodes; at least one is needed")
    if num_demos is not None and num_demos > recording.count:
        raise UserError(f"{name} holds {recording.count} episodes, fewer than the {num_demos} asked for")
    episodes = [
        _checked(raw, f"episode {i} of {name}", observation_space, action_space)
        for i, raw in enumerate(islice(recording.episodes, num_demos))
    ]
    return Demonstrations(recording.env_id or env_id, episodes, name)


def shipped_dataset_id(env_id: str) -> str:
    """Id of the data set that ships for an environment: HalfCheetah-v4 gives l2l/halfcheetah-v4-expert-v0."""
    return f"l2l/{env_id.lower()}-expert-v0"


def _open(source: str | Path | None, env_id: str) -> _readers.Recording:
    """Finds the reader for a source."""
    if source is None:
        return _readers.read_hdf5(_shipped(env_id))
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        return _readers.read_npz(path)
    if path.exists():
        return _readers.read_hdf5(path)
    for root in SHIPPED:
        if (root / path).is_dir():  # a shipped set by its id
            return _readers.read_hdf5(root / path)
    if _readers.is_minari_id(str(source)):
        return _readers.read_minari(str(source))
    raise UserError(
        f"{source} is neither a folder, a .npz file nor the id of a Minari data set (such as mujoco/hopper/expert-v0)"
    )


def _shipped(env_id: str) -> Path:
    """Folder of the set that ships for `env_id`."""
    twins = next((twins for twins in INTERCHANGEABLE if env_id in twins), frozenset())
    for root in SHIPPED:
        for candidate in (env_id, *sorted(twins - {env_id})):
            folder = root / shipped_dataset_id(candidate)
            if folder.exists():
                return folder
    raise UserError(
        f"no demonstrations ship for {env_id}: name some with --demos (a folder, a .npz file or a Minari id), "
        f"or make them with scripts/make_expert_data.py --env {env_id}"
    )


def _check_environment(recorded: str | None, wanted: str, name: str) -> None:
    wanted = wanted.rpartition(":")[2]  # gymnasium's `module:` names whom to import, not the task
    if recorded is None or recorded.rpartition(":")[2] == wanted:
        return
    if any({recorded, wanted} <= twins for twins in INTERCHANGEABLE):
        print(f"note: {name} was recorded in {recorded}; its dynamics and rewards equal those of {wanted}")
        return
    raise UserError(f"{name} was recorded in {recorded}, not in {wanted}; the two are different tasks")


def _checked(raw: _readers.RawEpisode, where: str, observation_space: Space[Any], action_space: Space[Any]) -> Episode:
    """An episode of the right shapes and types, or a `UserError` that says what is wrong."""
    for space, kind in ((observation_space, "observation"), (action_space, "action")):
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise UserError(f"the {kind} space must be a Box of one dimension, not {space}")
    observations, actions, rewards = (_numbers(raw, key, where) for key in ("observations", "actions", "rewards"))
    steps = len(actions)
    if steps == 0:
        raise UserError(f"{where} has no steps")
    for values, space, kind in ((observations, observation_space, "observations"), (actions, action_space, "actions")):
        if values.shape[1:] != space.shape:
            raise UserError(f"{where} has {kind} of shape {values.shape[1:]}; the environment's is {space.shape}")
    if len(observations) != steps + 1:
        raise UserError(f"{where} has {len(observations)} observations for {steps} actions; {steps + 1} would be right")
    for key in ("rewards", "terminations", "truncations"):
        if raw[key].shape != (steps,):
            raise UserError(
                f"{where} has {key} of shape {raw[key].shape} for {steps} actions; ({steps},) would be right"
            )
    missing_rewards = raw["rewards"].dtype.kind == "f" and bool(np.isnan(rewards).all())
    for values, kind in ((observations, "observations"), (actions, "actions"), (rewards, "rewards")):
        if not np.isfinite(values).all() and not (kind == "rewards" and missing_rewards):
            at = int(np.argwhere(~np.isfinite(values))[0][0])
            raise UserError(f"{where} has {kind} that are not finite (first at step {at}); remove the episode")
    ends = raw["terminations"].astype(bool) | raw["truncations"].astype(bool)
    if ends[:-1].any():
        raise UserError(f"{where} ends at step {int(ends.argmax())} but goes on to step {steps - 1}; split it there")
    return Episode(
        observations=observations,
        actions=_within_bounds(actions, action_space, where),
        rewards=rewards,
        terminated=bool(raw["terminations"][-1]),
        truncated=bool(raw["truncations"][-1]),
    )


def _numbers(raw: _readers.RawEpisode, key: str, where: str) -> np.ndarray:
    if raw[key].dtype.kind not in "biuf":
        raise UserError(f"{where} has {key} that are not real numbers (dtype {raw[key].dtype})")
    return np.asarray(raw[key], dtype=np.float64)


def _within_bounds(actions: np.ndarray, space: Box, where: str) -> np.ndarray:
    """The actions as float32, clipped to bounds from which they differ by rounding only."""
    excess = np.maximum(space.low - actions, actions - space.high).max(axis=1)
    worst = int(excess.argmax())
    if excess[worst] > BOUND_TOLERANCE:
        low, high = space.low.min(), space.high.max()
        raise UserError(
            f"{where} has an action out of bounds at step {worst} (by {excess[worst]:.3g}); "
            f"actions must lie within [{low:g}, {high:g}], as the environment received them"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a float64 of 1e39 is refused above; casting others loses digits only
        return np.clip(actions, space.low, space.high).astype(np.float32)
