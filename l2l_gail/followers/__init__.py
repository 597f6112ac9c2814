"""Who updates the discriminator: Adam, a learned rule, or any other follower."""

from l2l_gail.followers.base import Follower, Objectives, commit, weights_of
from l2l_gail.followers.optimizers import OptimizerFollower
from l2l_gail.followers.pretrained import PretrainedFollower
from l2l_gail.followers.recipes import EARLIER, FOLLOWERS, FORMER, Recipe, reads, score_config, settled
from l2l_gail.followers.rules import AdamFollower, L2LFollower, RuleFollower

__all__ = ["EARLIER", "FOLLOWERS", "FORMER", "AdamFollower", "Follower", "L2LFollower", "Objectives"]
__all__ += ["OptimizerFollower", "PretrainedFollower", "Recipe", "RuleFollower", "commit", "reads", "score_config"]
__all__ += ["settled", "weights_of"]
