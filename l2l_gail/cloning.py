"""Behaviour cloning: the baseline without an adversary, and an optional start for GAIL."""

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy


def clone(
    policy: ActorCriticPolicy,
    observations: np.ndarray,
    actions: np.ndarray,
    *,
    epochs: int,
    generator: torch.Generator,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
) -> float:
    """Fit the policy's mean action to actions (n, A) by least squares; returns the last epoch's mean loss.

    `observations` (n, O) are those that the policy sees, standardised. Standard deviation and value function stay as
    they are: demonstrations of a deterministic expert would drive the former to 0, and PPO then could not explore."""
    inputs = torch.as_tensor(observations, dtype=torch.float32, device=policy.device)
    targets = torch.as_tensor(actions, device=policy.device)
    weights = [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    losses = [float("nan")]
    for _ in range(epochs):
        losses = []
        for rows in torch.randperm(len(inputs), generator=generator).split(batch_size):
            predicted = policy.get_distribution(inputs[rows]).distribution.mean
            loss = (predicted - targets[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return float(np.mean(losses))
