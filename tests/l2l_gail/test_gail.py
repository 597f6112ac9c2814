"""GAIL: what PPO is paid, and that a run continues bit for bit from its checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from l2l_experiment.errors import Diverged, UserError
from l2l_gail.gail import GAIL, resolve_device, split, thinned
from l2l_gail.rewards import reward
from tests.l2l_gail.conftest import make_demonstrations


def policy_weights(gail):
    return {name: value.clone() for name, value in gail.ppo.policy.state_dict().items()}


@pytest.fixture
def captured(monkeypatch):
    """The rewards in PPO's buffer just before it trains on them."""
    from stable_baselines3 import PPO

    seen = []
    train = PPO.train

    def spy(self):
        buffer = self.rollout_buffer
        seen.append({name: getattr(buffer, name).copy() for name in ("rewards", "advantages", "returns", "values")})
        seen[-1]["starts"] = buffer.episode_starts.copy()
        train(self)

    monkeypatch.setattr(PPO, "train", spy)
    return seen


def test_policy_is_paid_by_the_discriminator_and_not_by_the_task(config, cheetah, captured):
    gail = GAIL(replace(config, normalize_reward=False), cheetah)
    kept = {}
    respond = gail.respond

    def spy(rollout, progress):
        kept["rollout"] = rollout
        return respond(rollout, progress)

    gail.respond = spy
    gail.learn(64)
    logits = gail.discriminator(gail.transitions(kept["rollout"])).detach()
    expected = reward(logits, "gail").numpy().reshape(32, 2)
    np.testing.assert_allclose(captured[0]["rewards"], expected, rtol=1e-5)


def test_advantages_follow_the_learned_reward(config, cheetah, captured):
    gail = GAIL(replace(config, reward="constant", normalize_reward=False, gamma=0.9, gae_lambda=1.0), cheetah)
    gail.learn(64)
    values = captured[0]["values"]
    returns, rewards = captured[0]["returns"], captured[0]["rewards"]
    np.testing.assert_allclose(rewards, 1.0)
    np.testing.assert_allclose(returns[:-1], 1.0 + 0.9 * returns[1:], rtol=1e-4)
    np.testing.assert_allclose(captured[0]["advantages"], returns - values, atol=1e-5)


def test_value_is_added_where_a_time_limit_cuts_and_not_where_the_task_ends(config, captured):
    cut = GAIL(
        replace(config, env="Pendulum-v1", reward="constant", normalize_reward=False, round_steps=256),
        make_demonstrations(3, 1),
    )
    with torch.no_grad():  # a value function that says 5 everywhere
        cut.ppo.policy.value_net.weight.zero_()
        cut.ppo.policy.value_net.bias.fill_(5.0)
    cut.learn(512)
    expected = np.ones((256, 2))
    expected[199] = 1 + cut.config.gamma * 5  # Pendulum's limit is 200 steps
    np.testing.assert_allclose(captured[0]["rewards"], expected, rtol=1e-5)

    captured.clear()
    falling = GAIL(
        replace(config, env="Hopper-v4", reward="constant", normalize_reward=False, round_steps=128),
        make_demonstrations(11, 3),
    )
    falling.learn(256)
    assert captured[0]["starts"].sum() > 2, "a random hopper falls within 128 steps"
    np.testing.assert_allclose(captured[0]["rewards"], 1.0)


def test_discriminator_sees_clipped_actions_and_one_filter(config, cheetah):
    gail = GAIL(replace(config, log_std_init=2.0), cheetah)
    seen = []
    respond = gail.respond
    gail.respond = lambda rollout, progress: (seen.append(rollout), respond(rollout, progress))[1]
    gail.learn(64)
    observations, actions = seen[0]
    assert np.abs(actions).max() == 1.0
    inputs = gail.transitions((observations, actions)).numpy()
    np.testing.assert_allclose(inputs[:, 17:], actions, rtol=1e-6)


@pytest.mark.parametrize(("name", "moves"), [("demonstrations", False), ("running", True)])
def test_policy_filter_is_fixed_to_the_demonstrations_or_runs(config, cheetah, name, moves):
    gail = GAIL(replace(config, filter=name), cheetah)
    observations = np.concatenate([episode.observations[:-1] for episode in cheetah.episodes])
    before = gail.envs.obs_rms.mean.copy()
    gail.learn(64)
    assert np.array_equal(before, gail.envs.obs_rms.mean) != moves
    if not moves:
        np.testing.assert_allclose(gail.envs.normalize_obs(observations).mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize("follower", ["adam", "l2l"])
@pytest.mark.parametrize("env", ["HalfCheetah-v4", "Hopper-v4"])
def test_resumed_run_equals_the_uninterrupted_one(config, tmp_path, follower, env):
    demonstrations = make_demonstrations(*((17, 6) if env == "HalfCheetah-v4" else (11, 3)))
    config = replace(config, env=env, follower=follower, replay_rounds=1, spectral_norm=True)
    whole = GAIL(config, demonstrations)

    def save_in_the_middle(gail):
        if gail.ppo.num_timesteps == 128:
            gail.save(tmp_path)

    whole.learn(320, on_round=save_in_the_middle)
    torch.manual_seed(999)
    np.random.seed(999)  # noqa: NPY002 - the global generator is what PPO shuffles with
    resumed = GAIL.load(tmp_path, demonstrations)
    assert resumed.ppo.num_timesteps == 128
    resumed.learn(320)
    assert resumed.ppo._n_updates == whole.ppo._n_updates
    for name, value in policy_weights(whole).items():
        assert torch.equal(value, resumed.ppo.policy.state_dict()[name]), name
    for one, two in zip(whole.discriminator.parameters(), resumed.discriminator.parameters(), strict=True):
        assert torch.equal(one, two)
    np.testing.assert_array_equal(whole.envs.obs_rms.mean, resumed.envs.obs_rms.mean)


def test_same_seed_same_run_and_another_seed_another(config, cheetah):
    runs = [GAIL(replace(config, seed=seed, follower="l2l"), cheetah).learn(128) for seed in (3, 3, 4)]
    one, two, three = (policy_weights(gail)["action_net.weight"] for gail in runs)
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_loaded_for_prediction(config, cheetah, tmp_path):
    gail = GAIL(config, cheetah).learn(64)
    gail.save(tmp_path)
    loaded = GAIL.load(tmp_path)
    observations = np.random.default_rng(0).normal(size=(4, 17))
    np.testing.assert_array_equal(gail.predict(observations), loaded.predict(observations))
    with pytest.raises(UserError, match="demonstrations"):
        loaded.learn(128)


def test_policy_opens_in_plain_stable_baselines3(config, cheetah, tmp_path):
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    from l2l_gail.environments import make_envs

    gail = GAIL(config, cheetah).learn(64)
    gail.ppo.save(tmp_path / "policy.zip")
    gail.envs.save(str(tmp_path / "filter.pkl"))
    envs = VecNormalize.load(str(tmp_path / "filter.pkl"), make_envs("HalfCheetah-v4", 2, 0).venv)
    observations = np.random.default_rng(0).normal(size=(4, 17))
    action = PPO.load(tmp_path / "policy.zip", device="cpu").predict(
        envs.normalize_obs(observations), deterministic=True
    )
    np.testing.assert_array_equal(action[0], gail.predict(observations))


@pytest.mark.parametrize(
    ("settings", "penalty", "smoothing"),
    [
        ({}, 1.0, 0.0),
        ({"gradient_penalty": 0.0}, 1.0, 0.0),
        ({"gradient_penalty": 0.0, "score_smoothing": 0.2}, 0.0, 0.2),
        ({"gradient_penalty": 0.0, "label_smoothing": 0.1}, 0.0, 0.1),
        ({"gradient_penalty": 0.0, "score_smoothing": 0.0}, 1.0, 0.0),
        ({"gradient_penalty": 0.0, "score_penalty": 0.0}, 0.0, 0.0),
        ({"score_penalty": 4.0, "score_smoothing": 0.3}, 4.0, 0.3),
        ({"score_penalty": 0.0}, 0.0, 0.0),
        ({"gradient_penalty": 0.0, "score_penalty": 1.0}, 1.0, 0.0),
    ],
)
def test_the_rule_is_scored_on_an_objective_with_a_finite_optimum(
    config, cheetah, monkeypatch, settings, penalty, smoothing
):
    gail = GAIL(replace(config, follower="l2l", **({"gradient_penalty": 1.0} | settings)), cheetah)
    drawn = []
    monkeypatch.setattr("l2l_gail.gail.objective", lambda _, batch, config: drawn.append(config))
    gail.follower.respond = lambda train, score, progress: {"drawn": len([train(), score()])}
    gail.learn(1)
    assert drawn[0] == gail.config
    assert drawn[1] == replace(gail.config, gradient_penalty=penalty, label_smoothing=smoothing)


def test_split_holds_out_a_stretch_of_every_episode():
    demonstrations = make_demonstrations(3, 2, episodes=2, length=40)
    train, held = split(demonstrations, 0.25)
    first = demonstrations.episodes[0]
    np.testing.assert_array_equal(train[0][:30], first.observations[:30])
    np.testing.assert_array_equal(held[1][:10], first.actions[30:])
    assert len(train[0]) == 60
    assert len(held[0]) == 20
    assert len(split(demonstrations, 0.0)[1][0]) == 80
    with pytest.raises(UserError, match="too short"):
        split(make_demonstrations(3, 2, length=1), 0.25)


def test_devices():
    assert resolve_device("auto").type == "cpu"
    for wrong in ("tpu", "cpuX", "meta"):
        with pytest.raises(UserError, match="--device"):
            resolve_device(wrong)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            resolve_device("cuda")


def test_a_policy_that_diverges_in_the_last_round_is_not_saved(config, cheetah):
    gail = GAIL(config, cheetah)
    gail.learn(64)
    saved = []
    with torch.no_grad():
        next(gail.ppo.policy.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="--policy-rate"):
        gail.learn(64, on_round=saved.append)
    assert not saved


def test_a_checkpoint_knows_its_demonstrations(config, cheetah, tmp_path):
    GAIL(config, cheetah).learn(64).save(tmp_path)
    assert GAIL.load(tmp_path, cheetah).ppo.num_timesteps == 64
    assert GAIL.load(tmp_path).ppo.num_timesteps == 64  # to predict, none are needed
    with pytest.raises(UserError, match="demonstrations are not those"):
        GAIL.load(tmp_path, make_demonstrations(17, 6, seed=1))


def test_a_large_set_is_measured_on_a_part_of_it():
    observations, actions = np.arange(25_001.0)[:, None], np.arange(25_001.0)[:, None]
    kept = thinned((observations, actions))
    assert len(kept[0]) == len(kept[1]) == 8334
    assert np.array_equal(kept[0], kept[1])
    assert (kept[0][0], kept[0][-1]) == (0, 24_999)


def test_a_policy_that_diverged_is_not_handed_on(config, cheetah, monkeypatch):
    seen = []

    def spoil(self):
        with torch.no_grad():
            next(self.policy.parameters()).fill_(float("nan"))

    monkeypatch.setattr(PPO, "train", spoil)
    with pytest.raises(Diverged):
        GAIL(config, cheetah).learn(128, on_round=lambda gail: seen.append(gail.ppo.num_timesteps))
    assert seen == [0]  # before the first round, and never again


def test_figures_of_a_round(config, cheetah):
    gail = GAIL(config, cheetah, monitor=make_demonstrations(17, 6, seed=9))
    kept, respond = {}, gail.respond

    def spy(rollout, progress):
        kept["rollout"] = rollout
        return respond(rollout, progress)

    gail.respond = spy
    gail.learn(64)
    with torch.no_grad():
        logits = gail.discriminator(gail.transitions(kept["rollout"]))
    assert gail.figures["disc/logit_std"] == pytest.approx(float(logits.std()), rel=1e-5)
    assert gail.figures["reward/std"] == pytest.approx(float(reward(logits, "gail").std(correction=0)), rel=1e-4)


def test_held_out_figures_are_those_of_the_demonstrations_nobody_trains_on(config, cheetah, monkeypatch):
    shown = []

    def figures(discriminator, expert, policy):
        shown.append(expert)
        names = ("disc_loss", "disc_acc", "disc_acc_expert", "disc_acc_gen", "disc_entropy", "logit_gap")
        return {name: 10.0 * len(shown) + number for number, name in enumerate(names)}

    monkeypatch.setattr("l2l_gail.gail.health", figures)
    monitor = make_demonstrations(17, 6, seed=9)
    gail = GAIL(config, cheetah, monitor=monitor)
    gail.learn(64)
    assert (gail.figures["disc/disc_loss"], gail.figures["disc/disc_acc"]) == (10.0, 11.0)
    assert (gail.figures["disc/heldout_loss"], gail.figures["disc/heldout_acc"]) == (20.0, 22.0)
    actions = np.concatenate([episode.actions for episode in monitor.episodes])
    np.testing.assert_allclose(shown[1][:, 17:].numpy(), actions, rtol=1e-6)
