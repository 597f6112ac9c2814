"""Figures that show why a run of adversarial training went as it did."""

import sys
from pathlib import Path

import pytest

from l2l_at import cli as at
from l2l_experiment import drawings

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


def test_of_a_curve_with_many_points_evenly_chosen_ones_are_kept():
    rises = drawings.Drawing({"a": [(range(1001), range(1001))]}, {"ylabel": "y", "title": "t"})
    (thinned,) = drawings.plain({"x": rises}, most=11)["x"]["curves"]["a"]
    assert thinned == [[100.0 * place for place in range(11)]] * 2


def test_curves_are_those_that_their_titles_name():
    from l2l_at import diagnosis as of_defence

    tags = {title: tag for _, titles in of_defence.CURVES.values() for title, tag in titles.items()}
    assert tags == {
        "of PGD-10's loss": "follower/strength",
        "of what PGD-10 adds to the loss": "follower/gain",
        "of the radius": "follower/norm",
        "held out, clean": "robust/clean",
        "held out, PGD-10": "robust/pgd10",
        "training, one step": "train/fgsm",
        "training, PGD-10": "train/pgd10",
    }


def test_of_an_adversarial_training(tmp_path, diagnose):
    folder = tmp_path / "run"
    at.main(["--method", "l2l", "--epochs", "1", "--subset", "256", "--grade", "none", "--run-dir", str(folder)])
    assert diagnose(folder) == {"strength", "accuracy", "ladder"}


def test_ladder_is_the_loss_under_each_attack():
    """On a linear classifier the loss under PGD is that of ε·sign, however many steps it takes."""
    import torch
    from torch.nn.functional import cross_entropy

    from l2l_at.config import ATConfig
    from l2l_at.data import load
    from l2l_at.diagnosis import STEPS, ladder
    from l2l_at.trainer import Trainer

    config = ATConfig(dataset="digits", method="pgd", eps="0.05", model="small-cnn", attack_steps=1, attack_size=1.0)
    trainer = Trainer(config, load("digits"))
    torch.manual_seed(0)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():  # two classes that differ: which way to go is the same everywhere
        linear[1].weight[2:] = 0
        linear[1].bias[:] = torch.tensor([0.0, 0.0] + 8 * [-1e4])
    trainer.model = linear
    x, y = torch.full((16, 1, 8, 8), 0.5), torch.zeros(16, dtype=torch.long)
    worst = x + 0.05 * (linear[1].weight[1] - linear[1].weight[0]).sign().view(1, 8, 8)
    expected = cross_entropy(linear(worst), y).item()
    pgd, own, largest = ladder(trainer, x, y)
    assert largest <= 1.001
    assert list(pgd) == list(STEPS)
    assert list(pgd.values())[1:] == pytest.approx(len(STEPS[1:]) * [expected], rel=1e-5)
    assert cross_entropy(linear(x), y).item() < pgd[1] <= expected * (1 + 1e-5)
    assert cross_entropy(linear(x), y).item() < own <= expected * (1 + 1e-5)


def test_a_ladder_says_that_n_fgsm_leaves_the_ball(tmp_path):
    from l2l_at import diagnosis
    from l2l_experiment.run import Run

    folder = tmp_path / "run"
    at.main(["--method", "n-fgsm", "--epochs", "1", "--subset", "256", "--grade", "none", "--run-dir", str(folder)])
    (name,) = diagnosis.diagnose(Run.open(folder, kind="at"))["ladder"].labels["reference"]
    assert name.startswith("n-fgsm (up to ")
    assert 1 < float(name.split()[3]) <= 3  # noise of two radii and a step of one (de Jorge et al., 2022)


def test_a_defence_trained_on_a_gpu_is_diagnosed_without_one(tmp_path, monkeypatch):
    from l2l_at import diagnosis
    from l2l_experiment.run import Run

    folder = tmp_path / "run"
    at.main(["--method", "fgsm-rs", "--epochs", "1", "--subset", "256", "--grade", "none", "--run-dir", str(folder)])
    settings = folder / "config.yaml"
    settings.write_text(settings.read_text().replace("device: auto", "device: cuda"))
    assert "device: cuda" in settings.read_text()
    assert len(diagnosis.diagnose(Run.open(folder, kind="at"))) == 3


def test_folder_that_holds_no_run(tmp_path, diagnose, capsys):
    with pytest.raises(SystemExit) as stopped:
        diagnose(tmp_path)
    assert stopped.value.code == 2
    assert "record.json" in capsys.readouterr().err
