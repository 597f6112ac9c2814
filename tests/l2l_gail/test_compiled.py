"""Compiled PPO and SAC: the weights, figures and random draws of Stable-Baselines3's own."""

from dataclasses import replace

import gymnasium as gym
import pytest
import torch

from l2l_experiment.errors import UserError
from l2l_gail import GAIL, GAILConfig
from l2l_gail.leaders import critics
from l2l_gail.leaders.compiled import CompiledPPO, CompiledSAC
from tests.l2l_gail.conftest import make_demonstrations

SPACES = {"multi-binary": gym.spaces.MultiBinary(3), "multi-discrete": gym.spaces.MultiDiscrete([2, 3])}


def task(name):
    if name not in SPACES:
        return gym.make(name)
    return gym.wrappers.TransformAction(gym.make("CartPole-v1"), lambda action: int(action[0]), SPACES[name])


def after(kind, env, steps, *, compiled, policy="MlpPolicy", **how):
    """Weights, moments of the optimisers and figures after training. What would be compiled is called as it is."""
    algorithm = kind(policy, env, compiled=compiled, seed=0, device="cpu", **how)
    for name in ("_forward", "_update"):
        if hasattr(algorithm, name):
            getattr(algorithm, name).failed = True
    assert algorithm._supports_compilation()
    algorithm.learn(steps)
    owners = [algorithm.policy] if kind is CompiledPPO else [algorithm.actor, algorithm.critic]
    moments = [value for owner in owners for each in owner.optimizer.state.values() for value in each.values()]
    figures = {name: float(value) for name, value in algorithm.logger.name_to_value.items()}
    return [*algorithm.policy.state_dict().values(), *moments], figures


def same(kind, env, steps, **how):
    """Training with and without the compiled update gives the same to rounding; returns the figures."""
    (one, figures), (other, others) = (after(kind, env, steps, compiled=which, **how) for which in (True, False))
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-5)
    assert figures == pytest.approx(others, rel=1e-3, abs=1e-5)
    return figures


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", *SPACES])
def test_ppo_learns_as_stable_baselines3s_does(env):
    # 32 = 24 + 8: the last minibatch of a pass is smaller
    figures = same(CompiledPPO, task(env), 96, n_steps=32, batch_size=24, n_epochs=2, ent_coef=0.01)
    assert {"train/explained_variance", "train/approx_kl", "train/loss", "train/clip_range"} <= figures.keys()


@pytest.mark.parametrize("policy", ["MlpPolicy", critics.MlpPolicy])
def test_sac_learns_as_stable_baselines3s_does(policy):
    how = {"learning_starts": 20, "batch_size": 16, "policy_kwargs": {"net_arch": [8, 8]}}
    figures = same(CompiledSAC, task("Pendulum-v1"), 60, policy=policy, **how)
    assert {"train/ent_coef", "train/actor_loss", "train/critic_loss", "train/ent_coef_loss"} <= figures.keys()


@pytest.mark.slow
@pytest.mark.parametrize("leader", ["ppo", "sac"])
def test_compiled_runs_resume_bit_by_bit(config, tmp_path, leader):
    if leader == "sac":
        config = GAILConfig(leader="sac", learning_starts=20, batch_size=16, n_envs=2, n_steps=32, net_arch=(8,))
    demonstrations = make_demonstrations(3, 1)
    whole = GAIL("Pendulum-v1", demonstrations, config=config)
    whole.leader.prepare(10**7)
    whole.learn(256, on_round=lambda gail: gail.save(tmp_path) if gail.num_timesteps == 128 else None)
    assert whole.leader.algorithm.compiled
    assert not whole.leader.algorithm._update.failed
    resumed = GAIL.load(tmp_path, demonstrations)
    resumed.learn(128, reset_num_timesteps=False)
    assert resumed.leader.algorithm.compiled
    policies = (gail.leader.algorithm.policy.parameters() for gail in (whole, resumed))
    assert all(torch.equal(*pair) for pair in zip(*policies, strict=True))


def test_what_a_callback_may_change_is_no_constant_of_the_compiled_update():
    ppo = CompiledPPO("MlpPolicy", task("Pendulum-v1"), n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    ppo.compiled, ppo._forward.failed, calls = True, True, []
    ppo._update.failed, ppo._update.function = True, lambda state, data: calls.append(data[-1]) or torch.zeros(6)
    ppo.learn(32)
    ppo.ent_coef, ppo.vf_coef, ppo.max_grad_norm = 0.25, 0.75, 2.0
    ppo.learn(32)
    assert calls[0][:4].tolist() == pytest.approx([0.2, 0.0, 0.5, 0.5])
    assert calls[1][:4].tolist() == pytest.approx([0.2, 0.25, 0.75, 2.0])


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_copy_of_the_policy_acts_as_the_policy_does(config, monkeypatch, compiled):
    def trained():
        gail = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=replace(config, compile=compiled))
        return gail.learn(256).leader.algorithm

    one = trained()
    monkeypatch.setattr(CompiledPPO, "_rollouts_on_cpu", lambda self: True)
    other = trained()
    assert one._cpu_policy is None
    assert other._cpu_policy is not other.policy
    assert all(torch.equal(*pair) for pair in zip(one.policy.parameters(), other.policy.parameters(), strict=True))
    assert {"forward", "predict_values"}.isdisjoint(vars(other.policy))
    assert other.policy.optimizer is not None


def test_short_runs_are_not_compiled_and_the_length_counts_once(config):
    leader = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=config).leader
    for steps in (10**4, 10**7):
        leader.prepare(steps)
        assert leader.algorithm.compiled is False
    told = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=replace(config, compile=True)).leader
    told.prepare(10**4)
    assert told.algorithm.compiled is True


@pytest.mark.parametrize("own", [{"target_kl": 0.1}, {"clip_range_vf": 0.2}, {"use_sde": True}])
def test_what_is_not_written_here_is_left_to_ppo(own):
    ppo = CompiledPPO("MlpPolicy", task("Pendulum-v1"), device="cpu", **own)
    ppo.prepare(10**7)
    assert ppo.compiled is False
    with pytest.raises(UserError, match="--target-kl needs PPO's update as Stable-Baselines3 has it"):
        GAILConfig(compile=True, target_kl=0.1)
