"""The follower whose rule was trained beforehand: parity with Adam, its files, and where its rule may come from."""

import json
import math
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import nn

from bilevel import Coordinatewise
from l2l_experiment.errors import UserError
from l2l_gail import FOLLOWERS, GAIL, GAILConfig
from l2l_gail.cli import main
from l2l_gail.followers import PretrainedFollower, resolve_config, weights_of
from l2l_gail.followers.pretrained import SHIPPED_RULE, load_rule, rule_of, save_rule
from tests.l2l_gail.conftest import make_demonstrations
from tests.l2l_gail.test_followers import ADAM, L2L, assert_same_answers, task

PRETRAINED = resolve_config(replace(ADAM, follower="l2l-pretrained"))
RATE = ADAM.disc_learning_rate


def moved(rule: Coordinatewise) -> Coordinatewise:
    """A rule that is no longer Adam."""
    nn.init.constant_(rule.network[-1].bias, 0.3)
    return rule


def test_without_a_correction_it_is_adam_to_the_last_bit():
    adam, pretrained = task(ADAM), task(PRETRAINED)
    pretrained[0].warm_start(Coordinatewise(RATE), "here")
    assert_same_answers(adam, pretrained, rounds=10)


def test_it_steps_as_the_frozen_learned_follower_does():
    rule = moved(Coordinatewise(RATE, hidden=4))
    frozen, pretrained = task(replace(L2L, freeze_follower=True)), task(PRETRAINED)
    for follower, objectives in (frozen, pretrained):
        follower.warm_start(rule, "here")
        for progress in (0.2, 0.4, 0.6):
            follower.answer(objectives, progress)
    one, two = (weights_of(follower.discriminator) for follower, _ in (frozen, pretrained))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not [weight for weight in pretrained[0].rule.parameters() if weight.requires_grad]


@pytest.mark.parametrize("anchored", [False, True])
def test_a_rules_file_holds_its_weights_its_rate_and_what_it_was_trained_on(tmp_path, anchored):
    rule = moved(Coordinatewise(0.02, hidden=3, anchored=anchored))
    save_rule(tmp_path / "rule", rule, {"envs": ["Pendulum-v1"]})
    loaded, about = load_rule(tmp_path / "rule")
    assert (loaded.rate, loaded.anchored, about) == (0.02, anchored, {"envs": ["Pendulum-v1"]})
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in rule.state_dict().items())
    (tmp_path / "other").write_bytes((tmp_path / "rule").read_bytes()[:-4])
    (tmp_path / "foreign").write_bytes(safetensors.torch.save(rule.state_dict()))
    for rate in (-1.0, math.nan, "x", None):
        rule.rate = rate
        save_rule(tmp_path / f"rate {rate}", rule, {})
    for wrong in ("other", "nothing", "foreign", "rate -1.0", "rate nan", "rate x", "rate None"):
        with pytest.raises(UserError, match="holds no rule of l2l-train-follower, or it is damaged"):
            load_rule(tmp_path / wrong)


def test_the_rule_that_ships_is_small_and_says_what_it_was_trained_on():
    rule, about = load_rule(SHIPPED_RULE)
    assert SHIPPED_RULE.stat().st_size < 8192
    assert about["envs"] == ["HalfCheetah-v4"]
    assert rule.rate in about["rates"]
    assert float(rule.network[-1].weight.detach().abs().sum()) > 0
    assert "/" not in json.dumps(about)  # no path of whoever trained it


def test_a_run_resumes_with_the_rule_that_it_began_with(config, tmp_path):
    demonstrations = make_demonstrations(3, 1)
    whole = GAIL("Pendulum-v1", demonstrations, config=replace(config, follower="l2l-pretrained"))
    whole.follower.warm_start(moved(Coordinatewise(0.01, hidden=8, anchored=True)), "here")  # not as wide as what ships
    whole.learn(128).save(tmp_path)
    resumed = GAIL.load(tmp_path, demonstrations)
    assert isinstance(resumed.follower, PretrainedFollower)
    assert resumed.follower.rule.rate == 0.01
    one, two = (gail.follower.rule.state_dict() for gail in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert resumed.learn(64, reset_num_timesteps=False).figures["train_follower/rate"] == pytest.approx(0.01)


@pytest.mark.slow
def test_a_rule_is_taken_from_a_run_and_from_a_file(config, flags, tmp_path):
    flags = [*flags, "--steps", "64"]
    main(["--l2l", "--disc-learning-rate", "0.01", *flags, "--run-dir", str(tmp_path / "l2l")])
    rule = rule_of(tmp_path / "l2l")
    assert rule.rate == 0.01
    save_rule(tmp_path / "rule.safetensors", rule, {})
    for source in ("l2l", "rule.safetensors", "0"):  # the last one is a run with a rule from elsewhere
        taken = ["--follower", "l2l-pretrained", "--follower-from", str(tmp_path / source)]
        main([*taken, *flags, "--run-dir", str(tmp_path / str(len(list(tmp_path.glob("[0-9]")))))])
    for name in ("0", "1", "2"):
        end = rule_of(tmp_path / name)
        assert end.rate == 0.01
        assert all(torch.equal(value, end.state_dict()[key]) for key, value in rule.state_dict().items())


def test_what_cannot_be_taken_is_refused(flags, tmp_path, capsys):
    def refused(*more):
        with pytest.raises(SystemExit) as exit_:
            main([*more, *flags, "--run-dir", str(tmp_path / "run")])
        assert exit_.value.code == 2
        return capsys.readouterr().err

    (tmp_path / "file").write_text("no rule")
    taken = ["--follower", "l2l-pretrained", "--follower-from"]
    assert "holds no rule of l2l-train-follower" in refused(*taken, str(tmp_path / "file"))
    assert "nowhere: there is no such file or folder" in refused(*taken, "nowhere")
    assert "add --l2l, or --follower l2l-pretrained" in refused("--follower-from", str(SHIPPED_RULE))
    assert "--disc-learning-rate would change nothing" in refused(*taken[:2], "--disc-learning-rate", "0.1")
    main([*flags, "--steps", "64", "--run-dir", str(tmp_path / "adam")])
    capsys.readouterr()
    assert "no learned follower" in refused(*taken, str(tmp_path / "adam"))


def test_its_recipe_reads_no_learning_rate():
    assert FOLLOWERS["l2l-pretrained"].takes == frozenset()
    with pytest.raises(UserError, match="--disc-learning-rate would change nothing"):
        resolve_config(GAILConfig(follower="l2l-pretrained", disc_learning_rate=0.1))
