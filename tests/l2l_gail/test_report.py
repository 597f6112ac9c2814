"""How a policy is measured, and what a run says at its start and its end."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from l2l_experiment import metrics
from l2l_experiment.run import Run
from l2l_gail import GAIL, Environment, GAILConfig, evaluation, report
from l2l_gail.notes import notes
from l2l_gail.report import watch_hint
from tests.l2l_gail.conftest import make_demonstrations


class Linear:
    """A policy that depends on what it sees, and on chance unless it is asked not to."""

    weights = np.array([[0.3], [-0.5], [0.2]])

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        action = observation @ self.weights
        return action if deterministic else action + np.random.default_rng().normal(size=action.shape), state


def test_evaluation_by_hand():
    envs = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False)
    envs.obs_rms.mean, envs.obs_rms.var = np.array([0.1, 0.2, 0.3]), np.array([4.0, 1.0, 0.25])
    totals, env = [], gym.make("Pendulum-v1")
    for index in range(2):
        observation, _ = env.reset(seed=evaluation.EVALUATION_SEED + index)
        total, done = 0.0, False
        while not done:
            filtered = (observation - envs.obs_rms.mean) / np.sqrt(envs.obs_rms.var + envs.epsilon)
            filtered = np.clip(filtered, -10, 10).astype(np.float32)
            action = np.clip(filtered @ Linear.weights, -2, 2).astype(np.float32)
            observation, paid, terminated, truncated, _ = env.step(action)
            total, done = total + paid, terminated or truncated
        totals.append(total)
    pendulum = Environment("Pendulum-v1", rescale=False)
    found = evaluation.returns(Linear(), pendulum, episodes=2, filter_of=envs)
    np.testing.assert_allclose(found, totals, rtol=1e-4)
    assert envs.obs_rms.count < 1, "the filter is used and not changed"
    assert not np.allclose(evaluation.returns(Linear(), pendulum, episodes=2), totals, rtol=1e-2)
    chance = [evaluation.random_returns(pendulum, episodes=2) for _ in range(2)]
    np.testing.assert_array_equal(*chance)


def test_a_summary_and_a_share_of_the_expert():
    summed = evaluation.summary(np.array([1.0, 2.0, 6.0]))
    assert summed == {"mean": 3.0, "sd": pytest.approx(7**0.5), "min": 1.0, "max": 6.0, "n": 3}
    assert evaluation.percent(50.0, 200.0) == 25.0
    for value, expert in ((-5.0, -10.0), (1.0, 0.0), (1.0, np.nan), (np.nan, 1.0)):
        assert evaluation.percent(value, expert) is None


def test_a_result_and_its_text_without_rewards(config, tmp_path):
    made = make_demonstrations(3, 1)
    made = replace(made, episodes=[replace(e, rewards=np.full(40, np.nan)) for e in made.episodes])
    run = Run.create(tmp_path / "run", kind="gail", config={})
    run.update(steps=12)
    gail = GAIL("Pendulum-v1", made, config=replace(config, bc_epochs=1)).learn(0)
    with metrics.JsonLines(run.folder / "metrics.jsonl") as log:
        for step in range(1, 13):
            log.write(step, {"rollout/ep_rew_mean": -step, "train_disc/logit_std": 0.0, "train_disc/acc": 0.5})
    found = report.result(gail, made, run.folder, episodes=2)
    assert (found["percent_of_expert"], found["bc_loss"]) == (None, gail.bc_loss)
    assert (found["flat_since"], found["wrong_since"], found["stability"] != {}) == (1, None, True)
    text = report.text(found | {"skipped_fits": 3}, run, gail)
    assert all(words in text for words in ("12 steps, seed 0", "3 fits", "ALARM: from step 1 on", "holds no rewards"))


def test_the_end_tells_when_training_first_came_near_the_expert(config, tmp_path):
    made = make_demonstrations(3, 1)  # of a return of 40 each
    run = Run.create(tmp_path / "run", kind="gail", config={})
    run.update(steps=30)
    gail = GAIL("Pendulum-v1", made, config=config)
    with metrics.JsonLines(run.folder / "metrics.jsonl") as log:
        for step, value in ((10, 35.9), (20, 36.0), (30, 20.0)):
            log.write(step, {"rollout/ep_rew_mean": value})
    found = report.result(gail, made, run.folder, episodes=2)
    assert found["near_expert_from"] == 20
    assert "training return near the expert's (36) from step 20" in report.text(found, run, gail)
    better = replace(made, episodes=[replace(e, rewards=e.rewards * 2) for e in made.episodes])
    never = report.result(gail, better, run.folder, episodes=2)
    assert never["near_expert_from"] is None
    assert "near the expert" not in report.text(never, run, gail)
    noisy = found | {"random": found["return"] | {"mean": -9e9}, "return": found["return"] | {"mean": -9e9}}
    assert "the policy is far better (20.0 at the end of training)" in report.text(noisy, run, gail)


@pytest.mark.parametrize(("trained", "alone", "told"), [(-90, -500, True), (-90, -100, False), (-490, -500, False)])
def test_a_policy_that_is_nothing_without_its_noise_is_told(trained, alone, told):
    of = {"random": {"mean": -500.0}, "expert": {"mean": -80.0}, "return": {"mean": alone}}
    assert report.needs_noise(of | {"stability": {"final": trained}}) is told
    assert not report.needs_noise(of)
    bad = {"random": {"mean": -500.0}, "expert": {"mean": -600.0}, "return": {"mean": -530.0}}
    assert not report.needs_noise(bad | {"stability": {"final": -510.0}})


@pytest.mark.parametrize(
    ("env", "settings", "told"),
    [
        ("HalfCheetah-v4", {}, []),
        ("Hopper-v4", {}, ["end early"]),
        ("Hopper-v4", {"absorbing": True}, []),
        ("HalfCheetah-v4", {"disc_form": "airl"}, ["--reward airl"]),
        ("HalfCheetah-v4", {"follower": "l2l-pretrained"}, []),
        ("HalfCheetah-v4", {"follower": "l2l-pretrained", "gradient_penalty": 0.0}, ["has not been tried without one"]),
        ("HalfCheetah-v4", {"disc_form": "airl", "reward": "airl", "replay_rounds": 20, "replay_kind": "uniform"}, []),
    ],
)
def test_what_is_unusual_is_said(env, settings, told):
    found = notes(GAILConfig(env=env, **settings), Environment(env))
    assert notes(GAILConfig(env=env, **settings), Environment(env), fixed=True) == []  # nothing here learns a reward
    assert len(found) == len(told)
    assert all(words in note for words, note in zip(told, found, strict=True))


def test_how_to_watch_is_a_command_where_another_process_finds_the_environment(tmp_path):
    folder = tmp_path / "a run"
    assert watch_hint(Environment("HalfCheetah"), folder) == f"l2l-play '{folder}'"  # the newest version
    with_module = "gymnasium.envs.mujoco:HalfCheetah-v4"
    assert watch_hint(Environment(with_module), folder) == f"l2l-play '{folder}' --env {with_module}"
    gym.register("Watched-v0", entry_point=lambda: gym.make("Pendulum-v1").unwrapped)
    told = f"GAIL.load('{folder}') in a program that registers Watched-v0"
    assert watch_hint(Environment("Watched-v0"), folder) == told
