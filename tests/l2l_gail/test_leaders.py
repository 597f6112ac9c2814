"""PPO as the leader: the transitions it hands over, and what it makes of the rewards that it gets back."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Normal

from l2l_experiment.errors import Diverged
from l2l_gail import Environment, PPOLeader
from l2l_gail.leaders.ppo import clipped_log_prob
from l2l_gail.rewards import ReturnScale


class Game:
    """Notes what it is asked, and pays by a function of the transitions."""

    def __init__(self, pay=lambda transitions: np.ones(len(transitions))):
        self.pay, self.asked, self.rounds, self.progress = pay, [], [], []

    def between_rounds(self):
        self.asked.append("between")

    def answer(self, transitions, progress):
        self.asked.append("answer")
        self.rounds.append(transitions)
        self.progress.append(progress)

    def reward(self, transitions):
        self.asked.append("reward")
        return self.pay(transitions)


@pytest.fixture
def train(config):
    """Trains and returns leader and game; PPO's buffer is that of the last round."""

    def train(steps, game=None, env="HalfCheetah-v4", before=lambda leader: None, **settings):
        settings = replace(config, **{"normalize_reward": False, "learning_rate": 1e-12} | settings)
        envs = Environment(env).vectorised(settings.n_envs, 0)
        envs.training = False
        leader, game = PPOLeader.make(envs, settings, torch.device("cpu")), game or Game()
        before(leader)
        leader.learn(steps, game, callback=None, reset_num_timesteps=True)
        return leader, game

    return train


def by_step(leader, name):
    """Part of PPO's buffer as (steps, n_envs): after training it lies environment after environment."""
    part, envs = getattr(leader.algorithm.rollout_buffer, name), leader.envs.num_envs
    return part if part.ndim == 2 and part.shape[1] == envs else part.reshape(envs, -1).T


def values_of_five(leader):
    """Makes its value function say 5 everywhere."""
    leader.algorithm.policy.value_net.weight.data.zero_()
    leader.algorithm.policy.value_net.bias.data.fill_(5.0)


@pytest.mark.parametrize("scaled", [False, True])
def test_every_transition_gets_its_own_reward(train, scaled):
    def pay(transitions):
        return transitions.observations[:, 8] + transitions.actions[:, 0]

    leader, game = train(150, Game(pay), normalize_reward=scaled)
    scale, last = ReturnScale(2, 0.99) if scaled else lambda rewards, _: rewards, game.rounds[-1]
    for transitions in game.rounds:  # the scale is that of all rounds so far
        paid = scale(pay(transitions).reshape(32, 2), np.zeros((32, 2)))
    np.testing.assert_allclose(by_step(leader, "rewards"), paid, rtol=1e-5)
    seen = leader.algorithm.rollout_buffer.observations.reshape(2, 32, 17).swapaxes(0, 1).reshape(64, 17)
    np.testing.assert_allclose(leader.envs.normalize_obs(last.observations), seen, rtol=1e-4, atol=1e-5)
    assert game.progress == pytest.approx([64 / 150, 128 / 150, 1.0])
    assert game.asked == ["between", "answer", "reward"] * 3


def test_advantages_follow_the_learned_reward(train):
    leader, _ = train(64, gamma=0.9, gae_lambda=1.0)
    returns, values = by_step(leader, "returns"), by_step(leader, "values")
    np.testing.assert_allclose(returns[:-1], 1.0 + 0.9 * returns[1:], rtol=1e-4)
    np.testing.assert_allclose(by_step(leader, "advantages"), returns - values, atol=1e-5)
    after = torch.as_tensor(leader.algorithm._last_obs, dtype=torch.float32)
    value = leader.algorithm.policy.predict_values(after).detach().numpy()[:, 0]
    np.testing.assert_allclose(returns[-1], 1.0 + 0.9 * value, rtol=1e-4)


def test_a_time_limit_is_no_end_and_its_value_is_added(train):
    leader, game = train(512, env="Pendulum-v1", n_steps=256, before=values_of_five)
    expected = np.ones((256, 2))
    expected[199] = 1 + 0.99 * 5  # Pendulum's limit is 200 steps
    np.testing.assert_allclose(by_step(leader, "rewards"), expected, rtol=1e-5)
    (transitions,) = game.rounds
    assert not transitions.ended.any()
    assert follows(transitions, steps=256) == {(199, 0), (199, 1)}


def test_a_fall_is_an_end_and_no_value_is_added(train):
    leader, game = train(256, env="Hopper-v4", n_steps=128, before=values_of_five)
    (transitions,) = game.rounds
    falls = {(step, env) for step, env in np.argwhere(transitions.ended.reshape(128, 2))}
    assert len(falls) > 2, "a random hopper falls within 128 steps"
    assert follows(transitions, steps=128) == falls - {(127, 0), (127, 1)}
    np.testing.assert_allclose(by_step(leader, "rewards"), 1.0)
    low = transitions.next_observations[transitions.ended]
    assert ((low[:, 0] < 0.7) | (abs(low[:, 1]) > 0.2)).all(), "the observations are those in which it has fallen"


def follows(transitions, steps):
    """Where the next observation is not that of the next step: an episode's last one, before the reset."""
    now = transitions.observations.reshape(steps, 2, -1)
    following = transitions.next_observations.reshape(steps, 2, -1)
    return {(step, env) for step, env in np.argwhere((now[1:] != following[:-1]).any(axis=2))}


def test_actions_are_those_that_the_environment_executed(train):
    env = gym.make("Pendulum-v1")
    _, game = train(64, env="Pendulum-v1", log_std_init=2.0)
    (transitions,) = game.rounds
    assert abs(transitions.actions).max() == 2.0
    for index in range(0, 40, 7):
        x, y, speed = transitions.observations[index]
        env.reset()
        env.unwrapped.state = np.array([np.arctan2(y, x), speed])
        reached = env.step(transitions.actions[index])[0]
        np.testing.assert_allclose(reached, transitions.next_observations[index], atol=1e-4)


def test_rollouts_go_on_from_where_the_environments_are_and_train_nothing(train):
    leader, game = train(64, log_std_init=2.0)
    before = [weight.clone() for weight in leader.algorithm.policy.parameters()]
    first, second = leader.rollout(), leader.rollout()
    np.testing.assert_array_equal(first.observations[:2], game.rounds[-1].next_observations[-2:])
    np.testing.assert_array_equal(second.observations[:2], first.next_observations[-2:])
    assert len(first) == leader.round_size == 64
    assert abs(first.actions).max() == 1.0
    assert all(torch.equal(one, two) for one, two in zip(before, leader.algorithm.policy.parameters(), strict=True))


def test_a_policy_that_is_no_number_is_said_before_anybody_saves_it(train):
    def spoil(leader):
        next(leader.algorithm.policy.parameters()).data.fill_(float("nan"))

    game = Game()
    with pytest.raises(Diverged, match="--learning-rate"):
        train(64, before=spoil)
    with pytest.raises(Diverged):
        train(128, game, learning_rate=1e30)
    assert game.asked == ["between", "answer", "reward"]  # after the round that spoiled it nobody is asked


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.3), (0.9, 0.5), (-3.0, 0.2), (2.5, 1.0)])
def test_the_density_of_a_clipped_action_integrates_to_one_and_cannot_be_had_for_nothing(mean, deviation):
    normal, bound = Normal(torch.tensor([mean]), torch.tensor([deviation])), torch.ones(1)
    taken = torch.linspace(-1, 1, 200_001)[:, None]
    density = clipped_log_prob(normal, taken, -bound, bound).exp()
    assert float(torch.trapezoid(density[:, 0], taken[:, 0])) == pytest.approx(1.0, abs=1e-3)
    inside = taken.abs() < 0.97
    torch.testing.assert_close(density[inside], normal.log_prob(taken)[inside].exp())
    far = Normal(torch.tensor([5.0]), torch.tensor([0.2]))  # always 1 once it is clipped
    assert float(clipped_log_prob(far, bound, -bound, bound)) == pytest.approx(-np.log(0.02))
    assert float(far.log_prob(bound)) < -190, "which would be a reward of as much"


def test_the_leaders_log_prob_is_of_what_was_executed(config):
    envs = Environment("Pendulum-v1", rescale=False).vectorised(2, 0)
    leader = PPOLeader.make(envs, replace(config, log_std_init=1.0), torch.device("cpu"))
    leader.algorithm._last_obs = envs.reset()
    data = leader.rollout()
    assert (np.abs(data.actions) == 2).any(), "some are clipped"
    seen = torch.as_tensor(envs.normalize_obs(data.observations)).float()
    with torch.no_grad():
        normal = leader.algorithm.policy.get_distribution(seen).distribution
    bound = torch.full((1,), 2.0)
    expected = clipped_log_prob(normal, torch.as_tensor(data.actions), -bound, bound).sum(1)
    np.testing.assert_allclose(leader.log_prob(data), expected, rtol=1e-5)
