"""Who updates the discriminator: Adam, a learned rule, or any other follower."""

from l2l_gail.followers.base import Follower, Objectives, commit, weights_of
from l2l_gail.followers.optimizers import OptimizerFollower
from l2l_gail.followers.pretrained import PretrainedFollower
from l2l_gail.followers.recipes import FOLLOWERS, Recipe, resolve_config, score_config, uses_setting
from l2l_gail.followers.rules import AdamFollower, L2LFollower, RuleFollower

__all__ = ["FOLLOWERS", "AdamFollower", "Follower", "L2LFollower", "Objectives", "OptimizerFollower"]
__all__ += [
    "PretrainedFollower",
    "Recipe",
    "RuleFollower",
    "commit",
    "uses_setting",
    "score_config",
    "resolve_config",
    "weights_of",
]
