"""What people slip on who give GAIL objects: each slip is one sentence, and none changes a result in silence."""

from copy import deepcopy
from dataclasses import dataclass, replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from torch import nn

from l2l_experiment.errors import UserError
from l2l_gail import FOLLOWERS, GAIL, Discriminator, Environment, PPOLeader, load_demonstrations
from l2l_gail.followers import OptimizerFollower, RuleFollower
from tests.l2l_gail.conftest import make_demonstrations
from tests.l2l_gail.test_objects import Wanderer, moved, pendulum


def test_an_evaluation_keeps_the_policys_filter(config, pushes):
    """`EvalCallback`, and `evaluate_policy` on raw observations."""
    gail = GAIL(pendulum, pushes, config=config)
    evaluation = EvalCallback(
        gail.env.vectorised(1, seed=5, training=False), eval_freq=16, n_eval_episodes=1, verbose=0
    )
    gail.learn(64, callback=evaluation)
    np.testing.assert_array_equal(evaluation.eval_env.obs_rms.mean, gail.model.filter.mean)
    mean, _ = evaluate_policy(gail, pendulum(), n_eval_episodes=1, warn=False)
    assert np.isfinite(mean)


def test_a_follower_belongs_to_its_discriminator(config, pushes):
    discriminator = Discriminator(4, (16,))
    follower = FOLLOWERS["adam"].make(discriminator, config)
    with pytest.raises(UserError, match="made for another discriminator"):
        GAIL(pendulum, pushes, config=config, follower=follower)
    assert moved(GAIL(pendulum, pushes, config=config, discriminator=discriminator, follower=follower))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.full((41, 3), np.nan)}, "observations that are NaN or infinite"),
        ({"actions": np.full((40, 1), 7.0, np.float32)}, "an action out of bounds"),
        ({"observations": np.zeros((41, 5))}, r"observations of shape \(5,\)"),
    ],
)
def test_demonstrations_made_by_hand_are_checked(config, changes, message):
    made = make_demonstrations(3, 1)
    wrong = replace(made, episodes=[made.episodes[0], replace(made.episodes[1], **changes)])
    with pytest.raises(UserError, match=f"episode 1 of random.*{message}"):
        GAIL(pendulum, wrong, config=config)
    with pytest.raises(UserError, match=message):
        GAIL(pendulum, made, config=config, monitor=wrong)
    loaded = load_demonstrations(made, pendulum)
    assert load_demonstrations(loaded, pendulum) is loaded  # checked once
    with pytest.raises(UserError, match=message):
        GAIL(pendulum, replace(loaded, episodes=wrong.episodes), config=config)
    with pytest.raises(UserError, match="recorded in Hopper-v4, not in Pendulum-v1"):
        GAIL("Pendulum-v1", replace(made, env_id="Hopper-v4"), config=config)


def test_a_reward_is_not_drawn_at_random(config, pushes):
    parts = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))
    gail = GAIL(pendulum, pushes, config=config, discriminator=nn.Sequential(*parts)).learn(64)
    first, second = gail.model.score(gail.train_expert), gail.model.score(gail.train_expert.rows(slice(0, 1)))
    assert first[0] == pytest.approx(second[0])


def test_a_leader_acts_in_the_same_units(config, pushes):
    envs = Environment(pendulum, rescale=False).vectorised(2, 0)
    leader = PPOLeader(PPO("MlpPolicy", envs, n_steps=32, batch_size=32, device="cpu"))
    with pytest.raises(UserError, match="the leader's environments have actions"):
        GAIL(pendulum, pushes, config=config, leader=leader)


class Silent(nn.Linear):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x).squeeze(-1)


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x.detach()).squeeze(-1)


class Numpy(nn.Linear):
    def forward(self, x):
        return super().forward(x).squeeze(-1).detach().numpy()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Silent, "answers without a gradient"),
        (Detached, "gives its inputs no gradient"),
        (Numpy, r"a tensor of n logits, shape \(n,\); of 2 it gave a ndarray"),
    ],
)
def test_a_discriminator_must_be_differentiable(config, pushes, kind, message):
    with pytest.raises(UserError, match=message):
        GAIL(pendulum, pushes, config=config, discriminator=kind(4, 1))


@pytest.mark.parametrize("env", [None, 5, [pendulum], gym.make_vec("Pendulum-v1", num_envs=2)])
def test_what_is_no_environment_is_told(config, pushes, env):
    with pytest.raises(UserError, match="the environment must be an id, a function"):
        GAIL(env, pushes, config=config)


def test_more_slips_are_one_sentence(config, pushes, monkeypatch):
    gail = GAIL(pendulum, pushes, config=config)
    for steps in ("64", float("nan"), float("inf")):
        with pytest.raises(UserError, match="total_timesteps must be a number of steps"):
            gail.learn(steps)
    with pytest.raises(TypeError, match="cannot be copied: save it"):
        deepcopy(gail)
    with pytest.raises(UserError, match=r"lambda w: SGD\(w, lr="):
        GAIL(pendulum, pushes, config=config, follower=torch.optim.SGD)
    with pytest.raises(UserError, match="one parameter group, not 2"):
        GAIL(pendulum, pushes, config=config, follower=lambda d, c: OptimizerFollower(d, c, two_groups))
    with pytest.raises(UserError, match="a follower has holdout, answer"):
        GAIL(pendulum, pushes, config=config, follower=lambda d, c: object())
    with pytest.raises(UserError, match="spectral_norm is for the discriminator that the settings make"):
        GAIL(pendulum, pushes, config=replace(config, spectral_norm=True), discriminator=Discriminator(4, (8,)))
    monkeypatch.setitem(FOLLOWERS, "mine", Wanderer)
    with pytest.raises(UserError, match=r"FOLLOWERS\['mine'\] must be a Recipe"):
        GAIL(pendulum, pushes, config=config)


def two_groups(weights):
    return torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:]}], lr=0.1)


@dataclass(frozen=True)
class Heavy:
    """A rule whose memory has the name of an earlier one of ours."""

    def init(self, variable):
        return {"momenta": {name: torch.zeros_like(weight) for name, weight in variable.items()}}

    def update(self, gradient, state, variable):
        momenta = {name: 0.9 * state["momenta"][name] + gradient[name] for name in gradient}
        return {name: -0.01 * one for name, one in momenta.items()}, {"momenta": momenta}


def test_a_rule_of_ones_own_keeps_its_memory(config, pushes, tmp_path):
    def follower(discriminator, settings):
        return RuleFollower(discriminator, settings, Heavy())

    GAIL(pendulum, pushes, config=config, follower=follower).learn(64).save(tmp_path)
    again = GAIL.load(tmp_path, pushes, env=pendulum, follower=follower)
    assert moved(again)
