"""Figures that show why a run went as it did, on small runs of both tools."""

import sys
from pathlib import Path

import pytest

from l2l_at import cli as at
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


def test_rule_that_has_hardly_learned_answers_as_adam_does(imitation):
    import torch

    from l2l_experiment.run import Run
    from l2l_gail.diagnosis import answers, response, rollout
    from l2l_gail.discriminator import draw, objective
    from l2l_gail.gail import GAIL
    from l2l_gail.training import find_demonstrations, stored_args

    args = stored_args(Run.open(imitation, kind="gail"), steps=None)
    model = GAIL.load(imitation, find_demonstrations(args)[0])
    observations, actions = rollout(model)
    assert len(observations) == len(actions) == model.config.num_envs * model.config.round_steps
    assert abs(actions).max() <= 1
    policy, expert = model.transitions((observations, actions)), model.transitions(model.train_pairs)
    steps = [objective(model.discriminator, draw(expert, policy, 64, model.generator), model.config) for _ in range(3)]
    for parameter in model.follower.rule.parameters():
        parameter.data.zero_()
    reached = answers(model, steps, steps[:1])
    assert reached["Adam"] == reached["learned rule"]
    assert len(reached["Adam"]) == 4
    curves = response(model, steps[0])
    assert (curves["Adam"][1] == curves["learned rule"][1]).all()
    model.follower.rule.log_rate.data.fill_(torch.tensor(2.0).log())
    assert response(model, steps[0])["learned rule"][1] == pytest.approx(2 * curves["Adam"][1], rel=1e-4)


def test_of_an_adversarial_training(tmp_path, diagnose):
    folder = tmp_path / "run"
    at.main(["--method", "l2l", "--epochs", "1", "--subset", "256", "--grade", "none", "--run-dir", str(folder)])
    assert diagnose(folder) == {"strength", "accuracy", "ladder"}


def test_folder_that_holds_no_run(tmp_path, diagnose, capsys):
    with pytest.raises(SystemExit) as stopped:
        diagnose(tmp_path)
    assert stopped.value.code == 2
    assert "record.json" in capsys.readouterr().err
