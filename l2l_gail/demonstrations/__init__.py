"""Demonstrations: what an expert did, read from files or arrays and checked against the environment."""

from l2l_gail.demonstrations.episodes import Demonstrations, Episode
from l2l_gail.demonstrations.loading import load_demonstrations, shipped_dataset_id
from l2l_gail.demonstrations.writing import save_minari, save_npz

__all__ = ["Demonstrations", "Episode", "load_demonstrations", "save_minari", "save_npz", "shipped_dataset_id"]
