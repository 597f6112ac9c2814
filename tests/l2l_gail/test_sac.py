"""SAC as the leader: rewards of the moment, rounds, and a memory that is resumed bit by bit."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

from l2l_experiment.errors import UserError
from l2l_gail import GAIL, Environment, GAILConfig, tuned
from l2l_gail.leaders.sac import SACLeader, ScoredReplay
from tests.conftest import quick
from tests.l2l_gail.conftest import make_demonstrations

CONFIG = GAILConfig(
    leader="sac",
    n_envs=2,
    n_steps=32,
    batch_size=16,
    net_arch=(8,),
    disc_hidden=(8,),
    learning_starts=20,
    buffer_size=300,
)
CONFIG = replace(CONFIG, disc_updates=10, disc_batch_size=16)


def weights(gail):
    tensors = [*gail.leader.algorithm.policy.state_dict().values(), *gail.discriminator.state_dict().values()]
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_samples_carry_the_reward_of_the_moment_and_what_the_environment_did():
    gail = GAIL("Hopper-v4", make_demonstrations(11, 3), config=CONFIG)
    rounds = []
    gail.learn(192, on_round=lambda gail: rounds.append(gail.num_timesteps))
    assert rounds == [0, 64, 128, 192]
    memory, policy = gail.leader.memory, gail.leader.algorithm.policy
    for scale in (1.0, 3.0):
        with torch.no_grad():
            gail.discriminator.layers[-1].weight.mul_(scale)
        np.random.seed(0)  # noqa: NPY002  the generator that minibatches are drawn from
        sample = memory.sample(20, env=gail.envs)
        np.random.seed(0)  # noqa: NPY002
        rows = np.random.randint(0, memory.size(), 20), np.random.randint(0, 2, 20)  # noqa: NPY002
        data = memory._transitions(rows)
        np.testing.assert_allclose(sample.rewards[:, 0].numpy(), gail.score(data), rtol=1e-5)
        np.testing.assert_allclose(data.actions, policy.unscale_action(memory.actions[rows]), rtol=1e-6)
        np.testing.assert_allclose(gail.envs.normalize_obs(data.observations), sample.observations.numpy(), rtol=1e-5)
        assert np.array_equal(sample.dones[:, 0].numpy() > 0, data.ended)
    assert 0 < memory.dones.sum() < 192 / 5, "episodes of Hopper end"


@pytest.mark.parametrize(
    "own",
    [
        {"follower": "l2l", "absorbing": True},
        pytest.param({"critic_layer_norm": True}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"disc_form": "airl"}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, own):
    demonstrations, config = make_demonstrations(11, 3), replace(CONFIG, **own)
    whole = GAIL("Hopper-v4", demonstrations, config=config)
    whole.learn(448, on_round=lambda gail: gail.save(tmp_path) if gail.num_timesteps == 384 else None)  # memory is full
    torch.manual_seed(999)
    resumed = GAIL.load(tmp_path, demonstrations)
    assert resumed.num_timesteps == 384
    resumed.learn(64, reset_num_timesteps=False)
    assert torch.equal(weights(whole), weights(resumed))
    assert resumed.figures == whole.figures
    np.testing.assert_array_equal(whole.leader.memory.actions, resumed.leader.memory.actions)


def test_random_first_actions_are_resumed_too(tmp_path):
    demonstrations, config = make_demonstrations(3, 1), replace(CONFIG, learning_starts=1000)
    whole = GAIL("Pendulum-v1", demonstrations, config=config)  # its actions are rescaled: SAC has a space of its own
    whole.learn(192, on_round=lambda gail: gail.save(tmp_path) if gail.num_timesteps == 128 else None)
    resumed = GAIL.load(tmp_path, demonstrations).learn(64, reset_num_timesteps=False)
    np.testing.assert_array_equal(whole.leader.memory.actions, resumed.leader.memory.actions)


def test_the_follower_answers_different_transitions_and_none_before_the_first_round():
    gail, rounds = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=CONFIG), []
    for _ in range(2):  # a second run is counted anew, as in Stable-Baselines3
        gail.learn(128, on_round=lambda gail: rounds.append((gail.num_timesteps, gail.leader.last_answer)))
    assert rounds == 2 * [(0, 0), (64, 64), (128, 128)]
    drawn = gail.leader.memory.sample_transitions(10_000).observations
    assert len(drawn) == 256
    assert len(np.unique(drawn, axis=0)) > 250  # nearly all: an episode may start twice alike


def test_a_sac_of_ones_own_may_have_a_fixed_entropy_coefficient_other_steps_and_another_discount(tmp_path):
    def leader():
        envs = Environment("Pendulum-v1").vectorised(1, 0)
        how = {"ent_coef": 0.1, "train_freq": 3, "gamma": 0.9, "learning_starts": 20, "batch_size": 16, "device": "cpu"}
        return SACLeader(SAC("MlpPolicy", envs, replay_buffer_class=ScoredReplay, seed=0, **how), round_size=32)

    demonstrations, answers = make_demonstrations(3, 1), []
    whole = GAIL("Pendulum-v1", demonstrations, config=CONFIG, leader=leader())
    assert (whole.config.gamma, whole.config.n_envs) == (0.9, 1)
    whole.learn(96, on_round=lambda gail: answers.append(gail.num_timesteps))
    assert answers == [
        0,
        33,
        66,
        96,
    ]  # every three steps it looks whether a round is over; the last one ends with training
    whole.save(tmp_path)
    resumed = GAIL.load(tmp_path, demonstrations, leader=leader())
    assert torch.equal(weights(whole), weights(resumed))


def test_critics_with_layer_normalisation_written_out():
    config = replace(CONFIG, critic_layer_norm=True, net_arch=(8, 6))
    gail = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=config).learn(64)
    policy = gail.leader.algorithm.policy
    observations, actions = torch.randn(5, 3), torch.rand(5, 1)
    for critic in (policy.critic, policy.critic_target):
        for index, value in enumerate(critic(observations, actions)):
            weights = {name: weight for name, weight in critic.named_parameters() if name.startswith(f"qf{index}.")}
            assert len(weights) == 10, "two layers with their scales and shifts, and a head"
            hidden, named = torch.cat([observations, actions], 1), iter(weights.values())
            for _ in range(2):
                weight, bias, scale, shift = (next(named) for _ in range(4))
                z = hidden @ weight.T + bias
                centred = z - z.mean(1, keepdim=True)
                spread = (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
                hidden = (scale * centred / spread + shift).relu()
            torch.testing.assert_close(value, hidden @ next(named).T + next(named))
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in policy.actor.modules())


@pytest.mark.parametrize("normalised", quick([True, False], True))
def test_a_policy_opens_where_this_package_is_not_installed(tmp_path, normalised):
    config = replace(CONFIG, critic_layer_norm=normalised)
    gail = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=config).learn(64)
    gail.leader.algorithm.save(tmp_path / "policy.zip")
    code = """
import sys
sys.modules["l2l_gail"] = None  # as if it were not installed
from stable_baselines3 import SAC
print(SAC.load(sys.argv[1], device="cpu").predict([0.1, 0.2, 0.3], deterministic=True)[0][0])
"""
    told = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "policy.zip"], capture_output=True, text=True, check=True
    )
    expected, _ = gail.leader.algorithm.predict(np.array([0.1, 0.2, 0.3]), deterministic=True)
    assert float(told.stdout) == pytest.approx(float(expected[0]), rel=1e-5)


def test_training_may_stop_before_anything_is_remembered_and_the_memory_can_be_pickled(tmp_path):
    gail = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=CONFIG)
    gail.learn(64, callback=lambda *_: False)
    assert gail.num_timesteps == 2
    gail.learn(64)
    gail.leader.algorithm.save_replay_buffer(tmp_path / "memory.pkl")
    assert (tmp_path / "memory.pkl").stat().st_size > 1000


def test_what_sac_cannot_do_is_one_sentence():
    with pytest.raises(UserError, match="--leader sac needs continuous actions"):
        GAIL("CartPole-v1", config=replace(CONFIG, env="CartPole-v1"))
    with pytest.raises(UserError, match="--n-epochs would change nothing for --leader sac"):
        GAIL("Hopper-v4", config=replace(CONFIG, n_epochs=3))
    assert tuned("Hopper-v4", "sac").bc_epochs == 0


def test_its_policy_predicts_clones_and_rolls_out():
    gail = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=replace(CONFIG, bc_epochs=200, learning_starts=10_000))
    gail.learn(64)
    assert np.isfinite(gail.bc_loss)
    action, _ = gail.predict(np.zeros(3, dtype=np.float32))
    assert Environment("Pendulum-v1").make().action_space.contains(action)
    data = gail.leader.rollout()
    assert len(data) == 64
    assert np.abs(data.actions).max() <= 2
    assert np.isfinite(gail.leader.log_prob(data)).all()
