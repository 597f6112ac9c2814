"""Vectorised environments with one observation filter, and their exact state."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from l2l_experiment.errors import UserError

STEP_LIMIT = 10_000
"""Steps after which an episode is cut off where the environment was registered without a limit: it might never end."""


def check(env_id: str) -> gym.spec:
    """The environment's spec; a UserError unless it exists and has Box observations and bounded Box actions."""
    try:
        env = make(env_id)
    except (gym.error.Error, ImportError) as error:
        raise UserError(
            f"environment {env_id!r} cannot be made ({str(error).splitlines()[0]}); "
            "give a Gymnasium id such as HalfCheetah-v4"
        ) from error
    observations, actions = env.observation_space, env.action_space
    env.close()
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) != 1:
        raise UserError(f"{env_id} has observations {observations}; GAIL here needs a one-dimensional Box")
    if not isinstance(actions, gym.spaces.Box) or not actions.is_bounded():
        raise UserError(f"{env_id} has actions {actions}; GAIL here needs a bounded Box")
    return env.spec


def make(env_id: str, **kwargs: Any) -> gym.Env:
    """`gym.make`, with `STEP_LIMIT` where there is no time limit, and without two notices that every user of
    HalfCheetah-v4 would see many times: that v5 exists, and that MuJoCo deprecates an attribute in the task's file."""
    import mujoco

    if hasattr(mujoco, "set_mju_user_warning"):
        mujoco.set_mju_user_warning(_pass_on)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date.*")
        env = gym.make(env_id, **kwargs)
    if env.spec is not None and env.spec.max_episode_steps is None:
        return gym.wrappers.TimeLimit(env, STEP_LIMIT)
    return env


def _pass_on(message: str) -> None:
    if "settotalmass" not in message:
        warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=2)


def make_envs(env_id: str, num_envs: int, seed: int) -> VecNormalize:
    """`num_envs` copies in one process behind one observation filter; true returns stay visible through `Monitor`.

    One process, because stepping MuJoCo in subprocesses is several times slower on few cores.
    """
    envs = DummyVecEnv([lambda: Monitor(make(env_id)) for _ in range(num_envs)])
    envs.seed(seed)
    for index, env in enumerate(envs.envs):
        env.action_space.seed(seed + index)
    return VecNormalize(envs, norm_reward=False)


def state(envs: VecNormalize) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and JSON values from which `restore` continues; exact for MuJoCo environments."""
    tensors: dict[str, Any] = {
        "mean": torch.from_numpy(envs.obs_rms.mean.copy()),
        "var": torch.from_numpy(envs.obs_rms.var.copy()),
        "physics": {},
        "rewards": {},
    }
    meta: dict[str, Any] = {"count": float(envs.obs_rms.count), "training": envs.training, "envs": []}
    for index, env in enumerate(envs.venv.envs):
        physics = _physics(env)
        if physics is not None:
            tensors["physics"][str(index)] = physics
        tensors["rewards"][str(index)] = torch.tensor(env.rewards, dtype=torch.float64)
        limit = _time_limit(env)
        meta["envs"].append(
            {
                "elapsed": None if limit is None else limit._elapsed_steps,
                "rng": env.unwrapped.np_random.bit_generator.state,
                "action_rng": env.action_space.np_random.bit_generator.state,
            }
        )
    return tensors, meta


def restore(envs: VecNormalize, tensors: dict[str, Any], meta: dict[str, Any]) -> bool:
    """Continue from a `state`. False if the environments could not be put back mid-episode and were reset instead."""
    if len(meta["envs"]) != len(envs.venv.envs):
        raise UserError(f"the checkpoint holds {len(meta['envs'])} environments, this run has {len(envs.venv.envs)}")
    envs.reset()  # after it every wrapper counts as started
    envs.obs_rms.mean, envs.obs_rms.var = tensors["mean"].numpy().copy(), tensors["var"].numpy().copy()
    envs.obs_rms.count, envs.training = meta["count"], meta["training"]
    exact = len(tensors["physics"]) == len(envs.venv.envs)
    for index, (env, kept) in enumerate(zip(envs.venv.envs, meta["envs"], strict=True)):
        env.unwrapped.np_random.bit_generator.state = kept["rng"]
        env.action_space.np_random.bit_generator.state = kept["action_rng"]
        if exact:
            _set_physics(env, tensors["physics"][str(index)])
            env.rewards = tensors["rewards"][str(index)].tolist()
            limit = _time_limit(env)
            if limit is not None:
                limit._elapsed_steps = kept["elapsed"]
    return exact


# What MuJoCo derives from the state lags one substep behind it after a step, and rewards read these two as "before".
_DERIVED = ("xpos", "xipos")


def _physics(env: gym.Env) -> dict[str, torch.Tensor] | None:
    """The complete integration state of a MuJoCo environment, or None for another kind."""
    core = env.unwrapped
    if not (hasattr(core, "model") and hasattr(core, "data") and hasattr(core, "do_simulation")):
        return None
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(core.model, kind))
    mujoco.mj_getState(core.model, core.data, integration, kind)
    derived = {name: torch.from_numpy(getattr(core.data, name).copy()) for name in _DERIVED}
    return {"integration": torch.from_numpy(integration), **derived}


def _set_physics(env: gym.Env, physics: dict[str, torch.Tensor]) -> None:
    import mujoco

    core, kind = env.unwrapped, mujoco.mjtState.mjSTATE_INTEGRATION
    integration = physics["integration"].numpy()
    mujoco.mj_setState(core.model, core.data, integration, kind)
    mujoco.mj_forward(core.model, core.data)
    mujoco.mj_setState(core.model, core.data, integration, kind)  # mj_forward has moved the solver's warm start
    for name in _DERIVED:
        getattr(core.data, name)[:] = physics[name].numpy()


def _time_limit(env: gym.Env) -> gym.wrappers.TimeLimit | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            return env
        env = env.env
    return None
