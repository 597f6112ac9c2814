"""Files of demonstrations, written, read and edited by tests."""

from pathlib import Path

import h5py
import numpy as np
from gymnasium.spaces import Box

from l2l_gail.demonstrations import Demonstrations, load

ENV = "HalfCheetah-v4"
OBSERVATIONS = Box(-np.inf, np.inf, (17,), np.float64)
ACTIONS = Box(-1.0, 1.0, (6,), np.float32)
EXPERT_DATA = Path(__file__).resolve().parents[2] / "expert_data"


def read(source, env_id=ENV, observations=OBSERVATIONS, actions=ACTIONS, num_demos=None) -> Demonstrations:
    return load(source, env_id, observation_space=observations, action_space=actions, num_demos=num_demos)


def arrays(demonstrations: Demonstrations) -> dict[str, np.ndarray]:
    """What a .npz file of flat arrays holds."""
    last = np.concatenate([np.arange(len(e)) == len(e) - 1 for e in demonstrations.episodes])
    return {
        "observations": np.concatenate([e.observations for e in demonstrations.episodes]),
        "actions": np.concatenate([e.actions for e in demonstrations.episodes]),
        "rewards": np.concatenate([e.rewards for e in demonstrations.episodes]),
        "dones": last,
    }


def write_npz(path: Path, content: dict[str, np.ndarray]) -> Path:
    np.savez(path, **content)
    return path


def change(folder: Path, key: str, edit, episode: int = 1) -> Path:
    """Edits one array of one episode of a data set; `None` deletes it."""
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        group = file[f"episode_{episode}"]
        values = group[key][()]
        del group[key]
        if (edited := edit(values)) is not None:
            group[key] = edited
    return folder
