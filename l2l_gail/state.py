"""What a resumed run needs, as tensors and JSON values: both players, the rule, filters, schedules, random numbers."""

import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from l2l_experiment.checkpoint import load_optimizer_state, optimizer_state, rng_state, set_rng_state
from l2l_experiment.errors import UserError
from l2l_gail import environments

if TYPE_CHECKING:
    from l2l_gail.gail import GAIL

Tensors = dict[str, Any]
Meta = dict[str, Any]


def fingerprint(pairs: tuple[np.ndarray, np.ndarray]) -> str:
    """A hash of demonstrations, by which they are known again."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in pairs)).hexdigest()


def capture(gail: "GAIL") -> tuple[Tensors, Meta]:
    """The state of a GAIL between two rounds. For MuJoCo environments `restore` continues from it bit for bit."""
    ppo = gail.ppo
    parts = {
        "optimizer": optimizer_state(ppo.policy.optimizer),
        "follower": gail.follower.state(),
        "scale": gail.scale.state(),
        "envs": environments.state(gail.envs),
        "rng": rng_state(),
    }
    tensors: Tensors = {name: part[0] for name, part in parts.items()}
    meta: Meta = {name: part[1] for name, part in parts.items()}
    if gail.train_pairs is not None:
        meta["demonstrations"] = fingerprint(gail.train_pairs)
    tensors["policy"] = ppo.policy.state_dict()
    tensors["discriminator_buffers"] = dict(gail.discriminator.named_buffers())
    tensors["generator"] = gail.generator.get_state()
    tensors["replay"] = {str(i): {"observations": o, "actions": a} for i, (o, a) in enumerate(gail.replay)}
    if gail.filter is not None:
        tensors["filter"] = gail.filter.state()
    if ppo._last_obs is not None:
        tensors["last"] = {"observations": ppo._last_obs, "starts": ppo._last_episode_starts, "raw": gail.envs.old_obs}
    meta["policy"] = {
        "num_timesteps": ppo.num_timesteps,
        "n_updates": ppo._n_updates,
        "episodes": [dict(episode) for episode in ppo.ep_info_buffer or ()],
        # Figures of the last update, which PPO logs only after the next rollout.
        "pending": {key: float(value) for key, value in ppo.logger.name_to_value.items()},
    }
    return tensors, meta


def restore(gail: "GAIL", tensors: Tensors, meta: Meta) -> bool:
    """Continue from a captured state. False if the environments had to be reset, so that it is not bit for bit."""
    ppo = gail.ppo
    made_with = meta.get("demonstrations")
    if made_with and gail.train_pairs is not None and made_with != fingerprint(gail.train_pairs):
        raise UserError(
            "the demonstrations are not those that this checkpoint was trained on (another file or set, or it has "
            "changed since); name the right ones with --demos"
        )
    try:
        ppo.policy.load_state_dict(tensors["policy"])
        load_optimizer_state(ppo.policy.optimizer, tensors["optimizer"], meta["optimizer"])
        gail.follower.restore(_to(tensors["follower"], gail.device), meta["follower"])
        for name, buffer in gail.discriminator.named_buffers():
            buffer.copy_(tensors["discriminator_buffers"][name])
        gail.scale.restore(tensors["scale"], meta["scale"])
        gail.replay = [
            (tensors["replay"][str(i)]["observations"].numpy(), tensors["replay"][str(i)]["actions"].numpy())
            for i in range(len(tensors["replay"]))
        ]
        if gail.filter is not None:
            gail.filter.restore(tensors["filter"])
        gail.generator.set_state(tensors["generator"])
        exact = environments.restore(gail.envs, tensors["envs"], meta["envs"])
        kept = meta["policy"]
        ppo.num_timesteps, ppo._n_updates = kept["num_timesteps"], kept["n_updates"]
        ppo.ep_info_buffer = deque(kept["episodes"], maxlen=ppo._stats_window_size)
        ppo.ep_success_buffer = deque(maxlen=ppo._stats_window_size)
        if "last" in tensors:
            if exact:
                gail.envs.old_obs = tensors["last"]["raw"].numpy().copy()
                ppo._last_obs = tensors["last"]["observations"].numpy().copy()
                ppo._last_episode_starts = tensors["last"]["starts"].numpy().copy()
            else:
                ppo._last_obs = gail.envs.reset()
                ppo._last_episode_starts = np.ones(gail.envs.num_envs, dtype=bool)
        for key, value in kept["pending"].items():
            ppo.logger.record(key, value)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the checkpoint does not fit this run's settings ({str(error).splitlines()[0]}); "
            "resume with the config.yaml that made it"
        ) from error
    set_rng_state(tensors["rng"], meta["rng"])  # last: everything above may have drawn
    return exact


def _to(tree: Any, device: torch.device) -> Any:
    """Weights and memories on the run's device. Optimiser steps and counts stay where they were made: on the CPU."""
    if isinstance(tree, dict):
        return {key: _to(value, device) for key, value in tree.items()}
    return tree.to(device) if tree.is_floating_point() and tree.dim() else tree
