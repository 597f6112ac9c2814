"""Environments side by side as a Stable-Baselines3 `VecEnv`: in this process, in one process each, or in EnvPool."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecMonitor

from l2l_experiment.errors import UserError
from l2l_gail.config import Vec
from l2l_gail.environment_state import Resumable
from l2l_gail.spaces import Actions, Observations, actions_of

LARGEST = 1e18  # of an observation's size: its square fits single precision


def vectorise(make: Callable[[], gym.Env], name: str | None, n_envs: int, seed: int, vec: Vec) -> VecEnv:
    """`n_envs` environments that `make` makes, with their true returns in `info["episode"]`; EnvPool makes its own, by
    `name`.

    UserError for EnvPool if it is not installed or has no such environment."""
    if vec == "envpool":
        return VecMonitor(Pool(make, name, n_envs, seed))
    copies = [partial(_copy, make, seed + index, vec == "subproc") for index in range(n_envs)]
    if vec == "subproc":
        try:
            envs = SubprocVecEnv(copies)
            envs.env_is_wrapped(Resumable)  # asks all of them
        except (EOFError, ConnectionError) as error:
            raise UserError("an environment failed in its own process (see above); try --vec sync") from error
    else:
        envs = DummyVecEnv(copies)
        envs.buf_infos = _Infos(envs.buf_infos)
    envs.seed(seed)
    return envs


def _copy(make: Callable[[], gym.Env], seed: int, elsewhere: bool) -> Resumable:
    if elsewhere and hasattr(os, "setsid"):
        os.setsid()  # signals are for the run's own process, which saves and then ends these
    env = Resumable(make())
    env.action_space.seed(seed)
    return env


class _Infos(list):
    """A step's infos, copied shallowly: `DummyVecEnv`'s deep copy takes as long as a policy's forward pass."""

    def __deepcopy__(self, memo: Any) -> list[dict[str, Any]]:
        return [dict(info) for info in self]


class Pool(VecEnv):
    """EnvPool's environments (Weng et al., 2022), stepped by a thread each as far as there are cores.

    They are Gymnasium's tasks in C++: HalfCheetah, Hopper and Walker2d step equally to rounding, Ant nearly so. Resets
    draw other numbers, and the state cannot be read: a resumed run starts new episodes. `info` holds nothing but what
    Stable-Baselines3 asks for."""

    def __init__(self, make: Callable[[], gym.Env], name: str | None, n_envs: int, seed: int) -> None:
        try:
            import envpool
        except ImportError as error:
            raise UserError('--vec envpool needs EnvPool: pip install "l2l[envpool]"') from error
        if name not in envpool.list_all_envs():
            known = "needs an id, and a function has none" if name is None else f"has no environment {name}"
            raise UserError(f"EnvPool {known}; leave out --vec envpool")
        own = make()
        own.close()
        limit = {} if own.spec is None else {"max_episode_steps": own.spec.max_episode_steps}
        threads = min(n_envs, os.cpu_count() or 1)
        self.pool = envpool.make_gymnasium(name, num_envs=n_envs, seed=seed, num_threads=threads, **limit)
        given, taken = self.pool.observation_space, self.pool.action_space
        if given.shape != own.observation_space.shape or taken.shape != own.action_space.shape:
            raise UserError(f"EnvPool's {name} differs from Gymnasium's: {given}, not {own.observation_space}")
        super().__init__(n_envs, own.observation_space, own.action_space)
        self.kind = np.int32 if isinstance(taken, spaces.Discrete) else taken.dtype

    def reset(self) -> np.ndarray:
        return self._seen(self.pool.reset()[0])

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions.astype(self.kind)

    def step_wait(self) -> Any:
        observations, rewards, ended, cut, _ = self.pool.step(self.actions)
        observations, dones = self._seen(observations), ended | cut
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if (over := np.flatnonzero(dones)).size:
            for index in over:
                infos[index] = {
                    "terminal_observation": observations[index].copy(),
                    "TimeLimit.truncated": bool(cut[index] and not ended[index]),
                }
            observations[over] = self._seen(self.pool.reset(over.astype(np.int32))[0])
        return observations, rewards.astype(np.float32), dones, infos

    def _seen(self, observations: np.ndarray) -> np.ndarray:
        return np.array(observations, dtype=self.observation_space.dtype)  # a copy: EnvPool writes its own again

    def close(self) -> None:
        self.pool.close()

    def seed(self, seed: int | None = None) -> list[None]:
        return [None] * self.num_envs  # EnvPool takes its seed when it is made

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("EnvPool's environments are not objects of Python")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("EnvPool's environments are not objects of Python")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class VecAdaptSpaces(VecEnvWrapper):
    """Takes a policy's actions, and returns converted observations, where either differs from the environment's own."""

    def __init__(self, venv: VecEnv, observations: Observations, actions: Actions, name: str) -> None:
        super().__init__(venv, observations.space, actions.policy_space)
        self.observations, self.taken, self.name = observations, actions, name

    def step_async(self, actions: np.ndarray) -> None:
        self.venv.step_async(self.taken.to_env(actions))

    def converted(self, observations: Any) -> np.ndarray:
        return self.observations.convert(observations, self.name)

    def reset(self) -> np.ndarray:
        return self.converted(self.venv.reset())

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for index in np.flatnonzero(dones):
            if (last := infos[index].get("terminal_observation")) is not None:
                infos[index]["terminal_observation"] = self.observations.convert_one(last)
        return self.converted(observations), rewards, dones, infos


class VecCheckObservations(VecEnvWrapper):
    """Raises UserError, with step and component, for an observation that is NaN, infinite or too large. Keeps the raw
    last observation of an episode in `info["last_observation"]`: `VecNormalize` normalises `terminal_observation`."""

    def __init__(self, venv: VecEnv, name: str) -> None:
        super().__init__(venv)
        self.name, self.steps = name, np.zeros(venv.num_envs, dtype=int)

    def reset(self) -> Any:
        observations = self.venv.reset()
        self.steps[:] = 0
        self.check(observations)
        return observations

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.steps += 1
        for index in np.flatnonzero(dones):
            last = infos[index]["last_observation"] = infos[index].get("terminal_observation")
            if last is not None:
                require_usable(last, self.name, int(self.steps[index]))
            self.steps[index] = 0
        self.check(observations)
        return observations, rewards, dones, infos

    def check(self, observations: np.ndarray) -> None:
        if not np.abs(observations).max(initial=0.0) < LARGEST:  # false for NaN, too
            for row, step in zip(observations, self.steps, strict=True):
                require_usable(row, self.name, int(step))


def require_usable(observation: np.ndarray, name: str, step: int) -> None:
    """UserError unless all of an observation lies within `LARGEST`; `step` is that of its episode."""
    values = np.ravel(observation)
    if not np.abs(values).max(initial=0.0) < LARGEST:
        at = int(np.flatnonzero(~(np.abs(values) < LARGEST))[0])
        raise UserError(
            f"{name} returned an observation that is {values[at]:g} in component {at} at step {step} of an episode; "
            f"observations must be finite and below {LARGEST:g}: the environment is at fault, not the policy"
        )


def actions_of_envs(envs: VecEnv) -> Actions:
    """The actions that vectorised environments take, as `Environment.vectorised` or somebody else made them."""
    inner = envs
    while isinstance(inner, VecEnvWrapper):
        if isinstance(inner, VecAdaptSpaces):
            return inner.taken
        inner = inner.venv
    return actions_of(envs.action_space, "the environment", rescale=False)
