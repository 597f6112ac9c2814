"""The commands: flags, what they refuse, and what a run's folder keeps of them."""

from pathlib import Path

import pytest

from l2l_at import cli, methods
from l2l_at.session import TrainArgs, stored_args
from l2l_experiment import settings
from l2l_experiment.run import Run


def test_arguments_come_back_from_a_runs_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = cli.parse(
        ["--dataset", "cifar10", "--data-dir", "cifar", "--attacker-sees", "image", "delta", "--seed", "3"]
    )
    assert args.data_dir == tmp_path / "cifar"  # resuming from another folder must find the same images
    assert (args.settings.model, args.settings.eps, args.settings.learning_rate) == ("preactresnet18", "8/255", 0.2)
    run = Run.create(tmp_path / "run", kind="at", config=settings.plain(args))
    assert stored_args(run) == args == stored_args(Run.open(run.folder, kind="at"))
    assert (args.tier, cli.parse([]).tier, cli.parse(["--grade", "none"]).tier) == ("none", "quick", "none")
    assert TrainArgs() == cli.parse([])


def test_list_prints_every_method(capsys):
    cli.main(["--list"])
    printed = capsys.readouterr().out
    assert all(name in printed and str(recipe) in printed for name, recipe in methods.METHODS.items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps", "8"], "grey"),
        (["--method", "pgd11"], "--method must be one of"),
        (["--model", "resnet18"], "does not fit images of 8 × 8"),
        (["--batch-size", "100000"], "--batch-size"),
        (["--holdout", "0"], "--holdout"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        (["--resume", "nowhere"], "nowhere"),
        (["--resume", "nowhere", "--epochs", "3"], "--epochs cannot be given with --resume"),
        (["--dataset", "mnist"], "--dataset"),
        (["--norm", "l2"], "--eps"),
        (["--compile", "--method", "fast-bat"], "--compile"),
        (["--method", "standard", "--label-smoothing", "0.1"], "--label-smoothing"),
        (["--threads", "0"], "--threads"),
        (["--method", "l2l-sdi", "--attacker-sees"], "--attacker-sees"),
        (["--ema", "0.5", "--average", "none"], "without --average ema"),
        (["--data-dir", "."], "--data-dir would change nothing"),
        (["--grade", "none", "--grade-images", "10"], "--grade-images would change nothing"),
        (["--device", "tpu"], "--device"),
    ],
)
def test_bad_input_is_one_sentence(flags, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(flags)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SystemExit):
        cli.main(["--epochs", "1", "--run-dir", str(tmp_path)])
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_grading_refuses_what_it_cannot_grade(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "grade_folder", lambda *_, **__: pytest.fail("it was attacked"))
    run = Run.create(Path(tmp_path) / "run", kind="at", config={})
    with run.locked(), pytest.raises(SystemExit):  # it is training
        cli.grade_main([str(run.folder)])
    assert "another process" in capsys.readouterr().err
    monkeypatch.undo()
    for words, said in (
        ([], "name a finished run"),
        (["--threads", "0"], "--threads"),
        (["--images", "0"], "--images"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.grade_main([str(tmp_path), *words])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
