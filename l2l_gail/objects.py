"""Whether the objects that `GAIL` is given are what they should be."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from l2l_experiment.errors import UserError
from l2l_gail.config import GAILConfig
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.reward_model import RewardModel

ADVICE = {
    GAILConfig: "such as replace(tuned(env), seed=1)",
    nn.Module: "an instance and not its class",
    RewardModel: "such as RewardModel.load(folder, Environment(env))",
    Demonstrations: "such as load_demonstrations(source, env)",
}


def require_objects(config: Any, leader: Any, discriminator: Any, follower: Any, reward: Any, monitor: Any) -> None:
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
