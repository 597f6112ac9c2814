"""Whether the objects that `GAIL` is given are what they should be."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from l2l_experiment.errors import UserError
from l2l_gail.config import GAILConfig
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.environments import Environment
from l2l_gail.reward_model import RewardModel

ADVICE = {
    GAILConfig: "such as replace(tuned(env), seed=1)",
    nn.Module: "an instance and not its class",
    RewardModel: "such as RewardModel.load(folder, Environment(env))",
    Demonstrations: "such as load_demonstrations(source, env)",
}


def require_objects(
    config: Any, leader: Any, discriminator: Any, follower: Any, reward: Any, monitor: Any, policy_kwargs: Any
) -> None:
    """UserError for an object of another kind; None stands for one that is not given."""
    objects = {"config": config, "discriminator": discriminator, "reward": reward, "monitor": monitor}
    for (name, given), kind in zip(objects.items(), ADVICE, strict=True):
        if given is not None and not isinstance(given, kind):
            raise UserError(f"{name} must be a {kind.__name__}, {ADVICE[kind]}; got {_told(given)}")
    for name, given in (("leader", leader), ("follower", follower)):
        if isinstance(given, str):
            setting = f"tuned(env, {given!r})" if name == "leader" else f"replace(tuned(env), follower={given!r})"
            raise UserError(f"{name} takes an object; by name it is a setting: config={setting}")
    if leader is not None and not hasattr(leader, "rollout"):
        raise UserError(f"leader must be a PPOLeader, a SACLeader or alike; got {_told(leader)}")
    if follower is not None and not (callable(follower) or hasattr(follower, "answer")):
        raise UserError(f"follower must be a Follower or a function that makes one; got {_told(follower)}")
    if isinstance(follower, type) and issubclass(follower, torch.optim.Optimizer):
        made = f"lambda d, c: OptimizerFollower(d, c, lambda w: {follower.__name__}(w, lr=c.disc_learning_rate))"
        raise UserError(f"an optimiser is given as follower={made}, from l2l_gail.followers")
    if leader is not None and policy_kwargs:
        raise UserError("policy_kwargs are those of the leader that the settings name; a given one has a policy")
    if reward is not None and (discriminator is not None or follower is not None):
        raise UserError("a given reward is not learned: leave out discriminator and follower")
    if discriminator is not None and config is not None and config.spectral_norm:
        raise UserError("spectral_norm is for the discriminator that the settings make; a given one has its own layers")


def require_steps(total_timesteps: Any) -> None:
    """UserError unless this is a number of environment steps."""
    if not (isinstance(total_timesteps, Real) and 0 <= total_timesteps < math.inf):
        raise UserError(f"total_timesteps must be a number of steps, 0 or more, got {total_timesteps!r}")


def refuse_copy(one: Any, _: Any) -> None:
    """`__deepcopy__` of what holds environments and compiled functions."""
    raise TypeError(f"a {type(one).__name__} cannot be copied: save it, and load the copy from the folder")


def require_follower_of(follower: Any, discriminator: nn.Module) -> None:
    """UserError unless the follower has its verbs, and moves this discriminator."""
    missing = [verb for verb in ("holdout", "answer") if not hasattr(follower, verb)]
    if missing:
        raise UserError(f"a follower has {', '.join(missing)}; this one, {_told(follower)}, has not")
    if getattr(follower, "discriminator", discriminator) is not discriminator:
        raise UserError(
            "the follower was made for another discriminator: give that one too, GAIL(..., discriminator=...), or "
            "give a function that makes the follower from a discriminator and the settings"
        )


def require_leader_of(leader: Any, env: Environment) -> None:
    """UserError unless a leader acts in the spaces of this environment, in the same units."""
    for name, theirs, ours in (
        ("observations", leader.envs.observation_space, env.observations.space),
        ("actions", leader.envs.action_space, env.actions.policy_space),
    ):
        if theirs != ours:
            raise UserError(
                f"the leader's environments have {name} {theirs}, and GAIL's have {ours}: make both from one "
                "Environment, whose vectorised(...) the leader's algorithm takes"
            )


def layers(**modules: nn.Module) -> dict[str, list[str]]:
    """The classes of each module's parts: weights alone do not tell a network of ReLU from one of tanh."""
    return {name: [type(part).__name__ for part in module.modules()] for name, module in modules.items()}


def require_made_with(tree: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """UserError if the `state_dict` of another `GAIL` was made with other networks or other demonstrations than `own`.
    What one of the two does not know is not compared."""
    theirs, ours = tree.get("networks") or {}, own["networks"]
    if other := [name for name in theirs.keys() & ours.keys() if theirs[name] != ours[name]]:
        raise UserError(
            f"the {min(other)} of this checkpoint has other layers; give GAIL the objects that made it, such as "
            "policy_kwargs or discriminator"
        )
    theirs, ours = tree.get("demonstrations"), own["demonstrations"]
    if theirs and ours is not None and theirs != ours:
        raise UserError(
            "the demonstrations are not those that this checkpoint was trained on (another file or set, or it has "
            "changed since); name the right ones with --demos"
        )


def require_next_observations(demonstrations: Demonstrations, config: GAILConfig) -> None:
    """UserError if the discriminator reads next observations, and an episode is a single action without one."""
    if config.imitate == "pairs" and config.disc_form == "logit":
        return
    for number, one in enumerate(demonstrations.episodes):
        if len(one.actions) == 1 and np.array_equal(one.observations[0], one.observations[1]):
            reader = "--imitate states" if config.imitate == "states" else f"--disc-form {config.disc_form}"
            raise UserError(
                f"episode {number} of {demonstrations.source} is one action whose next observation is not known, and "
                f"{reader} needs it: give one observation more than actions in each episode"
            )


def _told(given: Any) -> str:
    return repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
