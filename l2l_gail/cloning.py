"""Behaviour cloning: the baseline without an adversary, and an optional start for GAIL."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn


def clone(
    policy: BasePolicy,
    observations: np.ndarray,
    actions: np.ndarray,
    *,
    epochs: int,
    generator: torch.Generator,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    on_epoch: Callable[[int], None] | None = None,
) -> float:
    """Fit the policy to actions of its own space, shape (n, *shape); returns the last epoch's mean loss. `on_epoch` is
    called after each epoch with their number so far, and may raise to stop.

    `observations` (n, *shape) are those that the policy sees, standardised. Where actions are continuous its mean is
    fitted by least squares, and its standard deviation stays as it is: demonstrations of a deterministic expert would
    drive it to 0, and the policy could not explore. Elsewhere the likelihood is maximised. Value functions
    stay, but for features of images that they share with the policy."""
    inputs = torch.as_tensor(observations, device=policy.device)
    targets = torch.as_tensor(actions, device=policy.device)
    optimizer = torch.optim.Adam(list(actor_parameters(policy)), lr=learning_rate)
    losses = [float("nan")]
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(inputs), generator=generator).split(batch_size):
            loss = bc_loss(policy, inputs[rows], targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        if on_epoch is not None:
            on_epoch(epoch + 1)
    return float(np.mean(losses))


def actor_parameters(policy: BasePolicy) -> Iterator[nn.Parameter]:
    """The weights that decide on a policy's action."""
    if isinstance(policy, SACPolicy):
        yield from policy.actor.parameters()
        return
    for part in (policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net):
        yield from part.parameters()


def bc_loss(policy: BasePolicy, inputs: Tensor, targets: Tensor) -> Tensor:
    """How far the policy's actions are from those of the demonstrations."""
    if isinstance(policy, SACPolicy):
        scaled = torch.as_tensor(policy.scale_action(targets.cpu().numpy()), dtype=torch.float32, device=policy.device)
        return (policy.actor(inputs, deterministic=True) - scaled).square().mean()
    found = policy.get_distribution(inputs)
    if isinstance(policy.action_space, spaces.Box):
        return (found.distribution.mean - targets).square().mean()
    return -found.log_prob(targets.float()).mean()
