"""From the discriminator's logit to the leader's reward, and its scale."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2l_gail.config import RewardName

BIAS = {
    "gail": "is never negative: it rewards staying alive, whatever the policy does",
    "dail": "is never negative: it rewards staying alive, whatever the policy does",
    "logd": "is never positive: it rewards ending the episode early",
    "constant": "is a control that knows nothing of the demonstrations",
}


def reward(logit: Tensor, form: RewardName) -> Tensor:
    """The learned reward for logits h of "expert", D = sigmoid(h); same shape.

    `gail` −log(1−D) (Ho and Ermon, 2016, as their code has it for tasks that end on failure), `airl` h (Fu et al.,
    2018; Wasserstein's linear reward, too), `fairl` −h·eʰ (Ghasemipour et al., 2020), `logd` log D,
    `dail` D/2·(tanh h + 1) (Chirra et al., 2026), `constant` 1, the control for a survival bonus."""
    if form == "gail":
        return F.softplus(logit)
    if form == "airl":
        return logit
    if form == "fairl":
        return -logit * logit.clamp(max=10).exp()  # e^10 already dwarfs every other reward
    if form == "logd":
        return -F.softplus(-logit)
    if form == "dail":
        return torch.sigmoid(logit) * (logit.tanh() + 1) / 2
    if form == "constant":
        return torch.ones_like(logit)
    raise ValueError(f"reward must be gail, airl, fairl, logd, dail or constant, not {form!r}")


class ReturnScale:
    """Running standard deviation of the discounted return, by which the reward is divided.

    The reward is never centred: subtracting a mean would turn a bonus for surviving into a cost where episodes can end
    early. Older rounds are forgotten with `decay` a round, since the reward itself changes while it is learned."""

    def __init__(self, num_envs: int, gamma: float, decay: float = 0.95) -> None:
        self.gamma, self.decay = gamma, decay
        self.returns = np.zeros(num_envs)
        self.variance, self.weight = 0.0, 0.0

    def __call__(self, rewards: np.ndarray, dones: np.ndarray) -> np.ndarray:
        """Scaled rewards. Both arrays have shape (steps, num_envs); `dones[t]` says that step t ended an episode."""
        seen = np.empty_like(rewards, dtype=np.float64)
        for t in range(len(rewards)):
            self.returns = self.returns * self.gamma + rewards[t]
            seen[t] = self.returns
            self.returns = np.where(dones[t], 0.0, self.returns)
        self.weight = self.decay * self.weight + (1 - self.decay)
        self.variance = self.decay * self.variance + (1 - self.decay) * seen.var()
        scale = np.sqrt(self.variance / self.weight)
        return rewards / (scale + 1e-8 if scale > 1e-8 else 1.0)  # returns that never vary have no scale

    def state_dict(self) -> dict[str, Any]:
        return {"returns": self.returns, "variance": float(self.variance), "weight": float(self.weight)}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        self.returns, self.variance, self.weight = tree["returns"], tree["variance"], tree["weight"]
