"""A follower of your own for GAIL: a rule says how a gradient becomes a step; the engine does the rest."""

from dataclasses import replace

import torch

from l2l_gail.config import tuned
from l2l_gail.followers import AdamFollower
from l2l_gail.gail import GAIL
from l2l_gail.training import TrainArgs, find_demonstrations


class Momentum:
    """The sign of a momentum: a pair `init`/`update` over named weights, like every rule of the engine."""

    rate = 1e-4

    def init(self, weights):
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def update(self, gradient, state, weights):
        state = {name: 0.9 * state[name] + 0.1 * gradient[name] for name in weights}
        return {name: -self.rate * state[name].sign() for name in weights}, state


def main(steps=100_000, **settings):
    """Train with it in the place of Adam's rule."""
    config = replace(tuned("HalfCheetah-v4"), **settings)
    gail = GAIL(config, find_demonstrations(TrainArgs(settings=config))[0])
    follower = gail.follower = AdamFollower(gail.discriminator, config)
    follower.rule, follower.memory = Momentum(), Momentum().init(follower.weights)
    return gail.learn(steps)


if __name__ == "__main__":
    main()
