"""Who is trained on what, what PPO is given, and how a policy is measured: by hand, on made-up transitions."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from l2l_gail import cloning, evaluation, playing, training
from l2l_gail import gail as module
from l2l_gail.followers import L2LFollower
from l2l_gail.gail import GAIL, make_ppo
from l2l_gail.rewards import ReturnScale, reward
from tests.l2l_gail.conftest import make_demonstrations


def made_up(seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(64, 17)), draw.uniform(-1, 1, size=(64, 6))


class Asked:
    """A follower that draws one objective of each kind and does nothing."""

    def respond(self, train, score, progress):
        train(), score()
        return {}


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn from: expert rows, policy rows, and the settings of the objective."""
    calls = []
    monkeypatch.setattr(module, "draw", lambda expert, policy, n, generator: calls.append([expert, policy]))
    monkeypatch.setattr(module, "objective", lambda discriminator, sample, config: calls[-1].append(config))
    return calls


@pytest.mark.parametrize("follower", ["adam", "l2l"])
def test_the_discriminator_learns_from_its_own_side_of_each_split(config, cheetah, drawn, monkeypatch, follower):
    monitor = make_demonstrations(17, 6, seed=9)
    settings = replace(config, follower=follower, replay_rounds=1, score_smoothing=0.1, spectral_norm=True)
    gail = GAIL(settings, cheetah, monitor=monitor)
    gail.follower, refreshed, measured = Asked(), [], []
    gail.discriminator.refresh = lambda: refreshed.append(1)
    health = module.health
    monkeypatch.setattr(module, "health", lambda d, *rows: (measured.append(rows), health(d, *rows))[1])
    rollouts = [made_up(1), made_up(2), made_up(3)]
    for rollout in rollouts:
        drawn.clear()
        measured.clear()
        gail.respond(rollout, 0.5)

    def rows(episodes, part):
        chosen = [(e.observations[:-1][part], e.actions[part]) for e in episodes]
        return gail.transitions(tuple(np.concatenate(column) for column in zip(*chosen, strict=True)))

    # Two rounds are remembered, the last one and one of replay; a quarter of demonstrations and of a rollout is held.
    policy = torch.cat([gail.transitions(rollout) for rollout in rollouts[1:]])
    if follower == "adam":
        everything = rows(cheetah.episodes, slice(None))
        expected = [(everything, policy), (everything, policy)]
    else:
        expected = [
            (rows(cheetah.episodes, slice(0, 30)), policy[:-16]),
            (rows(cheetah.episodes, slice(30, 40)), policy[-16:]),
        ]
    for (expert, imitator, _), (expert_by_hand, policy_by_hand) in zip(drawn, expected, strict=True):
        torch.testing.assert_close(expert, expert_by_hand)
        torch.testing.assert_close(imitator, policy_by_hand)
    assert [call[2] for call in drawn] == [gail.config, gail.scoring]
    assert gail.scoring.label_smoothing == 0.1
    torch.testing.assert_close(measured[0][0], expected[0][0])
    torch.testing.assert_close(measured[1][0], rows(monitor.episodes, slice(None)))
    for _, fresh in measured:
        torch.testing.assert_close(fresh, policy[-64:])
    assert len(refreshed) == len(rollouts)


def test_transitions_are_filtered_observations_and_plain_actions(config, cheetah):
    gail = GAIL(config, cheetah)
    observations, actions = made_up(1)
    gail.filter.update(3 * observations + 1)
    seen = gail.transitions((observations, actions)).numpy()
    np.testing.assert_allclose(seen[:, :17], gail.filter(observations), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen[:, 17:], actions, rtol=1e-6)
    assert not np.allclose(seen[:, :17], observations, atol=0.1)


def test_the_policys_filter_has_the_demonstrations_deviation(config, cheetah):
    wide = [replace(e, observations=3 * e.observations) for e in cheetah.episodes]
    gail = GAIL(config, replace(cheetah, episodes=wide))
    observations = np.concatenate([episode.observations[:-1] for episode in wide])
    np.testing.assert_allclose(gail.envs.normalize_obs(observations).std(axis=0), 1, atol=2e-3)


def test_what_demonstrations_never_vary_keeps_its_scale(config):
    # Many rows of numbers that single precision does not hold: their deviation must not be its rounding.
    long = make_demonstrations(17, 6, episodes=4, length=1000)
    for episode in long.episodes:
        episode.observations[:, 3], episode.observations[:, 4] = 0.45, 1.3
        episode.observations[:] = episode.observations.astype(np.float32)
    gail = GAIL(config, long)
    filtered = gail.envs.normalize_obs(np.full((1, 17), 1.4))
    assert filtered[0, 3] == pytest.approx(0.95, rel=1e-3)
    assert filtered[0, 4] == pytest.approx(0.1, rel=1e-3)


def test_what_ppo_is_given(config, cheetah, monkeypatch):
    """States before actions, rewards scaled over all rounds so far, and the value of what comes after the last step."""
    gail, rounds, buffers = GAIL(replace(config, env="HalfCheetah-v4"), cheetah), [], []
    respond, train = gail.respond, PPO.train
    gail.respond = lambda rollout, progress: (respond(rollout, progress), rounds.append((rollout, progress)))[0]

    def spy(ppo):
        buffer = ppo.rollout_buffer
        with torch.no_grad():
            logits = gail.discriminator(gail.transitions(rounds[-1][0]))
            last = ppo.policy.predict_values(torch.as_tensor(ppo._last_obs, dtype=torch.float32)).numpy().ravel()
        names = ("observations", "rewards", "returns")
        buffers.append({name: getattr(buffer, name).copy() for name in names} | {"last": last})
        buffers[-1] |= {"learned": reward(logits, "gail").numpy().reshape(32, 2), "ends": ppo._last_episode_starts}
        train(ppo)

    monkeypatch.setattr(PPO, "train", spy)
    gail.learn(150)
    scale = ReturnScale(2, config.gamma)
    assert len(buffers) == 3
    for (rollout, _), buffer in zip(rounds, buffers, strict=True):
        filtered = gail.envs.normalize_obs(rollout[0]).reshape(32, 2, 17)
        np.testing.assert_allclose(buffer["observations"], filtered, rtol=1e-4, atol=1e-5)
        assert not buffer["ends"].any()
        np.testing.assert_allclose(buffer["rewards"], scale(buffer["learned"], np.zeros((32, 2))), rtol=1e-4)
        np.testing.assert_allclose(buffer["returns"][-1], buffer["rewards"][-1] + 0.99 * buffer["last"], rtol=1e-4)
    assert [progress for _, progress in rounds] == pytest.approx([64 / 150, 128 / 150, 1.0])


def test_the_scale_remembers_earlier_rounds():
    scale, draw = ReturnScale(1, 0.0), np.random.default_rng(0)
    first, second = draw.normal(size=(500, 1)), 10 * draw.normal(size=(500, 1))
    never = np.zeros((500, 1))
    np.testing.assert_allclose(scale(first, never), first / first.std(), rtol=1e-6)
    variance = (0.95 * first.var() + second.var()) / 1.95
    np.testing.assert_allclose(scale(second, never), second / np.sqrt(variance), rtol=1e-6)


def test_ppo_has_the_configurations_settings(config):
    settings = replace(config, gae_lambda=0.8, clip_range=0.3, policy_entropy=0.01, policy_kl=0.02, policy_rate=1e-3)
    envs = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    ppo = make_ppo(replace(settings, gamma=0.97, policy_hidden=(8, 4), log_std_init=-1.0), envs, torch.device("cpu"))
    assert (ppo.gae_lambda, ppo.ent_coef, ppo.target_kl, ppo.gamma) == (0.8, 0.01, 0.02, 0.97)
    assert (ppo.n_steps, ppo.batch_size, ppo.n_epochs) == (32, 32, 2)
    assert ppo.clip_range(1.0) == 0.3
    assert [ppo.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([1e-3, 5e-4, 0.0])
    layers = [layer for layer in ppo.policy.mlp_extractor.policy_net if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [8, 4]
    assert float(ppo.policy.log_std.detach()) == -1.0
    assert make_ppo(config, envs, torch.device("cpu")).target_kl is None


def test_the_learned_rule_knows_how_far_the_run_is_and_has_two_rates(config):
    torch.manual_seed(0)
    settings = replace(config, follower="l2l", follower_rate=0.01, log_rate_rate=0.2)
    discriminator = module.Discriminator(4, settings.disc_hidden)
    follower = L2LFollower(discriminator, settings)
    expert, policy = torch.randn(50, 4) + 1, torch.randn(50, 4)
    sample = lambda: module.objective(  # noqa: E731
        discriminator, module.draw(expert, policy, 16, torch.Generator().manual_seed(1)), settings
    )
    follower.respond(sample, sample, 0.3)
    assert float(follower.memory["progress"]) == pytest.approx(0.3)
    by_rate = {group["lr"]: group["params"] for group in follower.learner.optimizer.param_groups}
    assert set(by_rate) == {0.01, 0.2}
    assert [id(p) for p in by_rate[0.2]] == [id(follower.rule.log_rate)]
    assert follower.learner.clip_norm == 1.0


class Linear:
    """A policy that depends on what it sees, and on chance unless it is asked not to."""

    weights = np.array([[0.3], [-0.5], [0.2]])

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        action = observation @ self.weights
        return action if deterministic else action + np.random.default_rng().normal(size=action.shape), state


def test_evaluation_by_hand():
    envs = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False)
    envs.obs_rms.mean, envs.obs_rms.var = np.array([0.1, 0.2, 0.3]), np.array([4.0, 1.0, 0.25])
    totals = []
    for index in range(2):
        env = gym.make("Pendulum-v1")
        observation, _ = env.reset(seed=10_000 + index)
        total, done = 0.0, False
        while not done:
            filtered = (observation - envs.obs_rms.mean) / np.sqrt(envs.obs_rms.var + envs.epsilon)
            filtered = np.clip(filtered, -10, 10).astype(np.float32)
            action = np.clip(filtered @ Linear.weights, -2, 2).astype(np.float32)
            observation, paid, terminated, truncated, _ = env.step(action)
            total, done = total + paid, terminated or truncated
        totals.append(total)
    found = evaluation.returns(Linear(), "Pendulum-v1", episodes=2, filter_of=envs)
    np.testing.assert_allclose(found, totals, rtol=1e-4)
    assert not np.allclose(evaluation.returns(Linear(), "Pendulum-v1", episodes=2), totals, rtol=1e-2)
    summed = evaluation.summary(np.array([1.0, 2.0, 6.0]))
    assert summed == {"mean": 3.0, "sd": pytest.approx(7**0.5), "min": 1.0, "max": 6.0, "n": 3}


@pytest.mark.parametrize(("value", "expert", "expected"), [(50.0, 200.0, 25.0), (-5.0, -10.0, None), (1.0, 0.0, None)])
def test_percent_of_an_expert_is_said_where_it_means_something(value, expert, expected):
    assert training.percent(value, expert) == expected
    assert training.percent(value, np.nan) is None


def test_cloning_sees_what_the_policy_will_see(config, cheetah):
    gail = GAIL(replace(config, policy_hidden=(64, 64)), cheetah)
    loss = cloning.clone(gail, cheetah, epochs=300)
    observations, actions, _ = cheetah.transitions()
    assert np.square(gail.predict(observations) - actions).mean() < 2 * loss + 0.02 < 0.2


def test_playing_takes_the_most_likely_action_unless_asked(monkeypatch):
    asked = []

    class Policy:
        def predict(self, observation, deterministic=True):
            asked.append(deterministic)
            return np.zeros(1, dtype=np.float32)

    for stochastic in (False, True):
        args = playing.PlayArgs(run=None, max_steps=1, stochastic=stochastic)
        playing.play(Policy(), gym.make("Pendulum-v1"), 0, args)
    assert asked == [True, False]
