"""Whether the objects that `GAIL` is given are what they should be."""

from typing import Any

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


def _told(given: Any) -> str:
    return repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
