"""Followers by optimisers of torch's form, and how their learning rate changes over a run."""

import copy
import sys
from dataclasses import replace

import pytest
import torch

from l2l_experiment.errors import Diverged, UserError
from l2l_gail import FOLLOWERS, GAIL, GAILConfig
from l2l_gail.followers import AdamFollower, OptimizerFollower, resolve_config, weights_of
from l2l_gail.followers.schedules import SCHEDULES
from tests.conftest import quick
from tests.l2l_gail.conftest import SMALL, make_demonstrations
from tests.l2l_gail.test_followers import ADAM, task

PACKAGES = ("prodigy", "d-adaptation", "schedule-free")
USUAL = GAILConfig(**SMALL)


def named(follower, **settings):
    return resolve_config(replace(USUAL, follower=follower, **settings))


def test_torchs_adam_in_place_of_ours_gives_the_same_weights():
    follower, objectives = task(ADAM)
    other, others = task(ADAM)
    rate = ADAM.disc_learning_rate
    theirs = OptimizerFollower(other.discriminator, ADAM, lambda weights: torch.optim.Adam(weights, lr=rate))
    assert isinstance(follower, AdamFollower)
    for round_ in range(5):
        ours, figures = follower.answer(objectives, round_ / 5), theirs.answer(others, round_ / 5)
        assert figures == pytest.approx(ours, rel=1e-3)
    one, two = (weights_of(f.discriminator) for f in (follower, theirs))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", quick([name for name in FOLLOWERS if not name.startswith("l2l")], "adam", "prodigy"))
def test_optimisers_lower_the_loss_and_resumes_bit_for_bit(name):
    free = name in ("prodigy", "d-adaptation", "adadelta")  # nothing to choose
    fast = {"disc_learning_rate": {"sgd": 0.1, "asgd": 0.1, "adagrad": 0.03}.get(name, 3e-3)}
    config = replace(ADAM, follower=name, disc_updates=20, **({} if free else fast))
    follower, objectives = task(config)
    probe = [objectives.score() for _ in range(8)]

    def loss(of):
        return sum(float(one(weights_of(of.discriminator))) for one in probe) / len(probe)

    before = loss(follower)
    for _ in range(10):
        follower.answer(objectives, 0.5)
    if name not in ("d-adaptation", "adadelta"):  # one overshoots here, the other hardly begins
        assert loss(follower) < before - 0.02
    resumed, same = task(config)
    resumed.discriminator.load_state_dict(follower.discriminator.state_dict())
    resumed.load_state_dict(copy.deepcopy(follower.state_dict()))
    for _ in range(200):  # the draws that the other has had
        same.train()
    for one, two in ((follower, objectives), (resumed, same)):
        one.answer(two, 0.6)
    one, two = (weights_of(f.discriminator) for f in (follower, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("follower", PACKAGES)
def test_a_run_with_one_is_saved_and_goes_on_as_if_uninterrupted(follower, tmp_path):
    config, demonstrations = named(follower, env="HalfCheetah-v4"), make_demonstrations(17, 6)
    whole = GAIL("HalfCheetah-v4", demonstrations, config=config)
    whole.learn(192, on_round=lambda gail: gail.save(tmp_path) if gail.num_timesteps == 128 else None)
    resumed = GAIL.load(tmp_path, demonstrations).learn(64, reset_num_timesteps=False)
    one, two = (weights_of(gail.discriminator) for gail in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert whole.figures == resumed.figures


def test_schedules_by_hand():
    assert [SCHEDULES["constant"](p) for p in (0, 1)] == [1, 1]
    assert [SCHEDULES["linear"](p) for p in (0, 0.25, 1)] == [1, 0.75, 0]
    found = [SCHEDULES["l2l"](p) for p in (0, 0.06, 0.18, 0.3, 0.6, 1)]
    assert found == pytest.approx([1, 2.8, 2.8**0.5, 1, 0.75, 0.75])


@pytest.mark.parametrize("follower", ["adam", "sgd", "prodigy"])
def test_a_schedule_scales_the_learning_rate(follower):
    figures = []
    for schedule in ("constant", "linear"):
        one, objectives = task(replace(ADAM, follower=follower, disc_schedule=schedule))
        figures.append(one.answer(objectives, 0.75))
    if follower != "prodigy":  # which finds its own again
        assert figures[1]["rate"] == pytest.approx(figures[0]["rate"] / 4)
    assert figures[1]["update_norm"] < figures[0]["update_norm"]


def test_the_rate_of_hypergradient_adam_rises_where_steps_agree():
    config = replace(ADAM, follower="hypergradient", disc_learning_rate=1e-5, disc_hyper_rate=1e-4)
    follower, objectives = task(config)
    assert follower.answer(objectives, 0.0)["rate"] > 1e-4
    idle, objectives = task(replace(config, disc_hyper_rate=0.0))
    assert idle.answer(objectives, 0.0)["rate"] == 1e-5


@pytest.mark.parametrize(
    ("follower", "idle"),
    [
        ("prodigy", {"disc_learning_rate": 0.1}),
        ("schedule-free", {"disc_schedule": "linear"}),
        ("l2l", {"disc_schedule": "linear"}),
        ("adam", {"disc_hyper_rate": 0.1}),
        ("rprop", {"disc_schedule": "linear"}),
    ],
)
def test_what_a_follower_does_not_read_is_refused(follower, idle):
    with pytest.raises(UserError, match=f"would change nothing for --follower {follower}"):
        named(follower, **idle)


@pytest.mark.parametrize("follower", ["adam", "prodigy"])
def test_runs_with_earlier_defaults_can_be_loaded(follower, tmp_path):
    # Adam does not read the log rate's learning rate, Prodigy neither of the two.
    demonstrations = make_demonstrations(3, 1)
    settings = {"env": "Pendulum-v1", "follower": follower, "disc_learning_rate": 3e-4, "log_rate_learning_rate": 0.05}
    GAIL("Pendulum-v1", demonstrations, config=replace(USUAL, **settings)).save(tmp_path)
    assert GAIL.load(tmp_path, demonstrations).config.log_rate_learning_rate == 0.05


def test_a_missing_package_is_told_and_divergence_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(UserError, match=r"needs prodigyopt: pip install"):
        task(replace(ADAM, follower="prodigy"))
    follower, objectives = task(replace(ADAM, follower="sgd"))
    steep = objectives._replace(train=lambda: lambda weights: torch.inf * sum(w.sum() for w in weights.values()))
    with pytest.raises(Diverged, match="discriminator's weights"):
        follower.answer(steep, 0.0)
