"""A follower of your own for GAIL: one class, one row in the table, and every command knows it.

python examples/own_follower.py --env HalfCheetah-v4 --follower momentum"""

import torch

from l2l_gail import FOLLOWERS, RuleFollower
from l2l_gail.cli import main, parse
from l2l_gail.followers import Recipe

__all__ = ["main", "parse"]


class Momentum:
    """The sign of a momentum: a pair `init`/`update` over named weights, like every rule of the engine."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def init(self, weights):
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def update(self, gradient, state, weights):
        state = {name: 0.9 * state[name] + 0.1 * gradient[name] for name in weights}
        return {name: -self.learning_rate * state[name].sign() for name in weights}, state


class MomentumFollower(RuleFollower):
    def __init__(self, discriminator, config):
        super().__init__(discriminator, config, Momentum(config.disc_learning_rate))


FOLLOWERS["momentum"] = Recipe("sign of a momentum", "this file", MomentumFollower)

if __name__ == "__main__":
    main()
