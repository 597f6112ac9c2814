"""A run from its arguments to its report: resume bit for bit, what is kept, alarms, divergence."""

import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from l2l_at import cli, grading, probe, report
from l2l_at.alarms import CollapseAlarm
from l2l_at.config import ATConfig
from l2l_at.export import load as load_classifier
from l2l_at.trainer import Trainer
from l2l_experiment import checkpoint, metrics

SMALL = ["--epochs", "2", "--subset", "256", "--grade", "none"]


def train(folder, *flags):
    cli.main([*SMALL, *flags, "--run-dir", str(folder)])
    return folder


def record(folder):
    return json.loads((folder / "record.json").read_text())


def log(folder):
    """The rows of the log without times, as text: NaN is not equal to itself."""
    rows = metrics.read(folder / metrics.METRICS)
    assert all(row.pop(metrics.SECONDS) > 0 for row in rows)
    return repr(rows)


def curve(folder, tag):
    return [row[tag] for row in metrics.read(folder / metrics.METRICS)]


def weights(folder, name):
    return (folder / name / "model.safetensors").read_bytes()


def forget_last_epoch(folder: Path) -> None:
    """As if killed in the last epoch: its checkpoint is not there, but some of its log."""
    shutil.rmtree(max((folder / "checkpoints").iterdir()))
    (folder / "record.json").write_text(json.dumps(record(folder) | {"status": "running"}))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of the learned attacker that nothing cut off."""
    return train(tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture
def copied(straight, tmp_path):
    """The same run, to be changed."""
    return Path(shutil.copytree(straight, tmp_path / "copied"))


def test_a_run_leaves_everything_behind(straight):
    assert (record(straight)["status"], record(straight)["kind"]) == ("finished", "at")
    result = record(straight)["result"]
    assert result["best"]["pgd10"] >= result["last"]["pgd10"]
    rows = metrics.read(straight / metrics.METRICS)
    assert {
        "train_classifier/loss",
        "robust/clean",
        "robust/pgd10",
        "train_attacker/strength",
        "train_attacker/norm",
    } <= set(rows[-1])
    assert [row["step"] for row in rows] == [2, 4]
    assert load_classifier(straight)(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    card = json.loads((straight / "best" / "card.json").read_text())
    assert (card["held_out"]["n"], card["data"], card["dataset"]) == (144, "scikit-learn's digits", "digits")


def test_an_interrupted_run_ends_as_an_uninterrupted_one(straight, tmp_path, monkeypatch):
    step = Trainer.step

    def interrupted(trainer):
        if trainer.step_count == 2:
            signal.raise_signal(signal.SIGINT)
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        broken = train(tmp_path / "broken")
    assert record(broken)["status"] == "interrupted"
    cli.main(["--resume", str(broken)])
    assert record(broken)["resumed_at"] == [3]
    assert weights(straight, "last") == weights(broken, "last")
    assert log(straight) == log(broken)


def test_the_last_checkpoint_of_a_killed_run_is_gone_on_from(straight, copied):
    forget_last_epoch(copied)
    cli.main(["--resume", str(copied)])
    assert record(copied)["resumed_at"] == [2]
    assert weights(straight, "last") == weights(copied, "last")
    assert log(straight) == log(copied)
    board = EventAccumulator(str(copied)).Reload()  # which sees no step twice
    assert [event.step for event in board.Scalars("robust/clean")] == [2, 4]


@pytest.mark.slow
def test_a_run_stopped_before_its_first_checkpoint_starts_over(straight, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(SystemExit) as stopped:
            train(broken)
    assert stopped.value.code == 130
    assert (broken / "best").is_dir()  # of the epoch that is not saved
    cli.main(["--resume", str(broken)])
    assert "starts over" in capsys.readouterr().out
    assert record(broken)["resumed_at"] == [0]
    for name in ("best", "last"):
        assert weights(straight, name) == weights(broken, name)
    assert log(straight) == log(broken)


def test_the_alarm_is_raised_and_stops(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(CollapseAlarm, "__call__", lambda self, figures: True)
    folder = train(tmp_path / "run", "--method", "fgsm-rs", "--stop-on-collapse")
    assert "ALARM" in capsys.readouterr().err
    assert record(folder)["result"]["collapsed_at"] == 1.0
    assert record(folder)["steps"] == 2


def test_a_raised_alarm_stands_after_a_resume(tmp_path, monkeypatch):
    collapsing = [(0.8, 0.7), (0.9, 0.3), (0.4, 0.3)]  # the last raises no alarm by itself
    figures = iter([*collapsing, collapsing[-1]])
    fake = lambda *_: dict(zip(("robust/train_fgsm", "robust/train_pgd10"), next(figures), strict=True))  # noqa: E731
    monkeypatch.setattr(probe, "attack_metrics", fake)
    folder = train(tmp_path / "run", "--epochs", "3", "--method", "pgd-2")
    forget_last_epoch(folder)
    cli.main(["--resume", str(folder)])
    assert next(figures, None) is None
    assert curve(folder, "robust/collapsed") == [0, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "best"), [([(0.9, 0.2), (0.9, 0.6), (0.9, 0.4)], 2), ([(0.9, 0.6), (0.8, 0.6), (0.9, 0.5)], 1)]
)
def test_the_most_robust_classifier_is_kept_and_of_equal_ones_the_more_accurate(found, best, tmp_path, monkeypatch):
    rows = iter(found)
    monkeypatch.setattr(probe, "robust_accuracy", lambda *_: dict(zip(("clean", "pgd10"), next(rows), strict=True)))
    folder = train(tmp_path / "run", "--method", "standard", "--epochs", "3")
    result = record(folder)["result"]
    assert result["best"] == {"clean": found[best - 1][0], "pgd10": found[best - 1][1], "epoch": best}
    assert result["last"]["pgd10"] == found[-1][1]
    cards = [json.loads((folder / name / "card.json").read_text()) for name in ("best", "last")]
    assert [card["epoch"] for card in cards] == [best, 3.0]
    assert weights(folder, "best") != weights(folder, "last")


def test_a_run_is_graded_at_its_end(tmp_path, monkeypatch):
    graded = {"n": 7, "tier": "standard", "clean": 0.9, "attacks": {"apgd-ce": 0.5}, "autoattack": 0.4, "robust": 0.3}
    grade = Mock(return_value=graded)
    monkeypatch.setattr(grading, "grade_folder", grade)
    folder = train(tmp_path / "run", "--method", "standard", "--grade", "standard", "--grade-images", "7")
    assert grade.call_args.args == (folder,)
    assert grade.call_args.kwargs.items() >= {"tier": "standard", "images": 7}.items()
    assert (record(folder)["status"], record(folder)["result"]["grade"]) == ("finished", graded)
    last, shown = metrics.read(folder / metrics.METRICS)[-1], EventAccumulator(str(folder)).Reload()
    for name, value in {"clean": 0.9, "apgd-ce": 0.5, "autoattack": 0.4, "robust": 0.3}.items():
        assert last[f"grade/{name}"] == value
        assert [event.step for event in shown.Scalars(f"grade/{name}")] == [last["step"]]


def test_ctrl_c_while_it_is_graded_keeps_the_trained_run(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(grading, "grade_folder", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(SystemExit, match="130"):
            train(tmp_path / "run", "--method", "standard", "--grade", "standard")
    assert f"Grade it with: l2l-train-at --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert record(tmp_path / "run")["status"] == "interrupted"
    graded = {"n": 7, "tier": "standard", "clean": 0.9, "attacks": {}, "autoattack": 0.4, "robust": 0.3}
    monkeypatch.setattr(grading, "grade_folder", Mock(return_value=graded))
    cli.main(["--resume", str(tmp_path / "run")])
    edited = tmp_path / "run" / "record.json"  # as a kill leaves it that comes just before the run is finished
    edited.write_text(edited.read_text().replace('"finished"', '"running"'))
    cli.main(["--resume", str(tmp_path / "run")])
    assert record(tmp_path / "run")["status"] == "finished"
    assert len(EventAccumulator(str(tmp_path / "run")).Reload().Scalars("grade/autoattack")) == 1


@pytest.mark.parametrize(
    ("part", "flags", "kept"), [("", ["--eps", "0.2"], True), ("best", [], True), ("", ["--eps", "0.1"], False)]
)
def test_a_grade_of_the_trained_threat_joins_the_record(tmp_path, monkeypatch, part, flags, kept):
    folder = train(tmp_path / "run", "--method", "standard", "--grade", "none", "--eps", "0.2")
    radius = float(flags[1]) if flags else 0.2
    graded = {"n": 7, "tier": "quick", "norm": "linf", "radius": radius, "robust": 0.3}
    monkeypatch.setattr(cli, "grade_folder", Mock(return_value=graded))
    cli.grade_main([str(folder / part), *flags])
    assert (record(folder)["result"].get("grade") == graded) == kept


def test_the_command_that_continues_a_run_names_the_program_that_knows_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["my train.py", "--dataset", "stripes"])
    assert report.resume_command(ATConfig(), "runs/a b") == "l2l-train-at --resume 'runs/a b'"
    for dataset, method in (("stripes", "l2l"), ("digits", "corners")):
        own = SimpleNamespace(dataset=dataset, method=method)
        assert report.resume_command(own, "runs/a") == "python 'my train.py' --resume runs/a"


def test_the_loss_of_an_epoch_is_its_steps_mean(tmp_path, monkeypatch):
    losses, step = iter([1.0, 4.0, 2.0, 2.5]), Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self: step(self) | {"train_classifier/loss": next(losses)})
    assert curve(train(tmp_path / "run", "--method", "standard"), "train_classifier/loss") == [2.5, 2.25]


def test_a_run_that_diverges_says_so(tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        train(folder, "--method", "fgsm-rs", "--learning-rate", "1e30")
    assert stopped.value.code == 2
    assert "diverged" in capsys.readouterr().err
    assert record(folder)["status"] == "diverged"
    assert not (folder / "best").exists()  # nothing of it is exported or saved
    assert not list(folder.glob("checkpoints/step_*"))


def test_a_finished_run_that_is_resumed_keeps_its_grades(copied, capsys):
    kept = record(copied)
    kept["result"]["grade"] = {"n": 360, "tier": "standard"}
    (copied / "record.json").write_text(json.dumps(kept))
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    capsys.readouterr()
    cli.main(["--resume", str(copied)])
    assert "Finished already" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}


def test_a_best_classifier_that_was_lost_is_replaced_by_the_last(copied):
    shutil.rmtree(copied / "best")
    (copied / "record.json").write_text(json.dumps(record(copied) | {"status": "interrupted"}))
    cli.main(["--resume", str(copied), "--device", "cpu"])
    assert record(copied)["status"] == "finished"
    assert record(copied)["result"]["best"]["pgd10"] == record(copied)["result"]["last"]["pgd10"]
    assert weights(copied, "best") == weights(copied, "last")


def test_a_checkpoint_of_other_settings_is_refused(copied, capsys):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("method: l2l", "method: pgd-2"))
    (copied / "record.json").write_text(json.dumps(record(copied) | {"status": "interrupted"}))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--resume", str(copied)])
    assert stopped.value.code == 2
    assert "made with other settings (method 'l2l', not 'pgd-2')" in capsys.readouterr().err


def attacker(folder):
    return checkpoint.latest(folder)["trainer"]["follower"]["learner"]["rule"]


@pytest.mark.slow
def test_an_attacker_of_another_run_is_taken_over_and_may_stay_as_it_is(straight, tmp_path, capsys):
    flags = ("--attacker-from", str(straight), "--eps", "0.2", "--seed", "1")
    theirs = attacker(straight)
    frozen = attacker(train(tmp_path / "frozen", *flags, "--freeze-attacker"))
    assert all(torch.equal(theirs[name], frozen[name]) for name in theirs)
    learned = attacker(train(tmp_path / "learned", *flags))
    assert not any(torch.equal(theirs[name], learned[name]) for name in theirs if "weight" in name)
    refused = [
        (("--method", "pgd"), "its --method is another"),
        (("--attacker-width", "8"), "has no attacker of this shape"),
        (("--attacker-sees", "delta", "gradient", "image"), "its --attacker-sees is another"),
        (("--method", "l2l-trades"), "its --method is another"),
    ]
    for more, told in refused:
        with pytest.raises(SystemExit) as exit_:
            train(tmp_path / "refused", *flags, *more)
        assert exit_.value.code == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
