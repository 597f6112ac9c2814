"""Figures that show why a run went as it did."""

import shutil

import numpy as np
import pytest
import torch

from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_gail import GAIL, Environment, diagnosis
from l2l_gail.cli import main
from l2l_gail.demonstrations import save_npz
from l2l_gail.diagnosis import BINS, answers, diagnose, log_figures, response
from l2l_gail.session import find_demonstrations, stored_args
from tests.l2l_gail.conftest import make_demonstrations


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run with a learned rule."""
    folder = tmp_path_factory.mktemp("gail")
    demos = save_npz(folder / "demos.npz", make_demonstrations(17, 6))
    flags = "--steps 64 --num-demos 2 --eval-episodes 1 --n-envs 2 --n-steps 32 --batch-size 32 --disc-hidden 32 32"
    main(["--l2l", *flags.split(), "--disc-batch-size", "64", "--demos", str(demos), "--run-dir", str(folder / "run")])
    return Run.open(folder / "run", kind="gail")


@pytest.fixture
def gail(run):
    """The run, taken up from its checkpoint."""
    args = stored_args(run)
    return GAIL.load(run.folder, find_demonstrations(args, Environment(args.settings.env))[0])


def test_a_run_has_five_figures(run, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "MOST_STEPS", 3)
    drawn = diagnose(run)
    assert drawn.keys() == {"discriminator", "reward", "step", "strength", "response"}
    assert drawn["strength"].curves.keys() == drawn["response"].curves.keys() == {"Adam", "learned rule"}
    assert len(drawn["strength"].curves["Adam"]) == 4
    new = Run.create(tmp_path / "new", kind="gail", config=run.config)
    (new.folder / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="checkpoint"):
        diagnose(new)


@pytest.mark.slow
def test_demonstrations_that_have_moved_are_found_where_one_says(run, tmp_path):
    source = stored_args(run).demos
    moved = shutil.copy(source, tmp_path / "moved.npz")
    stored = Run.open(run.folder, kind="gail")
    stored.config["demos"] = str(tmp_path / "gone.npz")
    with pytest.raises(UserError, match="gone.npz"):
        diagnose(stored)
    assert diagnose(stored, demos=str(moved)).keys() >= {"discriminator", "response"}


def test_curves_are_those_that_their_titles_name():
    """Each logged figure has a value of its own here, so that a title over another figure would show."""
    values = {
        "train_disc/acc": 0.1,
        "train_disc/acc_expert": 0.2,
        "train_disc/heldout_acc": 0.3,
        "train_disc/acc_gen": 0.4,
    }
    values |= {
        "train_reward/std": 5,
        "train_disc/logit_std": 6,
        "train_follower/step_over_adam": 100,
        "train_follower/log_rate": 2.302585093,
    }
    drawn = {
        name: {title: float(curve[1][-1]) for title, (curve,) in drawing.curves.items()}
        for name, drawing in log_figures([{"step": step} | values for step in (1, 2)], "run").items()
    }
    assert drawn["discriminator"] == {"demonstrations": 0.2, "other demonstrations": 0.3, "policy": 0.4}
    assert drawn["reward"] == {"learned reward": 5, "logits": 6}
    assert drawn["step"] == pytest.approx({"learned rule": 100, "its log rate alone": 10})


def test_response_to_a_first_gradient_is_a_step_of_one_rate_against_its_sign(gail):
    """Adam's first step (Kingma and Ba, 2015): the running mean square is the gradient's own square."""
    follower = gail.follower
    follower.memory = follower.rule.init(follower.weights)
    train = gail.objectives([gail.leader.rollout()]).train
    x, y = response(follower, follower.rules()["Adam"], [train() for _ in range(3)])
    last = np.abs(x) > 1 - (BINS[1] - BINS[0])  # gradients near `eps` stand further in
    assert last.sum() >= 2
    assert (np.abs(x) < 1 + (BINS[1] - BINS[0])).all()
    assert y[last] == pytest.approx(-np.sign(x[last]), abs=0.01)


def test_a_rule_that_has_not_learned_answers_as_adam_does_and_one_at_twice_the_rate_goes_further(gail):
    train, score = gail.objectives([gail.leader.rollout()])
    steps, scores, follower = [train() for _ in range(3)], [score()], gail.follower
    for parameter in follower.rule.parameters():
        parameter.data.zero_()
    adam, rule = follower.rules().values()
    reached = answers(follower, adam, steps, scores)
    assert reached == answers(follower, rule, steps, scores)
    assert len(reached) == 4
    curve = response(follower, adam, steps[:1])
    np.testing.assert_array_equal(curve, response(follower, rule, steps[:1]))
    follower.rule.log_rate.data.fill_(torch.tensor(2.0).log())
    quicker = answers(follower, rule, steps, scores)
    assert answers(follower, adam, steps, scores) == reached
    assert quicker[0] == reached[0]
    assert quicker[1] < reached[1] < reached[0]  # a small step, and one twice as long
    assert response(follower, rule, steps[:1])[1] == pytest.approx(2 * curve[1], rel=1e-4)
