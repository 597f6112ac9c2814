"""The learned reward: its columns, absorbing states, AIRL's form, and a reward that is kept and trained on."""

import shutil
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_gail import GAIL, Environment, GAILConfig, RewardModel, Transitions
from l2l_gail import cli as gail_cli
from l2l_gail.cli import parse
from l2l_gail.diagnosis import diagnose
from l2l_gail.inputs import AWAY
from l2l_gail.losses import Batch, objective
from l2l_gail.reward_model import LazyInputs
from l2l_gail.session import KIND, train
from tests.l2l_gail.conftest import SMALL, make_demonstrations

ENV = Environment("Hopper-v4")  # 11 observations, 3 actions


def transitions(count=6, ended=(2,)):
    draw = np.random.default_rng(0)
    over = np.isin(np.arange(count), ended)
    seen, after = draw.normal(size=(2, count, 11))
    return Transitions(seen, draw.uniform(-1, 1, (count, 3)).astype(np.float32), after, over)


def model(log_prob=None, **settings):
    torch.manual_seed(0)
    made = RewardModel(ENV, GAILConfig(env="Hopper-v4", disc_hidden=(8,), **settings), None, log_prob)
    made.filter.fit(np.random.default_rng(1).normal(size=(50, 11)))
    return made


def test_states_alone_see_no_action():
    data, learned = transitions(), model(imitate="states")
    columns = learned.inputs(data).numpy()
    seen, after = learned.filter(data.observations), learned.filter(data.next_observations)
    np.testing.assert_allclose(columns, np.concatenate([seen, after], axis=1), rtol=1e-5)
    with pytest.raises(UserError, match="needs actions"):
        model(imitate="states", disc_form="airl")


def test_spectral_norm_is_refused_where_it_would_change_nothing():
    with pytest.raises(UserError, match="--disc-form airl has no --spectral-norm"):
        model(disc_form="airl", spectral_norm=True)
    frames = gym.spaces.Box(0, 255, (36, 36), np.uint8)
    env = Environment(lambda: gym.wrappers.TransformObservation(gym.make("CartPole-v1"), lambda _: None, frames))
    with pytest.raises(UserError, match="these observations are images"):
        RewardModel(env, GAILConfig(spectral_norm=True), None)


@pytest.mark.parametrize("form", ["gail", "airl", "constant"])
def test_an_absorbing_state_is_worth_its_reward_for_ever(form):
    data, gamma = transitions(), 0.9
    plain, absorbing = (model(absorbing=given, gamma=gamma, reward=form) for given in (False, True))
    assert absorbing.columns.size == plain.columns.size + 1
    rows = LazyInputs(absorbing, data)[:].numpy()
    assert len(rows) == 7, "one more behind the transition that terminated"
    np.testing.assert_array_equal(rows[3], absorbing.columns.absorbing_rows(1)[0].astype(np.float32))
    assert rows[3].sum() == rows[3, 11] == AWAY
    without = replace(data, ended=np.zeros_like(data.ended))
    worth = absorbing.score(data) - absorbing.score(without)
    logit = absorbing.discriminator(torch.as_tensor(rows[3:4])).item()
    once = {"gail": np.log1p(np.exp(logit)), "airl": logit, "constant": 1.0}[form]
    np.testing.assert_allclose(worth, np.where(data.ended, once * gamma / (1 - gamma), 0), rtol=1e-4, atol=1e-6)
    if form == "constant":  # whether an episode ends makes no difference to its discounted return
        assert 1 + worth[2] == pytest.approx(1 / (1 - gamma))


@pytest.mark.parametrize("absorbing", [False, True])
def test_rows_that_are_asked_for_are_those_of_the_whole_and_no_others_are_computed(absorbing):
    learned, seen = model(absorbing=absorbing), []
    rows = LazyInputs(learned, transitions(20, ended=(2, 3, 19)))
    assert len(rows) == 20 + 3 * absorbing
    whole, columns = rows[:], learned.columns

    class Counted:
        shaped, absorbing_rows = False, staticmethod(columns.absorbing_rows)

        def __call__(self, data, *rest):
            seen.append(len(data))
            return columns(data, *rest)

    learned.columns = Counted()
    for which in (torch.tensor([0, 4, 4, len(rows) - 1, 3]), slice(None, None, 3)):
        torch.testing.assert_close(rows[which], whole[which], rtol=0, atol=0)
    assert seen == [5, len(range(0, len(rows), 3))]


@pytest.mark.parametrize(("form", "state_only"), [("airl", False), ("airl-state", True)])
def test_airls_logit_is_its_formula_and_its_penalty_leaves_log_pi_out(form, state_only):
    data, log_prob = transitions(), np.linspace(-3, 1, 6)
    learned = model(lambda _: log_prob, disc_form=form, gamma=0.8, reward="airl")
    airl = learned.discriminator
    seen, after = (
        torch.as_tensor(learned.filter(part)).float() for part in (data.observations, data.next_observations)
    )
    pair = seen if state_only else torch.cat([seen, torch.as_tensor(data.actions)], dim=1)
    shaped = airl.g(pair) + 0.8 * torch.as_tensor(~data.ended) * airl.h(after) - airl.h(seen)
    expected = (shaped - torch.as_tensor(log_prob)).detach().numpy()
    np.testing.assert_allclose(learned.score(data), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learned.transfer_reward(data), airl.g(pair).detach().numpy(), rtol=1e-4, atol=1e-5)
    batch = Batch(learned.inputs(data), learned.inputs(data).flip(0), torch.rand(6, 1))
    weights = {name: torch.zeros_like(value) for name, value in airl.named_parameters()}
    configs = [GAILConfig(gradient_penalty=weight, gradient_target=0.5) for weight in (1.0, 0.0)]
    on, off = (float(objective(airl, batch, config)(weights)) for config in configs)
    assert on - off == pytest.approx(0.25, abs=1e-4)  # networks of zeros have no gradient; log pi's is not counted


@pytest.mark.parametrize("own", [{}, {"disc_form": "airl-state", "reward": "airl"}, {"absorbing": True}])
def test_a_policy_is_trained_afresh_on_a_kept_reward(tmp_path, own):
    config = GAILConfig(env="Hopper-v4", **SMALL, **own)
    GAIL(ENV, make_demonstrations(11, 3), config=config).learn(128).save(tmp_path)
    kept, data = RewardModel.load(tmp_path, ENV), transitions()
    before = kept.transfer_reward(data)
    fresh = GAIL(ENV, config=GAILConfig(env="Hopper-v4", **SMALL), reward=kept)
    fresh.learn(128)
    np.testing.assert_array_equal(kept.transfer_reward(data), before)
    assert fresh.num_timesteps == 128
    np.testing.assert_allclose(fresh.envs.obs_rms.mean, kept.filter.mean)
    with pytest.raises(UserError, match="does not fit the spaces of HalfCheetah-v4"):
        RewardModel.load(tmp_path, Environment("HalfCheetah-v4"))


@pytest.mark.slow
def test_the_command_trains_on_a_kept_reward_and_goes_on_without_the_run_that_learned_it(tmp_path, flags, capsys):
    """It resumes equal to a run that nobody stopped, plays, is diagnosed, and passes its reward on."""
    train(
        parse([*flags, "--run-dir", str(tmp_path / "a"), "--steps", "128", "--disc-form", "airl", "--reward", "airl"])
    )
    kept = [*flags[4 : flags.index("--disc-hidden")], "--reward-from", str(tmp_path / "a")]  # none of a discriminator's
    whole = train(parse([*kept, "--run-dir", str(tmp_path / "c"), "--steps", "256"]))
    assert "expert" not in whole.record["result"]
    assert "a learned reward as it is" in capsys.readouterr().out
    shutil.copytree(tmp_path / "c", tmp_path / "b")
    shutil.rmtree(max((tmp_path / "b" / "checkpoints").glob("step_*")))
    shutil.rmtree(tmp_path / "a")
    gail_cli.main(["--resume", str(tmp_path / "b")])
    assert Run.open(tmp_path / "b", kind=KIND).record["result"]["return"] == whole.record["result"]["return"]
    assert GAIL.load(tmp_path / "b").predict(np.zeros(17), deterministic=True)[0].shape == (6,)
    assert [*diagnose(whole)] == ["reward"]
    data = Transitions(*(part[:5] for part in GAIL.load(tmp_path / "b").leader.rollout().parts()))
    again = [RewardModel.load(tmp_path / name, Environment("HalfCheetah-v4")).transfer_reward(data) for name in "bc"]
    np.testing.assert_array_equal(*again)
