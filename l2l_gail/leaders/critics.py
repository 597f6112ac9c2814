"""SAC's policies with layer normalisation in the critics, made of Stable-Baselines3 and torch alone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.sac import policies
from torch import nn


class _LayerNormCritics:
    """Puts a layer normalisation behind each hidden linear layer of the critics (Ball et al., 2023)."""

    def make_critic(self, *args: Any, **kwargs: Any) -> ContinuousCritic:
        critic = super().make_critic(*args, **kwargs)
        for index, network in enumerate(critic.q_networks):
            *hidden, head = network
            layers = []
            for layer in hidden:
                layers.append(layer)
                if isinstance(layer, nn.Linear):
                    layers.append(nn.LayerNorm(layer.out_features, device=layer.weight.device))
            critic.q_networks[index] = nn.Sequential(*layers, head)
            setattr(critic, f"qf{index}", critic.q_networks[index])
        return critic


class MlpPolicy(_LayerNormCritics, policies.SACPolicy):
    """Stable-Baselines3's `MlpPolicy` for SAC, with normalised critics."""


class CnnPolicy(_LayerNormCritics, policies.CnnPolicy):
    """Stable-Baselines3's `CnnPolicy` for SAC, with normalised critics."""


@contextmanager
def saved_with_policies() -> Iterator[None]:
    """What Stable-Baselines3 saves within the block holds these classes, so that it opens without this package."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)
