"""The exact state of vectorised environments, from which a resumed run continues in the middle of an episode."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from l2l_experiment.errors import UserError
from l2l_gail.spaces import ChannelsFirst

# What MuJoCo derives from the state lags one substep behind it after a step, and rewards read these two as "before".
DERIVED = ("xpos", "xipos")
CLASSIC = ("state", "steps_beyond_terminated", "last_u")  # what the classic-control tasks keep from step to step


class Resumable(Monitor):
    """Stable-Baselines3's `Monitor`, whose environment can be read and put back, also from another process."""

    def read_state(self) -> dict[str, Any]:
        """What `write_state` continues from."""
        return read_state(self)

    def write_state(self, state: dict[str, Any], exact: bool) -> None:
        """Restore a `read_state`; unless `exact`, only its random generators."""
        write_state(self, state, exact)


# Wrappers without state, or whose state is saved here. Any other wrapper may have state of its own.
STATELESS_WRAPPERS = {
    *(wrappers.TimeLimit, wrappers.OrderEnforcing, wrappers.PassiveEnvChecker, wrappers.ClipAction),
    *(wrappers.RescaleAction, wrappers.RescaleObservation, wrappers.FlattenObservation, wrappers.FilterObservation),
    *(wrappers.DtypeObservation, wrappers.ReshapeObservation, wrappers.ClipReward, ChannelsFirst, Monitor),
    Resumable,
}


def state_dict(envs: VecNormalize) -> dict[str, Any]:
    """A tree from which `load_state_dict` continues, exactly for Gymnasium's MuJoCo and classic-control environments in
    this process or in processes of their own."""
    moments = getattr(envs, "obs_rms", None)  # none of images
    return {
        "filter": None
        if moments is None
        else {"mean": moments.mean, "var": moments.var, "count": float(moments.count)},
        "training": envs.training,
        "envs": _states(envs),
    }


def load_state_dict(envs: VecNormalize, tree: dict[str, Any]) -> bool:
    """Continue from a `state_dict`. False if environments could not be put back mid-episode and were reset instead."""
    states, inner = tree["envs"], envs.unwrapped
    if states and len(states) != (there := len(_states(envs))):
        raise UserError(f"the checkpoint holds {len(states)} environments, this run has {there}")
    envs.reset()  # after it every wrapper counts as started
    if (kept := tree["filter"]) is not None:
        envs.obs_rms.mean, envs.obs_rms.var, envs.obs_rms.count = kept["mean"].copy(), kept["var"].copy(), kept["count"]
    envs.training = tree["training"]
    exact = bool(states) and all(state["physics"] is not None for state in states)
    for index, state in enumerate(states):
        if isinstance(inner, SubprocVecEnv):
            inner.env_method("write_state", state, exact, indices=index)
        else:
            write_state(inner.envs[index], state, exact)
    return exact


def _states(envs: VecNormalize) -> list[dict[str, Any]]:
    """The states of the environments behind a vectorised one; none if they are not ours to look into."""
    inner = envs.unwrapped
    if isinstance(inner, DummyVecEnv) and all(isinstance(env, Monitor) for env in inner.envs):
        return [read_state(env) for env in inner.envs]
    if isinstance(inner, SubprocVecEnv) and all(inner.env_is_wrapped(Resumable)):
        return inner.env_method("read_state")
    return []


def read_state(env: Monitor) -> dict[str, Any]:
    """What an environment has kept; `physics` is None where some of it cannot be read."""
    return {
        "physics": _physics(env),
        "rewards": [float(reward) for reward in env.rewards],
        "elapsed": getattr(time_limit(env), "_elapsed_steps", None),
        "rng": _generator(env.unwrapped.np_random),
        "action_rng": _generator(env.action_space.np_random),
    }


def write_state(env: Monitor, state: dict[str, Any], exact: bool) -> None:
    """Restore a `read_state`; unless `exact`, only its random generators."""
    for generator, name in ((env.unwrapped.np_random, "rng"), (env.action_space.np_random, "action_rng")):
        if state[name] is not None and _generator(generator) is not None:
            generator.bit_generator.state = state[name]
    if exact:
        _set_physics(env, state["physics"])
        env.rewards = list(state["rewards"])
        if (limit := time_limit(env)) is not None:
            limit._elapsed_steps = state["elapsed"]


def _generator(generator: Any) -> dict[str, Any] | None:
    """The state of a PCG64 generator, as Gymnasium uses; None for any other, which is not restored."""
    bits = getattr(generator, "bit_generator", None)
    return bits.state if isinstance(bits, np.random.PCG64) else None


def _physics(env: gym.Env) -> dict[str, Any] | None:
    """The whole state of one of Gymnasium's MuJoCo or classic-control environments behind stateless wrappers; None for
    any other, which may have state that is not found here."""
    core = env.unwrapped
    while isinstance(env, gym.Wrapper):
        if type(env) not in STATELESS_WRAPPERS:
            return None
        env = env.env
    family = type(core).__module__.rpartition(".")[0]
    if _generator(core.np_random) is None:
        return None
    if family == "gymnasium.envs.classic_control":
        found = {name: getattr(core, name, None) for name in CLASSIC}
        return found | {"state": None if found["state"] is None else np.array(found["state"])}
    if family != "gymnasium.envs.mujoco":
        return None
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(core.model, kind))
    mujoco.mj_getState(core.model, core.data, integration, kind)
    return {"integration": integration} | {name: getattr(core.data, name).copy() for name in DERIVED}


def _set_physics(env: gym.Env, physics: dict[str, Any]) -> None:
    core = env.unwrapped
    if "integration" not in physics:
        for name, value in physics.items():
            setattr(core, name, value)
        return
    import mujoco

    model, data, kind = core.model, core.data, mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, physics["integration"], kind)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, physics["integration"], kind)  # mj_forward has moved the solver's warm start
    for name in DERIVED:
        getattr(data, name)[:] = physics[name]


def time_limit(env: gym.Env) -> wrappers.TimeLimit | None:
    """The wrapper that ends an environment's episodes, if there is one."""
    while isinstance(env, gym.Wrapper) and not isinstance(env, wrappers.TimeLimit):
        env = env.env
    return env if isinstance(env, wrappers.TimeLimit) else None
