"""Generative adversarial imitation learning, with a discriminator that a learned follower may update."""

from l2l_gail.config import GAILConfig, tuned
from l2l_gail.demonstrations import Demonstrations, Episode, load_demonstrations
from l2l_gail.discriminator import Discriminator
from l2l_gail.environments import Environment
from l2l_gail.followers import FOLLOWERS, Follower, RuleFollower
from l2l_gail.gail import GAIL
from l2l_gail.leaders import Leader, PPOLeader, SACLeader
from l2l_gail.reward_model import RewardModel
from l2l_gail.transitions import Transitions

__all__ = ["FOLLOWERS", "GAIL", "Demonstrations", "Discriminator", "Environment", "Episode", "Follower", "GAILConfig"]
__all__ += [
    "Leader",
    "PPOLeader",
    "RewardModel",
    "RuleFollower",
    "SACLeader",
    "Transitions",
    "load_demonstrations",
    "tuned",
]
