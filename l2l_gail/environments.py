"""Environments by id, by factory or as a vectorised one: their spaces, copies of them, and their exact state."""

import warnings
from collections.abc import Callable
from typing import Any, Union

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from stable_baselines3.common import vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from l2l_experiment.errors import UserError
from l2l_gail.spaces import Actions, ChannelsFirst, Observations, actions_of

LARGEST = 1e18  # of an observation's size: its square fits single precision
STEP_LIMIT = 10_000  # steps after which an episode of an environment without a limit is cut off: it might never end
# What MuJoCo derives from the state lags one substep behind it after a step, and rewards read these two as "before".
DERIVED = ("xpos", "xipos")
CLASSIC = ("state", "steps_beyond_terminated", "last_u")  # what the classic-control tasks keep from step to step
# Wrappers that keep nothing from one step to the next, or nothing that `state_dict` leaves out. Any other may.
KEEP_NOTHING = {
    *(Monitor, wrappers.TimeLimit, wrappers.OrderEnforcing, wrappers.PassiveEnvChecker, wrappers.ClipAction),
    *(wrappers.RescaleAction, wrappers.RescaleObservation, wrappers.FlattenObservation, wrappers.FilterObservation),
    *(wrappers.DtypeObservation, wrappers.ReshapeObservation, wrappers.ClipReward, ChannelsFirst),
}
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
            env.close()
        self.observations = Observations(env.observation_space, self.name)
        self.actions = actions_of(env.action_space, self.name, rescale)

    def make(self, **kwargs: Any) -> gym.Env:
        """A copy with converted observations and the environment's own actions, and with `STEP_LIMIT` where there is no
        time limit; UserError if it is a `VecEnv`."""
        if isinstance(self.source, VecEnv):
            raise UserError("a VecEnv cannot be copied; give GAIL a function that makes one environment")
        return self.observations.wrap(make(self.source, **kwargs))

    def vectorised(self, n_envs: int, seed: int) -> VecNormalize:
        """`n_envs` copies in one process behind one observation filter, that take a policy's actions; true returns stay
        visible through `Monitor`. Images are not filtered.

        One process, because stepping MuJoCo in subprocesses is several times slower on few cores. A `VecEnv` is taken
        as it is."""
        if isinstance(self.source, VecEnv):
            envs = self.source
            if not (vec_env.is_vecenv_wrapped(envs, VecMonitor) or all(envs.env_is_wrapped(Monitor))):
                envs = VecMonitor(envs)
            envs.seed(seed)
        else:
            envs = DummyVecEnv([lambda: Monitor(self.make()) for _ in range(n_envs)])
            envs.buf_infos = _Infos(envs.buf_infos)
            envs.seed(seed)
            for index, env in enumerate(envs.envs):
                env.action_space.seed(seed + index)
        if envs.action_space != self.actions.policy_space or envs.observation_space != self.observations.space:
            envs = Adapted(envs, self)
        return VecNormalize(Checked(envs, self.name), norm_obs=not self.observations.image, norm_reward=False)


class _Infos(list):
    """A step's infos, of which `DummyVecEnv` makes a deep copy each time: as slow as a policy's forward pass."""

    def __deepcopy__(self, memo: Any) -> list[dict[str, Any]]:
        return [dict(info) for info in self]


class Adapted(VecEnvWrapper):
    """Takes a policy's actions, and returns converted observations, where either differs from the environment's own."""

    def __init__(self, venv: VecEnv, env: Environment) -> None:
        super().__init__(venv, env.observations.space, env.actions.policy_space)
        self.env = env

    def step_async(self, actions: np.ndarray) -> None:
        self.venv.step_async(self.env.actions.executed(actions))

    def converted(self, observations: Any) -> np.ndarray:
        return self.env.observations.convert(observations, self.env.name)

    def reset(self) -> np.ndarray:
        return self.converted(self.venv.reset())

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for index in np.flatnonzero(dones):
            if (last := infos[index].get("terminal_observation")) is not None:
                infos[index]["terminal_observation"] = self.env.observations.one(last)
        return self.converted(observations), rewards, dones, infos


class Checked(VecEnvWrapper):
    """UserError where an environment returns an observation that no network can use, at which step and component; keeps
    an episode's last observation in `info["last_observation"]`: `VecNormalize` standardises the other one."""

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


def environment(source: EnvLike, *, rescale: bool | None = None) -> Environment:
    """The `Environment` that an id, a factory, a `VecEnv` or an `Environment` stands for."""
    return source if isinstance(source, Environment) else Environment(source, rescale=rescale)


def actions_of_envs(envs: VecEnv) -> Actions:
    """The actions that vectorised environments take, as `Environment.vectorised` or somebody else made them."""
    inner = envs
    while isinstance(inner, VecEnvWrapper):
        if isinstance(inner, Adapted):
            return inner.env.actions
        inner = inner.venv
    return actions_of(envs.action_space, "the environment", rescale=False)


def require_named(stored: str, given: str | None) -> None:
    """UserError if a stored id names a module, which opening it would import, and nobody has `given` the same id."""
    if ":" in stored and stored != given:
        module = stored.partition(":")[0]
        raise UserError(f"the run's environment imports the module {module}; if you trust it, say so: --env {stored}")


def make(source: str | Callable[..., gym.Env], **kwargs: Any) -> gym.Env:
    """An environment by id or from a function, with `STEP_LIMIT` where there is no time limit.

    Two notices that every user of HalfCheetah-v4 would see many times are left out: that v5 exists, and that MuJoCo
    deprecates an attribute in the task's file."""
    import mujoco  # loads slowly, and --help must not wait for it

    if hasattr(mujoco, "set_mju_user_warning"):
        mujoco.set_mju_user_warning(_pass_on)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date.*")
        env = gym.make(source, **kwargs) if isinstance(source, str) else source(**kwargs)
    has_limit = _time_limit(env) is not None or (env.spec is not None and env.spec.max_episode_steps is not None)
    return env if has_limit else wrappers.TimeLimit(env, STEP_LIMIT)


def _pass_on(message: str) -> None:
    if "settotalmass" not in message:
        warnings.warn(f"MuJoCo: {message}", RuntimeWarning, stacklevel=2)


def state_dict(envs: VecNormalize) -> dict[str, Any]:
    """A tree from which `load_state_dict` continues, exactly for Gymnasium's MuJoCo and classic-control environments in
    this process."""
    moments = getattr(envs, "obs_rms", None)  # none of images
    return {
        "filter": None
        if moments is None
        else {"mean": moments.mean, "var": moments.var, "count": float(moments.count)},
        "training": envs.training,
        "envs": [
            {
                "physics": _physics(env),
                "rewards": [float(reward) for reward in env.rewards],
                "elapsed": getattr(_time_limit(env), "_elapsed_steps", None),
                "rng": _generator(env.unwrapped.np_random),
                "action_rng": _generator(env.action_space.np_random),
            }
            for env in _single(envs)
        ],
    }


def load_state_dict(envs: VecNormalize, tree: dict[str, Any]) -> bool:
    """Continue from a `state_dict`. False if environments could not be put back mid-episode and were reset instead."""
    singles = _single(envs)
    if len(tree["envs"]) != len(singles):
        raise UserError(f"the checkpoint holds {len(tree['envs'])} environments, this run has {len(singles)}")
    envs.reset()  # after it every wrapper counts as started
    if (kept := tree["filter"]) is not None:
        envs.obs_rms.mean, envs.obs_rms.var, envs.obs_rms.count = kept["mean"].copy(), kept["var"].copy(), kept["count"]
    envs.training = tree["training"]
    exact = bool(singles) and all(state["physics"] is not None for state in tree["envs"])
    for env, state in zip(singles, tree["envs"], strict=True):
        for generator, name in ((env.unwrapped.np_random, "rng"), (env.action_space.np_random, "action_rng")):
            if state[name] is not None and _generator(generator) is not None:
                generator.bit_generator.state = state[name]
        if exact:
            _set_physics(env, state["physics"])
            env.rewards = list(state["rewards"])
            if (limit := _time_limit(env)) is not None:
                limit._elapsed_steps = state["elapsed"]
    return exact


def _single(envs: VecNormalize) -> list[gym.Env]:
    """The environments behind a vectorised one, if they are in this process and ours to look into."""
    inner = envs.unwrapped
    monitored = isinstance(inner, DummyVecEnv) and all(isinstance(env, Monitor) for env in inner.envs)
    return list(inner.envs) if monitored else []


def _generator(generator: Any) -> dict[str, Any] | None:
    """The state of Gymnasium's own kind of generator; None for another, which goes on from a fresh start."""
    bits = getattr(generator, "bit_generator", None)
    return bits.state if isinstance(bits, np.random.PCG64) else None


def _physics(env: gym.Env) -> dict[str, Any] | None:
    """The whole state of one of Gymnasium's MuJoCo or classic-control environments behind wrappers that keep nothing,
    or None: any other may keep something elsewhere."""
    core = env.unwrapped
    while isinstance(env, gym.Wrapper):
        if type(env) not in KEEP_NOTHING:
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


def _time_limit(env: gym.Env) -> wrappers.TimeLimit | None:
    while isinstance(env, gym.Wrapper) and not isinstance(env, wrappers.TimeLimit):
        env = env.env
    return env if isinstance(env, wrappers.TimeLimit) else None
