"""A rule that is trained before it is used: inner runs, what they are scored on, and the command."""

import json
import time
from concurrent import futures
from dataclasses import replace

import numpy as np
import pytest
import torch

from l2l_experiment import checkpoint, metrics
from l2l_experiment.errors import UserError
from l2l_gail import GAIL, GAILConfig, cli
from l2l_gail.config import EARLIER
from l2l_gail.followers import resolve_config
from l2l_gail.followers.pretrained import load_rule
from l2l_gail.pretraining import InnerRun, inner, record
from l2l_gail.pretraining import cli as pretraining
from l2l_gail.pretraining.inner import load
from tests.l2l_gail.conftest import SMALL, make_demonstrations

ENV = "Pendulum-v1"
CONFIG = resolve_config(GAILConfig(env=ENV, follower="l2l", **SMALL))
FLAGS = ["--envs", "Pendulum-v1", "--check-env", "CartPole-v1", "--steps", "2100", "--hidden", "8", "--num-demos", "1"]


@pytest.fixture(scope="module")
def demonstrations():
    return make_demonstrations(3, 1)


@pytest.fixture(scope="module")
def rollouts(demonstrations, tmp_path_factory):
    return record(ENV, demonstrations, CONFIG, tmp_path_factory.mktemp("rollouts"), steps=256)


def test_an_inner_run_is_the_recorded_run_over_again(demonstrations, rollouts):
    trained = GAIL(ENV, demonstrations, config=CONFIG).learn(256)
    inner = InnerRun(rollouts, ENV, demonstrations, CONFIG)
    assert len(rollouts) == 4
    for number, file in enumerate(rollouts):
        inner.answer(load(file), (number + 1) / 4)
    theirs, own = trained.discriminator.state_dict(), inner.discriminator.state_dict()
    assert all(torch.equal(theirs[name], own[name]) for name in theirs)


def test_an_inner_run_may_take_some_rounds_from_the_first_to_the_last(demonstrations, rollouts):
    taken = [InnerRun(rollouts, ENV, demonstrations, CONFIG, most=most).rollouts for most in (None, 2, 3, 9)]
    assert taken == [rollouts, [rollouts[0], rollouts[3]], [rollouts[0], rollouts[2], rollouts[3]], rollouts]


def test_a_recording_is_made_once(demonstrations, rollouts):
    times = [file.stat().st_mtime_ns for file in rollouts]
    again = record(ENV, demonstrations, CONFIG, rollouts[0].parent, steps=256)
    assert again == rollouts
    assert times == [file.stat().st_mtime_ns for file in again]
    about = rollouts[0].parent / "recording.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | EARLIER))  # one from before the defaults changed
    assert record(ENV, demonstrations, CONFIG, rollouts[0].parent, steps=256) == rollouts
    with pytest.raises(UserError, match="made with other settings"):
        record(ENV, demonstrations, CONFIG, rollouts[0].parent, steps=512)
    with pytest.raises(UserError, match="no policy for --disc-form airl"):
        InnerRun(rollouts, ENV, demonstrations, replace(CONFIG, disc_form="airl"))
    with pytest.raises(UserError, match="at least 2 recorded rounds"):
        InnerRun(rollouts[:1], ENV, demonstrations, CONFIG)


def test_the_ranking_is_one_less_the_correlation_of_reward_and_age(demonstrations, rollouts):
    inner = InnerRun(rollouts, ENV, demonstrations, replace(CONFIG, reward="airl"), score="ranking")
    parts = [torch.randn(20, inner.model.columns.size) + shift for shift in (0.0, 1.0, 2.0)]
    inner._neighbours = lambda: parts
    score = inner._ranking()
    weights = {name: weight.detach().clone() for name, weight in inner.discriminator.named_parameters()}
    paid = inner.discriminator(torch.cat(parts)).detach().numpy()
    expected = 1 - np.corrcoef(paid, np.repeat([0, 1, 2], 20))[0, 1]
    assert float(score(weights)) == pytest.approx(expected, abs=1e-5)
    scaled = {name: 7 * w if name.startswith("layers.1") else w for name, w in weights.items()}  # the last layer
    assert float(score(scaled)) == pytest.approx(float(score(weights)), abs=1e-5)  # its size does not matter


def test_a_rule_fitted_on_the_ranking_learns_to_rank(demonstrations, rollouts):
    config = replace(CONFIG, disc_updates=20, follower_learning_rate=0.01, log_rate_learning_rate=0.0)
    torch.manual_seed(0)
    inner = InnerRun(rollouts, ENV, demonstrations, config, score="ranking")
    before = inner.follower.rule.network[-1].weight.clone()
    found = inner.run()
    assert set(found) == {"loss", "order"}
    assert 0 < found["loss"] < 10
    assert -1 <= found["order"] <= 1
    assert not torch.equal(before, inner.follower.rule.network[-1].weight)
    assert float(inner.follower.rule.log_rate) == 0


def weights_of(folder):
    return checkpoint.latest(folder)["follower"]["learner"]["rule"]


@pytest.mark.slow
def test_the_command_trains_resumes_to_the_same_rule_and_the_rule_is_used(tmp_path, monkeypatch):
    pretraining.main([*FLAGS, "--out", str(tmp_path / "whole"), "--inner-runs", "3", "--check-every", "2"])
    pretraining.main([*FLAGS, "--out", str(tmp_path / "cut"), "--inner-runs", "1", "--check-every", "2"])
    with pytest.raises(SystemExit) as exit_:
        pretraining.main(["--out", str(tmp_path / "cut"), "--inner-runs", "3", "--check-every", "1", "--resume"])
    assert exit_.value.code == 2
    pretraining.main(["--out", str(tmp_path / "cut"), "--inner-runs", "3", "--resume"])
    one, two = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)
    filed, about = load_rule(tmp_path / "cut" / "rule.safetensors")
    assert all(torch.equal(one[name], value) for name, value in filed.state_dict().items())
    assert (filed.rate, about["inner_runs"]) == (3e-4, 3)  # the middle one of the rates, whichever was drawn last
    rows = metrics.read(tmp_path / "whole" / "metrics.jsonl")
    assert [row["step"] for row in rows if "check/loss" in row] == [0, 2]
    assert json.loads((tmp_path / "whole" / "record.json").read_text())["status"] == "finished"
    monkeypatch.chdir(tmp_path)
    flags = ["--env", "Pendulum-v1", "--l2l", "--steps", "1", "--n-steps", "64", "--num-demos", "1"]
    flags += ["--follower-from", str(tmp_path / "whole"), "--freeze-follower", "--eval-episodes", "1"]
    cli.main([*flags, "--run-dir", "run"])
    used = checkpoint.latest("run")["follower"]["learner"]["rule"]
    assert all(torch.equal(one[name], used[name]) for name in one)


@pytest.mark.slow
def test_rules_of_other_seeds_share_a_recording_which_may_move(tmp_path):
    shared = ["--inner-runs", "1", "--check-every", "0", "--rollouts"]
    pretraining.main([*FLAGS, "--out", str(tmp_path / "a"), *shared, str(tmp_path / "rollouts")])
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("0*.npz")}
    assert files
    pretraining.main([*FLAGS, "--out", str(tmp_path / "b"), *shared, str(tmp_path / "rollouts"), "--seed", "1"])
    one, two = (weights_of(tmp_path / name) for name in "ab")
    assert not all(torch.equal(one[name], two[name]) for name in one)
    moved = (tmp_path / "rollouts").rename(tmp_path / "moved")
    pretraining.main(["--out", str(tmp_path / "b"), "--resume", "--inner-runs", "2", "--rollouts", str(moved)])
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("0*.npz"))] == [*files.values()]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--check-env", "Pendulum-v1"], "has not seen"),
        (["--follower-steps", "3"], "must divide"),
        (["--num-demos", "1", "999"], "999"),
        (["--envs", "MountainCar-v0"], "MountainCar"),
    ],
)
def test_mistakes_get_one_sentence(flags, told, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        pretraining.main([*FLAGS, "--out", str(tmp_path / "a"), *flags])
    assert exit_.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "a").exists()  # so that the right command can be given next


def test_processes_that_share_a_folder_record_once(demonstrations, tmp_path, monkeypatch):
    begun = []

    class Slow:
        def __init__(self, *args, **kwargs):
            begun.append(self)

        def learn(self, steps, on_round):
            for file in self.files:
                time.sleep(0.1)
                file.write_bytes(b"")

    monkeypatch.setattr(inner, "_RecordingGAIL", Slow)
    with futures.ThreadPoolExecutor() as pool:
        both = [pool.submit(record, ENV, demonstrations, CONFIG, tmp_path, steps=256) for _ in range(2)]
        assert both[0].result() == both[1].result()
    assert len(begun) == 1
