"""Environments by id, by factory or as a vectorised one: their spaces, and copies of them."""

import copy
import os
import warnings
from collections.abc import Callable
from typing import Any, Union

import gymnasium as gym
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common import vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from l2l_experiment.errors import UserError
from l2l_gail.config import Vec
from l2l_gail.environment_state import time_limit
from l2l_gail.spaces import Actions, Observations, actions_of
from l2l_gail.vectorised import VecAdaptSpaces, VecCheckObservations, vectorise

STEP_LIMIT = 10_000  # steps after which an episode of an environment without a limit is cut off: it might never end
NEVER_END_EARLY = {"HalfCheetahEnv", "SwimmerEnv", "ReacherEnv", "PusherEnv", "PendulumEnv", "HumanoidStandupEnv"}

EnvLike = Union[str, Callable[[], gym.Env], VecEnv, "Environment"]


class Environment:
    """An environment that is opened once to read its spaces, and makes copies of itself.

    `source` is a Gymnasium id, a function that makes an environment, or a Stable-Baselines3 `VecEnv`, of which there
    are no copies. `rescale`: whether policies act in [-1, 1] instead of the bounds of a Box; by default where those are
    far from it. UserError for one that cannot be made, or whose spaces are not supported (see `l2l_gail.spaces`)."""

    actions: Actions

    def __init__(self, source: EnvLike, *, rescale: bool | None = None) -> None:
        self.source, self.id = source, source if isinstance(source, str) else None
        self.name = self.id or "the environment"  # in messages
        self.ends_early, self.unlimited, env = True, False, source  # ends_early: perhaps before the time limit
        self.spec: EnvSpec | None = None
        self.rescale = rescale
        if isinstance(source, gym.Env):
            raise UserError("GAIL makes copies of an environment: give a function that makes one, or its id")
        if not (isinstance(source, str | VecEnv) or callable(source)) or isinstance(source, gym.vector.VectorEnv):
            kinds = "an id, a function that makes an environment, or a Stable-Baselines3 VecEnv"
            raise UserError(f"the environment must be {kinds}; got a {type(source).__name__}")
        if isinstance(source, VecEnv) and vec_env.is_vecenv_wrapped(source, VecNormalize):
            raise UserError("a VecNormalize hides what the environment observes: give the VecEnv that it wraps")
        if not isinstance(source, VecEnv):
            try:
                env = make(source)
            except (gym.error.Error, ImportError) as error:
                raise UserError(
                    f"environment {source!r} cannot be made ({str(error).splitlines()[0]}); "
                    "give a Gymnasium id such as HalfCheetah-v4"
                ) from error
            healthy = getattr(env.unwrapped, "_terminate_when_unhealthy", True)
            self.ends_early = type(env.unwrapped).__name__ not in NEVER_END_EARLY and healthy
            self.unlimited = self.id is not None and gym.spec(env.spec.id).max_episode_steps is None
            self.spec = env.spec
            env.close()
        self.observations = Observations(env.observation_space, self.name)
        self.actions = actions_of(env.action_space, self.name, rescale)

    def make(self, **kwargs: Any) -> gym.Env:
        """A copy with converted observations and the environment's own actions, and with `STEP_LIMIT` where there is no
        time limit; UserError if it is a `VecEnv`."""
        if isinstance(self.source, VecEnv):
            raise UserError("a VecEnv cannot be copied; give GAIL a function that makes one environment")
        return self.observations.wrap(make(self.source, **kwargs))

    def vectorised(self, n_envs: int, seed: int, vec: Vec = "sync", *, training: bool = True) -> VecNormalize:
        """`n_envs` copies behind one observation filter, that take a policy's actions; their true returns stay visible.
        Images are not filtered. A `VecEnv` is taken as it is. With `training=False` the filter stays as it is, as for
        evaluation.

        One process by default: stepping MuJoCo in subprocesses is several times slower on few cores."""
        if not isinstance(self.source, VecEnv):
            copies = copy.copy(self)
            if vec == "subproc" and self.id:  # another process does not know the ids that this program has registered
                copies.source = self.spec
            envs = vectorise(copies.make, self.id, n_envs, seed, vec)
        elif vec != "sync":
            raise UserError(f"a VecEnv steps itself: leave out vec={vec!r}")
        else:
            envs = self.source
            if not (vec_env.is_vecenv_wrapped(envs, VecMonitor) or all(envs.env_is_wrapped(Monitor))):
                envs = VecMonitor(envs)
            envs.seed(seed)
        if envs.action_space != self.actions.policy_space or envs.observation_space != self.observations.space:
            envs = VecAdaptSpaces(envs, self.observations, self.actions, self.name)
        return VecNormalize(
            VecCheckObservations(envs, self.name),
            training=training,
            norm_obs=not self.observations.image,
            norm_reward=False,
        )


def environment(source: EnvLike, *, rescale: bool | None = None) -> Environment:
    """The `Environment` that an id, a factory, a `VecEnv` or an `Environment` stands for; UserError if it has been made
    with another `rescale`."""
    if isinstance(source, Environment) and rescale not in (None, source.rescale):
        raise UserError(f"rescale_actions={rescale} comes too late: give Environment(..., rescale={rescale})")
    return source if isinstance(source, Environment) else Environment(source, rescale=rescale)


def require_named(stored: str, given: str | None) -> None:
    """UserError if `given` is another id than the stored one, or if that names a module, which opening it would import,
    and nobody has given it."""
    if ":" in stored and stored != given:
        module = stored.partition(":")[0]
        raise UserError(f"the run's environment imports the module {module}; if you trust it, say so: --env {stored}")
    if given is not None and given != stored:
        raise UserError(f"the run's environment is {stored}, not {given}")


def make(source: str | EnvSpec | Callable[..., gym.Env], **kwargs: Any) -> gym.Env:
    """An environment by id or from a function, with `STEP_LIMIT` where there is no time limit.

    Two notices that every user of HalfCheetah-v4 would see many times are left out: that v5 exists, and that MuJoCo
    deprecates an attribute in the task's file."""
    try:
        import mujoco  # loads slowly, and --help must not wait for it
    except Exception as error:  # of its drawing part, which also raises an AttributeError where a library is missing
        chosen = os.environ.get("MUJOCO_GL")
        remedy = f"MUJOCO_GL is {chosen!r}: unset it, or take egl, glfw or osmesa, whichever library is installed"
        why = f"MuJoCo cannot be imported ({type(error).__name__}: {str(error).splitlines()[0]})"
        raise UserError(f"{why}; {remedy if chosen else 'install it anew'}") from error

    if hasattr(mujoco, "set_mju_user_warning"):
        mujoco.set_mju_user_warning(_warn_from_mujoco)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date.*")
        env = gym.make(source, **kwargs) if isinstance(source, str | EnvSpec) else source(**kwargs)
    if not isinstance(env, gym.Env):
        raise UserError(f"the function made a {type(env).__name__}, no Gymnasium environment; give a VecEnv as it is")
    has_limit = time_limit(env) is not None or (env.spec is not None and env.spec.max_episode_steps is not None)
    return env if has_limit else wrappers.TimeLimit(env, STEP_LIMIT)


def _warn_from_mujoco(message: str) -> None:
    if "settotalmass" not in message:
        warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=2)
