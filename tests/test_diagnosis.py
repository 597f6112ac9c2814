"""Figures that show why a run went as it did, on small runs of both tools."""

import json
import sys
from pathlib import Path

import pytest

from l2l_experiment import drawings
from l2l_gail import cli as gail

ROOT = Path(__file__).parents[1]


@pytest.fixture
def diagnose(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import diagnose

    def call(folder):
        monkeypatch.setattr(sys, "argv", ["diagnose.py", str(folder)])
        diagnose.main()
        return {path.stem for path in (folder / "diagnosis").glob("*.png")}

    return call


@pytest.fixture(scope="module")
def imitation(tmp_path_factory):
    """A short run with a learned rule."""
    folder = tmp_path_factory.mktemp("gail") / "run"
    gail.main(["--l2l", "--steps", "2048", "--num-demos", "1", "--eval-episodes", "1", "--run-dir", str(folder)])
    return folder


def test_of_an_imitation(imitation, diagnose):
    assert diagnose(imitation) == {"discriminator", "reward", "step", "strength", "response"}


def test_pictures_can_be_drawn_again_from_the_numbers_beside_them(imitation, diagnose, tmp_path):
    names, folder = diagnose(imitation), imitation / "diagnosis"
    kept = drawings.restored(json.loads((folder / drawings.FILE).read_text()))
    assert kept.keys() == names
    for picture in drawings.draw(kept, tmp_path, "again_"):
        first = folder / picture.name.removeprefix("again_")
        assert picture.stat().st_size == pytest.approx(first.stat().st_size, rel=0.05)
    rises = drawings.Drawing({"a": [(range(1001), range(1001))]}, {"ylabel": "y", "title": "t"})
    (thinned,) = drawings.plain({"x": rises}, most=11)["x"]["curves"]["a"]
    assert thinned == [[100.0 * place for place in range(11)]] * 2


def test_curves_are_those_that_their_titles_name():
    """Each logged figure has a value of its own here, so that a title over another figure would show."""
    from l2l_gail import diagnosis as of_imitation

    values = {"disc/disc_acc": 0.1, "disc/disc_acc_expert": 0.2, "disc/heldout_acc": 0.3, "disc/disc_acc_gen": 0.4}
    values |= {"reward/std": 5, "disc/logit_std": 6, "follower/step_over_adam": 100, "follower/log_rate": 2.302585093}
    drawn = {
        name: {title: float(curve[1][-1]) for title, (curve,) in drawing.curves.items()}
        for name, drawing in of_imitation.logged([{"step": step} | values for step in (1, 2)], "run").items()
    }
    assert drawn["discriminator"] == {"demonstrations": 0.2, "other demonstrations": 0.3, "policy": 0.4}
    assert drawn["reward"] == {"learned reward": 5, "logits": 6}
    assert drawn["step"] == pytest.approx({"learned rule": 2, "its log rate alone": 1})


def test_rollouts_go_on_from_the_checkpoint(imitation):
    import numpy as np

    from l2l_experiment import checkpoint
    from l2l_experiment.run import Run
    from l2l_gail.diagnosis import rollout
    from l2l_gail.gail import GAIL
    from l2l_gail.training import find_demonstrations, stored_args

    args = stored_args(Run.open(imitation, kind="gail"), steps=None)
    model = GAIL.load(imitation, find_demonstrations(args)[0])
    saved = checkpoint.latest(imitation)[0]["last"]["raw"].numpy()
    assert abs(saved[:, 8:]).max() > 0.5  # velocities: HalfCheetah does not stand as after a reset
    envs, (observations, actions) = model.config.num_envs, rollout(model)
    assert len(observations) == len(actions) == envs * model.config.round_steps
    assert abs(actions).max() <= 1
    np.testing.assert_array_equal(observations[:envs], saved)
    following = model.envs.get_original_obs()
    np.testing.assert_array_equal(rollout(model)[0][:envs], following)


def test_response_to_a_first_gradient_is_a_step_of_one_rate_against_its_sign(imitation):
    """Adam's first step (Kingma and Ba, 2015): the running mean square is the gradient's own square."""
    import numpy as np

    from l2l_experiment.run import Run
    from l2l_gail.diagnosis import BINS, response, rollout
    from l2l_gail.gail import GAIL
    from l2l_gail.training import find_demonstrations, stored_args

    args = stored_args(Run.open(imitation, kind="gail"), steps=None)
    model = GAIL.load(imitation, find_demonstrations(args)[0])
    follower, (step, _) = model.follower, model.objectives([rollout(model)])
    follower.memory = follower.rule.init(follower.weights)
    x, y = response(model, [step() for _ in range(3)])["Adam"]
    last = np.abs(x) > 1 - (BINS[1] - BINS[0])  # gradients near `eps` stand further in
    assert last.sum() >= 2
    assert (np.abs(x) < 1 + (BINS[1] - BINS[0])).all()
    assert y[last] == pytest.approx(-np.sign(x[last]), abs=0.01)


def test_rule_that_has_hardly_learned_answers_as_adam_does(imitation):
    import torch

    from l2l_experiment.run import Run
    from l2l_gail.diagnosis import answers, response, rollout
    from l2l_gail.gail import GAIL
    from l2l_gail.training import find_demonstrations, stored_args

    args = stored_args(Run.open(imitation, kind="gail"), steps=None)
    model = GAIL.load(imitation, find_demonstrations(args)[0])
    step, score = model.objectives([rollout(model)])
    steps, scores = [step() for _ in range(3)], [score()]
    for parameter in model.follower.rule.parameters():
        parameter.data.zero_()
    reached = answers(model, steps, scores)
    assert reached["Adam"] == reached["learned rule"]
    assert len(reached["Adam"]) == 4
    curves = response(model, steps[:1])
    assert (curves["Adam"][1] == curves["learned rule"][1]).all()
    model.follower.rule.log_rate.data.fill_(torch.tensor(2.0).log())
    quicker = answers(model, steps, scores)
    assert quicker["Adam"] == reached["Adam"]
    assert quicker["learned rule"][0] == reached["Adam"][0]
    assert quicker["learned rule"][1] < reached["Adam"][1] < reached["Adam"][0]  # a small step, and one twice as long
    assert response(model, steps[:1])["learned rule"][1] == pytest.approx(2 * curves["Adam"][1], rel=1e-4)


def test_folder_that_holds_no_run(tmp_path, diagnose, capsys):
    with pytest.raises(SystemExit) as stopped:
        diagnose(tmp_path)
    assert stopped.value.code == 2
    assert "record.json" in capsys.readouterr().err
