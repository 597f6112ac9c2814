"""Behaviour cloning: the baseline without an adversary, and an optional start for GAIL."""

import numpy as np
import torch

from l2l_gail.demonstrations import Demonstrations
from l2l_gail.gail import GAIL


def clone(gail: GAIL, demonstrations: Demonstrations, *, epochs: int, batch: int = 256, rate: float = 1e-3) -> float:
    """Fit the policy's mean action to the demonstrations by least squares; returns the last epoch's mean loss.

    A running observation filter first takes in the demonstrations. Standard deviation and value function stay as they
    are: demonstrations of a deterministic expert would drive the former to zero, and PPO then could not explore.
    """
    observations, actions, _ = demonstrations.transitions()
    if gail.config.filter == "running" and gail.ppo.num_timesteps == 0:
        gail.envs.obs_rms.update(observations.astype(np.float64))
    policy, device = gail.ppo.policy, gail.device
    inputs = torch.as_tensor(gail.envs.normalize_obs(observations), dtype=torch.float32, device=device)
    targets = torch.as_tensor(actions, device=device)
    weights = [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]
    optimizer = torch.optim.Adam(weights, lr=rate)
    mean_loss = float("nan")
    for _ in range(epochs):
        losses = []
        for rows in torch.randperm(len(inputs), generator=gail.generator).split(batch):
            predicted = policy.get_distribution(inputs[rows]).distribution.mean
            loss = (predicted - targets[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        mean_loss = float(np.mean(losses))
    return mean_loss
