"""Experts: trained, interrupted, resumed, the best one chosen; recorded by a rule; and the card that tells how."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3 import PPO

from l2l_experiment.errors import UserError
from l2l_gail import load_demonstrations
from l2l_gail.demonstrations import shipped_dataset_id
from l2l_gail.environments import make
from l2l_gail.experts import cli, training
from l2l_gail.experts.recording import play
from l2l_gail.experts.settings import parse

ENV = "Pendulum-v1"
SET = shipped_dataset_id(ENV)
TINY = "--n-envs=2 --batch-size=32 --net-arch=8 --episodes=2"


def arguments(tmp_path: Path, *more: str, env: str = ENV, steps: int = 128) -> list[str]:
    flags = {"--env": env, "--steps": steps, "--out": tmp_path / "data", "--run-dir": tmp_path / "run"}
    flags |= {} if "--algo" in more else {"--algo": "ppo", "--n-steps": 32, "--n-epochs": 1}
    return [*(str(word) for pair in flags.items() for word in pair), *TINY.split(), *more]


def test_a_run_writes_data_card_and_page_and_may_be_recorded_again(tmp_path, refused):
    cli.main(arguments(tmp_path))
    written, page = (tmp_path / "data" / name for name in (f"{SET}/card.json", "README.md"))
    card = json.loads(written.read_text())
    assert (card["trained_steps"], card["episodes"], card["episodes_dropped"]) == (128, 2, 0)
    assert card["command"] in page.read_text()
    recorded = load_demonstrations(tmp_path / "data" / SET, ENV)
    np.testing.assert_allclose(recorded.returns, card["returns"], atol=0.01)
    start = make(ENV).reset(seed=1_000_000)[0]  # one that training has not used
    np.testing.assert_allclose(recorded.episodes[0].observations[0], start)
    refused(cli.main, arguments(tmp_path, "--resume"), "there already")
    cli.main(arguments(tmp_path, "--resume", "--overwrite"))
    assert json.loads(written.read_text()) == card


def test_what_an_algorithm_does_not_take_is_one_sentence(tmp_path, refused):
    refused(cli.main, arguments(tmp_path, "--tau", "0.1"), "--tau would change nothing for --algo ppo")
    discrete = ["--env", "CartPole-v1", "--out", str(tmp_path), "--algo", "sac"]
    refused(cli.main, discrete, "--algo sac needs continuous actions, not Discrete(2)")


class Frames(gymnasium.Env):
    """Grey frames without a channel, and two numbers to choose; ten steps."""

    observation_space = Box(0, 255, (40, 40), np.uint8)
    action_space = gymnasium.spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.integers(0, 256, (40, 40), dtype=np.uint8), {}

    def step(self, action):
        return self.np_random.integers(0, 256, (40, 40), dtype=np.uint8), float(action[1]), False, False, {}


class Named(Frames):
    """The same with a dictionary, one number, and a number to choose."""

    observation_space = gymnasium.spaces.Dict({"goal": gymnasium.spaces.Discrete(3), "at": Box(-1, 1, (2,))})
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"goal": 1, "at": np.zeros(2, dtype=np.float32)}, {}

    def step(self, action):
        return {"goal": 2, "at": np.ones(2, dtype=np.float32)}, float(action), False, False, {}


@pytest.mark.parametrize(
    ("make_one", "policy", "seen", "chosen"),
    [
        (Frames, "ActorCriticCnnPolicy", ((11, 1, 40, 40), np.uint8), (10, 2)),
        (Named, "ActorCriticPolicy", ((11, 5), float), (10,)),
    ],
)
def test_an_expert_of_any_space_is_recorded_as_it_is_read(tmp_path, monkeypatch, make_one, policy, seen, chosen):
    spec = gymnasium.envs.registration.EnvSpec("Any-v0", entry_point=make_one, max_episode_steps=10)
    monkeypatch.setitem(gymnasium.registry, "Any-v0", spec)
    model, normalizer = training.train(parse(arguments(tmp_path, env="Any-v0", steps=64)))
    assert (type(model.policy).__name__, normalizer.norm_obs) == (policy, policy == "ActorCriticPolicy")
    cli.main(arguments(tmp_path, "--resume", env="Any-v0", steps=64))
    episode = load_demonstrations(tmp_path / "data" / shipped_dataset_id("Any-v0"), "Any-v0").episodes[0]
    assert (episode.observations.shape, episode.observations.dtype) == (seen[0], np.dtype(seen[1]))
    assert (episode.actions.shape, episode.actions.dtype) == (chosen, np.int64)


def test_a_resumed_expert_continues_network_and_filter_and_meets_other_starts(tmp_path):
    settings = parse(arguments(tmp_path))
    model, normalizer = training.train(settings)
    again, filter_again = training.train(replace(settings, resume=True))
    assert again.num_timesteps == model.num_timesteps == 128
    for one, two in zip(model.policy.parameters(), again.policy.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach(), two.detach())
    np.testing.assert_array_equal(normalizer.obs_rms.mean, filter_again.obs_rms.mean)
    assert not filter_again.training
    assert list(filter_again.unwrapped._seeds) == [128, 129]
    longer, _ = training.train(replace(settings, resume=True, steps=192))
    assert (longer.num_timesteps, longer._n_updates) == (192, 3)


@pytest.mark.parametrize("algo", ["sac", "tqc"])
def test_an_off_policy_expert_resumes_with_its_replay_buffer(algo, tmp_path):
    if algo == "tqc":
        pytest.importorskip("sb3_contrib")
    more = ["--algo", algo, "--learning-starts", "32", "--checkpoint-every", "64"]
    settings = parse(arguments(tmp_path, *more))
    model, normalizer = training.train(settings)
    assert (normalizer.norm_obs, normalizer.norm_reward) == (False, False)
    (replay,) = (tmp_path / "run").glob("expert_replay_buffer_*")  # those of older checkpoints are removed
    again = replace(settings, resume=True, steps=192)
    longer, _ = training.train(again)
    assert longer.replay_buffer.size() * 2 == longer.num_timesteps == 192
    assert longer._n_updates > model._n_updates > 0


def test_the_best_policy_is_recorded_also_after_a_restart(tmp_path, monkeypatch):
    settings = parse(arguments(tmp_path, "--select-episodes", "1", "--checkpoint-every", "64", steps=192))
    scores = iter([3.0, 7.0, 5.0, 6.0, 8.0])
    monkeypatch.setattr("stable_baselines3.common.callbacks.evaluate_policy", lambda *_, **__: ([next(scores)], [1]))
    for steps, best in ((192, 128), (256, 128), (320, 320)):
        model, normalizer = training.train(replace(settings, steps=steps, resume=steps > 192))
        assert model.num_timesteps == best
        assert normalizer.obs_rms.count == pytest.approx(best, abs=10)
    assert next(scores, None) is None


def test_an_expert_that_was_never_evaluated_is_its_last_policy(tmp_path):
    model, normalizer = training.train(parse(arguments(tmp_path, "--select-episodes", "1")))
    assert model.num_timesteps == 128
    assert not normalizer.training


def test_mistakes(tmp_path, refused):
    refused(cli.main, arguments(tmp_path, "--resume"), "nothing to resume")
    refused(cli.main, arguments(tmp_path, "--min-return", "100000"), "returned less than 100000")
    assert not (tmp_path / "data").exists()
    refused(cli.main, arguments(tmp_path), "holds a checkpoint; continue it with --resume")
    refused(cli.main, arguments(tmp_path, "--resume", "--gamma", "0.5"), "started with gamma 0.99, not 0.5")


def test_ctrl_c_saves_and_the_run_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(PPO, "train", lambda model: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit, match="130"):
        cli.main(arguments(tmp_path))
    monkeypatch.undo()
    assert "stopped at step 66" in capsys.readouterr().err
    assert training.newest(tmp_path / "run") == 66
    longer, _ = training.train(parse(arguments(tmp_path, "--resume")))
    assert longer.num_timesteps == 130


class Counter(gymnasium.Env):
    """Ends after as many steps as its seed's last digit says, reward 1 each."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.left = (seed or 9) % 10
        return np.array([float(self.left)]), {}

    def step(self, action):
        self.left -= 1
        return np.array([float(self.left)]), 1.0, self.left == 0, False, {}


def test_playing_keeps_what_the_rule_allows():
    played = play(Counter(), lambda o: np.zeros(1), episodes=3, first_seed=3, min_return=5)
    assert played.seeds == [5, 6, 7]
    assert played.dropped == [3.0, 4.0]
    assert [len(e) for e in played.episodes] == [5, 6, 7]
    np.testing.assert_array_equal(played.episodes[0].observations[:, 0], [5, 4, 3, 2, 1, 0])
    with pytest.raises(UserError, match="3 of 3 episodes returned less than 9"):
        play(Counter(), lambda o: np.zeros(1), episodes=2, first_seed=1, min_return=9)
