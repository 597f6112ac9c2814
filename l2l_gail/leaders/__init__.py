"""Leaders: Stable-Baselines3 algorithms that learn from the discriminator's reward."""

from l2l_gail.leaders.base import Game, Leader
from l2l_gail.leaders.ppo import PPOLeader
from l2l_gail.leaders.sac import SACLeader

LEADERS = {"ppo": PPOLeader, "sac": SACLeader}

__all__ = ["LEADERS", "Game", "Leader", "PPOLeader", "SACLeader"]
