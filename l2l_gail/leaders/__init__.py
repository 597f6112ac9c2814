"""Leaders: Stable-Baselines3 algorithms that learn from the discriminator's reward."""

from l2l_gail.leaders.base import Game, Leader
from l2l_gail.leaders.ppo import PPOLeader

__all__ = ["Game", "Leader", "PPOLeader"]
