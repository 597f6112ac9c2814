"""GAIL takes objects: environments, demonstrations, discriminator, leader and followers of one's own."""

import shutil
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from l2l_experiment import checkpoint, metrics
from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_gail import FOLLOWERS, GAIL, Environment, GAILConfig, PPOLeader
from l2l_gail.cli import main, parse
from l2l_gail.diagnosis import diagnose
from l2l_gail.followers import Recipe, commit, weights_of
from l2l_gail.reward_model import RewardModel
from tests.l2l_gail.conftest import SMALL, make_demonstrations


def pendulum():
    return gym.make("Pendulum-v1")


def moved(gail, steps=128):
    """Whether both players move."""
    start = weights_of(gail.discriminator) | weights_of(gail.leader.algorithm.policy)
    gail.learn(steps)
    end = weights_of(gail.discriminator) | weights_of(gail.leader.algorithm.policy)
    return all(not torch.equal(start[name], end[name]) for name in start)


def test_an_environment_may_be_a_function(config, pushes, tmp_path):
    gail = GAIL(pendulum, pushes, config=config)
    assert moved(gail)
    gail.save(tmp_path)
    with pytest.raises(UserError, match="env="):
        GAIL.load(tmp_path)
    seen = pendulum().reset(seed=0)[0]
    again = GAIL.load(tmp_path, env=pendulum).predict(seen, deterministic=True)[0]
    np.testing.assert_array_equal(again, gail.predict(seen, deterministic=True)[0])
    by_id = GAIL("Pendulum-v1", pushes, config=config).learn(128)
    np.testing.assert_array_equal(again, by_id.predict(seen, deterministic=True)[0])


def test_learning_as_in_stable_baselines3(config, pushes, tmp_path):
    wide = {"net_arch": [5], "activation_fn": nn.ReLU}
    gail = GAIL(pendulum, pushes, config=config, policy_kwargs=wide, tensorboard_log=tmp_path)
    seen = []
    gail.learn(128, callback=lambda *_: seen.append(1) or True, tb_log_name="mine", progress_bar=True)
    gail.learn(64, tb_log_name="mine", reset_num_timesteps=False).learn(64, tb_log_name="mine")
    assert len(seen) == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine_1", "mine_2"]
    assert "train_disc/loss" in EventAccumulator(str(tmp_path / "mine_1")).Reload().Tags()["scalars"]
    assert gail.leader.algorithm.policy.mlp_extractor.policy_net[0].out_features == 5


def test_an_environment_may_be_a_vecenv(config, pushes):
    gail = GAIL(DummyVecEnv([pendulum] * 3), pushes, config=config)
    assert moved(gail, steps=768)
    assert gail.num_timesteps % 96 == 0
    assert len(gail.leader.algorithm.ep_info_buffer) == 3  # true returns, though nobody wrapped it in a Monitor
    with pytest.raises(UserError, match="cannot be copied"):
        gail.env.make()


class Own(nn.Module):
    """A discriminator of one's own, which counts its rounds."""

    def __init__(self):
        super().__init__()
        self.layer, self.rounds = nn.Linear(4, 1), 0

    def forward(self, x):
        return self.layer(x).squeeze(-1)

    def refresh(self):
        self.rounds += 1


@pytest.mark.parametrize("follower", ["adam", "l2l"])
def test_a_discriminator_of_ones_own(config, pushes, tmp_path, follower):
    gail = GAIL(pendulum, pushes, config=replace(config, follower=follower), discriminator=Own())
    assert moved(gail)
    assert gail.discriminator.rounds == 2
    gail.save(tmp_path)
    again = GAIL.load(tmp_path, pushes, env=pendulum, discriminator=Own())
    assert torch.equal(again.discriminator.layer.weight, gail.discriminator.layer.weight)


def test_a_leader_of_ones_own(config, pushes, tmp_path):
    environment = Environment(pendulum)

    def leader():
        ppo = PPO("MlpPolicy", environment.vectorised(2, 0), n_steps=48, batch_size=32, gae_lambda=0.5, device="cpu")
        return PPOLeader(ppo, normalize_reward=False)

    gail = GAIL(environment, pushes, config=config, leader=leader())
    gail.learn(192).save(tmp_path)
    again = GAIL.load(tmp_path, pushes, env=environment, leader=leader())
    again.learn(96, reset_num_timesteps=False)
    assert again.num_timesteps == 288


class Wanderer:
    """No rule moves the discriminator: chance does."""

    holdout, skipped = 0.5, 0

    def __init__(self, discriminator, config):
        self.discriminator, self.tried = discriminator, 0

    def answer(self, objectives, progress):
        moved = {name: w + 0.01 * torch.randn_like(w) for name, w in weights_of(self.discriminator).items()}
        commit(moved, self.discriminator)
        self.tried += 2
        return {"score": objectives.score()(moved).item()}

    def state_dict(self):
        return {"tried": self.tried}

    def load_state_dict(self, tree):
        self.tried = tree["tried"]


@pytest.mark.slow
def test_a_follower_of_ones_own_is_one_class_and_one_row(tmp_path, monkeypatch, flags):
    monkeypatch.setitem(FOLLOWERS, "own", Recipe("mine", "here", Wanderer))
    runs = [tmp_path / name for name in ("straight", "resumed")]
    main(["--follower", "own", *flags, "--steps", "192", "--run-dir", str(runs[0])])
    shutil.copytree(*runs)
    shutil.rmtree(runs[1] / "checkpoints" / "step_000000192")  # what a run that was killed before leaves
    main(["--resume", str(runs[1])])
    one, two = (checkpoint.latest(run) for run in runs)
    assert one["follower"] == two["follower"] == {"tried": 6}
    assert all(torch.equal(weight, two["discriminator"][name]) for name, weight in one["discriminator"].items())
    rows = [metrics.read(run / "metrics.jsonl") for run in runs]
    assert [row["train_follower/score"] for row in rows[0]] == [row["train_follower/score"] for row in rows[1]]
    run = Run.open(runs[1], kind="gail")
    assert run.record["resumed_at"] == [128]
    assert diagnose(run).keys() == {"discriminator", "reward"}  # no rule, no response to draw
    with pytest.raises(UserError, match="--holdout would change nothing for --follower own"):
        parse(["--follower", "own", "--holdout", "0.5"])


def test_a_folder_holds_one_run_and_a_given_reward_is_not_learned(config, tmp_path):
    demonstrations = make_demonstrations(3, 1)
    one = GAIL("Pendulum-v1", demonstrations, config=config)
    saved = one.learn(64).save(tmp_path)
    other = GAIL("Pendulum-v1", demonstrations, config=replace(config, seed=7))
    with pytest.raises(UserError, match=r"holds a run with other settings \(seed 0, not 7\); save into another folder"):
        other.save(tmp_path)
    assert saved.is_dir()
    assert GAIL.load(tmp_path).num_timesteps == one.num_timesteps
    with pytest.raises(UserError, match="a given reward is not learned"):
        GAIL("Pendulum-v1", config=config, reward=one.model, follower=FOLLOWERS["adam"].make)


@pytest.mark.parametrize(
    ("discriminator", "message"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), r"n logits, shape \(n,\); of 2 it gave \(2, 1\)"),
        (nn.Linear(7, 1), r"float32 inputs of shape \(n, 4\)"),
    ],
)
def test_a_discriminator_gives_a_logit_for_each_input(config, pushes, discriminator, message):
    with pytest.raises(UserError, match=message):
        GAIL("Pendulum-v1", pushes, config=config, discriminator=discriminator)


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ({"follower": "l2l"}, r"config=replace\(tuned\(env\), follower='l2l'\)"),
        ({"follower": 3}, "a function that makes one; got a int"),
        ({"demonstrations": [1, 2]}, "a mapping of arrays or Demonstrations.*; got a list"),
        ({"config": {"seed": 1}}, "config must be a GAILConfig, such as replace"),
        ({"reward": "runs/x"}, "reward must be a RewardModel, such as RewardModel.load"),
        ({"monitor": {}}, "monitor must be a Demonstrations, such as load_demonstrations"),
        ({"discriminator": nn.Linear}, "discriminator must be a Module, an instance and not its class"),
        ({"leader": "sac"}, r"config=tuned\(env, 'sac'\)"),
        ({"leader": 3}, "leader must be a PPOLeader, a SACLeader or alike"),
    ],
)
def test_an_object_of_another_kind_is_named(pushes, slip, message):
    with pytest.raises(UserError, match=message):
        GAIL("Pendulum-v1", **{"demonstrations": pushes} | slip)


def test_what_cannot_be_copied_or_hides_observations_is_refused(config, pushes):
    with pytest.raises(UserError, match="give a function that makes one"):
        GAIL(pendulum(), pushes, config=config)
    with pytest.raises(UserError, match="give the VecEnv that it wraps"):
        GAIL(VecNormalize(DummyVecEnv([pendulum])), pushes, config=config)


def test_units_of_actions_are_saved_and_belong_to_a_reward(config, pushes, tmp_path):
    gail = GAIL(Environment("Pendulum-v1", rescale=False), pushes, config=config)
    gail.learn(64).save(tmp_path)
    seen = gail.env.make().reset(seed=0)[0]
    again = GAIL.load(tmp_path)
    assert again.env.actions.rescaled is False
    with pytest.raises(UserError, match=r"give Environment\(..., rescale=True\)"):
        GAIL(Environment("Pendulum-v1"), pushes, config=replace(config, rescale_actions=True))
    np.testing.assert_array_equal(*(one.predict(seen, deterministic=True)[0] for one in (gail, again)))
    elsewhere = RewardModel.load(tmp_path, Environment("Pendulum-v1", rescale=True))
    data = gail.train_expert
    np.testing.assert_array_equal(gail.model.score(data), elsewhere.score(data))


def test_a_program_is_warned_of_what_the_command_notes():
    gail = GAIL("Hopper-v4", make_demonstrations(11, 3), config=GAILConfig(env="Hopper-v4", **SMALL))
    with pytest.warns(UserWarning, match="episodes of Hopper-v4 may end early and the reward 'gail'"):
        gail.learn(0)


class Partly(nn.Module):
    """A discriminator with a layer that stays as it is, and one that is trained."""

    def __init__(self, inputs, *, unused=False):
        super().__init__()
        self.kept, self.trained = nn.Linear(inputs, 4).requires_grad_(False), nn.Linear(4, 1)
        if unused:
            self.forgotten = nn.Linear(4, 1)

    def forward(self, x):
        return self.trained(self.kept(x).tanh()).squeeze(1)


@pytest.mark.parametrize("follower", ["adam", "l2l", "sgd"])
def test_weights_that_require_no_gradient_are_not_trained(config, pushes, follower):
    discriminator = Partly(4)
    before = {name: weight.detach().clone() for name, weight in discriminator.named_parameters()}
    GAIL(pendulum, pushes, config=replace(config, follower=follower), discriminator=discriminator).learn(64)
    same = {name: torch.equal(weight, before[name]) for name, weight in discriminator.named_parameters()}
    assert same == {"kept.weight": True, "kept.bias": True, "trained.weight": False, "trained.bias": False}


def test_weights_that_a_discriminator_does_not_use_are_named(config, pushes):
    for broken, told in (
        (Partly(4, unused=True), "use forgotten.weight"),
        (Partly(4).requires_grad_(False), "no weights"),
    ):
        with pytest.raises(UserError, match=told):
            GAIL(pendulum, pushes, config=config, discriminator=broken)


def test_a_function_that_makes_several_environments_is_told(config, pushes):
    with pytest.raises(UserError, match="made a DummyVecEnv, no Gymnasium environment; give a VecEnv as it is"):
        GAIL(lambda: DummyVecEnv([pendulum]), pushes, config=config)


def test_a_leader_may_see_observations_as_they_are(config, pushes):
    envs = Environment(pendulum).vectorised(2, 0)
    envs.norm_obs = False
    ppo = PPO("MlpPolicy", VecNormalize(envs.venv, norm_obs=False, norm_reward=False), n_steps=32, batch_size=32)
    gail = GAIL(pendulum, pushes, config=replace(config, filter="demonstrations"), leader=PPOLeader(ppo)).learn(64)
    assert gail.predict(np.zeros(3, np.float32))[0].shape == (1,)


@pytest.mark.parametrize("part", ["policy", "discriminator"])
def test_another_activation_is_another_network(config, pushes, tmp_path, part):
    """Weights of the same shapes mean something else in it."""

    def given(activation):
        if part == "policy":
            return {"policy_kwargs": {"activation_fn": activation}}
        return {"discriminator": nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 1), nn.Flatten(0))}

    gail = GAIL(pendulum, pushes, config=config, **given(nn.ReLU)).learn(128)
    gail.save(tmp_path)
    loaded = GAIL.load(tmp_path, env=pendulum, **given(nn.ReLU))
    seen = pushes["observations"][:5]
    np.testing.assert_array_equal(*(one.predict(seen, deterministic=True)[0] for one in (gail, loaded)))
    with pytest.raises(UserError, match=f"the {part} of this checkpoint has other layers"):
        GAIL.load(tmp_path, env=pendulum, **given(nn.Tanh))
    tree = gail.state_dict()
    del tree["networks"]  # as in checkpoints of earlier versions
    loaded.load_state_dict(tree)


@pytest.mark.parametrize("settings", [{"imitate": "states"}, {"disc_form": "airl"}])
def test_actions_without_a_next_observation_are_refused_where_it_is_read(config, settings):
    alone = {"observations": np.ones((6, 3)) * np.arange(6)[:, None], "actions": np.zeros((6, 1))}
    alone["episode_ends"] = np.arange(1, 7)
    GAIL(pendulum, alone, config=config)
    with pytest.raises(UserError, match="episode 0 .*next observation is not known"):
        GAIL(pendulum, alone, config=replace(config, **settings))


def test_wrong_calls_get_one_sentence(config, pushes, tmp_path):
    gail = GAIL(pendulum, pushes, config=config)
    with pytest.raises(UserError, match="0 or more, got -5"):
        gail.learn(-5)
    with pytest.raises(UserError, match=r"observations of shape \(4,\); the environment's is \(3,\)"):
        gail.predict(np.zeros(4))
    with pytest.raises(UserError, match=f"is one checkpoint; name the folder above: {tmp_path}$"):
        GAIL.load(gail.save(tmp_path), env=pendulum)


def test_settings_may_be_numpys_numbers_and_lists(config):
    given = replace(config, seed=np.int64(3), learning_rate=np.float32(0.5), net_arch=[8, np.int64(4)])
    assert given == replace(config, seed=3, learning_rate=0.5, net_arch=(8, 4))
    assert [type(value) for value in (given.seed, given.learning_rate, *given.net_arch)] == [int, float, int, int]
