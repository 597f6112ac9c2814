"""A run from settings to report: resume bit for bit, alarms, bad input."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from l2l_at import cli, grading, methods, probe
from l2l_at.config import from_dict, tuned
from l2l_at.export import load as load_classifier
from l2l_at.probe import CollapseAlarm
from l2l_at.trainer import Trainer
from l2l_experiment import checkpoint, metrics
from l2l_experiment.errors import UserError

SMALL = ["--epochs", "2", "--subset", "256", "--grade", "none"]


def test_a_run_leaves_everything_behind(tmp_path, capsys):
    folder = tmp_path / "run"
    cli.main([*SMALL, "--run-dir", str(folder)])
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["kind"] == "at"
    assert record["result"]["best"]["pgd10"] >= record["result"]["last"]["pgd10"]
    rows = metrics.read(folder / metrics.METRICS)
    assert {"train/loss", "robust/clean", "robust/pgd10", "follower/strength", "follower/norm"} <= set(rows[-1])
    assert len(events.read_scalars(folder, "robust/pgd10")[0]) == 2
    assert load_classifier(folder)(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    assert json.loads((folder / "best" / "card.json").read_text())["held_out"]["n"] == 144
    assert "tensorboard" in capsys.readouterr().out


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    cli.main([*SMALL, "--run-dir", str(straight)])
    from l2l_at import training

    class StopAfterThree:
        def __init__(self, **_):
            self.looks = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        @property
        def requested(self):
            self.looks += 1
            return self.looks >= 4

    with monkeypatch.context() as patch:
        patch.setattr(training, "StopRequest", StopAfterThree)
        cli.main([*SMALL, "--run-dir", str(broken)])
    assert json.loads((broken / "record.json").read_text())["status"] == "interrupted"
    cli.main(["--resume", str(broken)])
    assert json.loads((broken / "record.json").read_text())["resumed_at"] == [3]
    assert (straight / "last" / "model.safetensors").read_bytes() == (
        broken / "last" / "model.safetensors"
    ).read_bytes()
    one, two = (metrics.read(folder / metrics.METRICS) for folder in (straight, broken))
    for row in (*one, *two):
        assert row.pop(metrics.SECONDS) > 0
    assert repr(one) == repr(two)  # as NaN is not equal to itself


def forget_last_epoch(folder: Path) -> None:
    """As if killed in the last epoch: its checkpoint is not there, but some of its log."""
    shutil.rmtree(max((folder / "checkpoints").iterdir()))
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"status": "running"}))


def test_the_last_checkpoint_of_a_killed_run_is_gone_on_from(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    cli.main([*SMALL, "--run-dir", str(straight)])
    cli.main([*SMALL, "--run-dir", str(killed)])
    forget_last_epoch(killed)
    cli.main(["--resume", str(killed)])
    assert json.loads((killed / "record.json").read_text())["resumed_at"] == [2]
    assert (straight / "last" / "model.safetensors").read_bytes() == (
        killed / "last" / "model.safetensors"
    ).read_bytes()
    assert list(events.read_scalars(killed, "robust/clean")[0]) == [2, 4]


def test_a_run_stopped_before_its_first_checkpoint_starts_over(tmp_path, monkeypatch, capsys):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    cli.main([*SMALL, "--run-dir", str(straight)])

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupt)
        with pytest.raises(SystemExit) as stopped:
            cli.main([*SMALL, "--run-dir", str(broken)])
    assert stopped.value.code == 130
    assert (broken / "best").is_dir()  # of the epoch that is not saved
    cli.main(["--resume", str(broken)])
    assert "starts over" in capsys.readouterr().out
    assert json.loads((broken / "record.json").read_text())["resumed_at"] == [0]
    for name in ("best", "last"):
        weights = [(folder / name / "model.safetensors").read_bytes() for folder in (straight, broken)]
        assert weights[0] == weights[1]
    assert list(events.read_scalars(broken, "robust/clean")[0]) == [2, 4]


def test_the_alarm_is_raised_and_stops(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(CollapseAlarm, "__call__", lambda self, figures: True)
    folder = tmp_path / "run"
    cli.main([*SMALL, "--method", "fgsm-rs", "--stop-on-collapse", "--run-dir", str(folder)])
    assert "ALARM" in capsys.readouterr().err
    record = json.loads((folder / "record.json").read_text())
    assert record["result"]["collapsed_at"] == 1.0
    assert record["steps"] == 2


def test_a_raised_alarm_stands_after_a_resume(tmp_path, monkeypatch):
    collapsing = [(0.8, 0.7), (0.9, 0.3), (0.4, 0.3)]  # the last raises no alarm by itself
    figures = iter([*collapsing, collapsing[-1]])
    fake = lambda *_: dict(zip(("train/fgsm", "train/pgd10"), next(figures), strict=True))  # noqa: E731
    monkeypatch.setattr(probe, "follower_figures", fake)
    folder = tmp_path / "run"
    cli.main(["--epochs", "3", "--subset", "256", "--grade", "none", "--method", "pgd-2", "--run-dir", str(folder)])
    forget_last_epoch(folder)
    cli.main(["--resume", str(folder)])
    assert next(figures, None) is None
    assert list(events.read_scalars(folder, "robust/collapsed")[1]) == [0, 1, 1]


def test_the_best_classifier_so_far_is_kept(tmp_path, monkeypatch):
    found, folder = iter([0.2, 0.6, 0.4]), tmp_path / "run"
    monkeypatch.setattr(probe, "robust_accuracy", lambda *_: {"clean": 0.9, "pgd10": next(found)})
    cli.main([*SMALL, "--method", "fgsm-rs", "--epochs", "3", "--run-dir", str(folder)])
    result = json.loads((folder / "record.json").read_text())["result"]
    assert result["best"] == {"pgd10": 0.6, "clean": 0.9, "epoch": 2.0}
    assert result["last"]["pgd10"] == 0.4
    cards = [json.loads((folder / name / "card.json").read_text()) for name in ("best", "last")]
    assert [card["epoch"] for card in cards] == [2.0, 3.0]
    weights = [(folder / name / "model.safetensors").read_bytes() for name in ("best", "last")]
    assert weights[0] != weights[1]


def test_of_two_as_robust_the_one_with_the_better_clean_accuracy_is_kept(tmp_path, monkeypatch):
    found, folder = iter([(0.9, 0.6), (0.8, 0.6)]), tmp_path / "run"
    monkeypatch.setattr(probe, "robust_accuracy", lambda *_: dict(zip(("clean", "pgd10"), next(found), strict=True)))
    cli.main([*SMALL, "--method", "standard", "--run-dir", str(folder)])
    assert json.loads((folder / "record.json").read_text())["result"]["best"]["epoch"] == 1.0


def test_a_run_is_graded_at_its_end(tmp_path, monkeypatch):
    asked = {}

    def grade(folder, **how):
        asked.update(how, folder=folder)
        return {"n": 7, "tier": how["tier"]}

    monkeypatch.setattr(grading, "grade_folder", grade)
    folder = tmp_path / "run"
    cli.main([*SMALL, "--method", "standard", "--grade", "standard", "--grade-images", "7", "--run-dir", str(folder)])
    assert (asked["folder"], asked["tier"], asked["images"]) == (folder, "standard", 7)
    record = json.loads((folder / "record.json").read_text())
    assert (record["status"], record["result"]["grade"]) == ("finished", {"n": 7, "tier": "standard"})


def test_the_loss_of_an_epoch_is_its_steps_mean(tmp_path, monkeypatch):
    losses = iter([1.0, 4.0, 2.0, 2.5])
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self: step(self) | {"train/loss": next(losses)})
    cli.main([*SMALL, "--method", "standard", "--run-dir", str(tmp_path / "run")])
    assert events.read_scalars(tmp_path / "run", "train/loss")[1].tolist() == [2.5, 2.25]


def test_a_run_that_diverges_says_so(tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        cli.main([*SMALL, "--method", "fgsm-rs", "--learning-rate", "1e30", "--run-dir", str(folder)])
    assert stopped.value.code == 2
    assert "diverged" in capsys.readouterr().err
    assert json.loads((folder / "record.json").read_text())["status"] == "diverged"
    assert not (folder / "best").exists()  # nothing of it is exported or saved
    assert not list(folder.glob("checkpoints/step_*"))


def test_a_finished_run_that_is_resumed_keeps_its_grades(tmp_path, capsys):
    folder = tmp_path / "run"
    cli.main([*SMALL, "--run-dir", str(folder)])
    record = json.loads((folder / "record.json").read_text())
    record["result"]["grade"] = {"n": 360, "tier": "standard"}
    (folder / "record.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    cli.main(["--resume", str(folder)])
    assert "Finished already" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_best_classifier_that_was_lost_is_replaced_by_the_last(tmp_path):
    folder = tmp_path / "run"
    cli.main([*SMALL, "--run-dir", str(folder)])
    shutil.rmtree(folder / "best")
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"status": "interrupted"}))  # as if its grading was cut off
    cli.main(["--resume", str(folder), "--device", "cpu"])
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["result"]["best"]["pgd10"] == record["result"]["last"]["pgd10"]
    assert [session["step"] for session in record["sessions"]] == record["resumed_at"]
    assert record["sessions"][0]["versions"]["torch"] == torch.__version__
    weights = [(folder / name / "model.safetensors").read_bytes() for name in ("best", "last")]
    assert weights[0] == weights[1]


def test_images_are_found_again_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from l2l_at.arguments import TrainArgs, plain_args

    assert plain_args(TrainArgs(tuned("cifar10"), data_dir=Path("cifar")))["data_dir"] == tmp_path / "cifar"


def test_list_prints_every_method(capsys):
    cli.main(["--list"])
    printed = capsys.readouterr().out
    assert all(name in printed and str(recipe) in printed for name, recipe in methods.METHODS.items())


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar100"])
def test_tuned_settings_are_settings(dataset):
    config = tuned(dataset)
    assert config.dataset == dataset
    assert from_dict(json.loads(json.dumps(config.__dict__))) == config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps", "8"], "grey"),
        (["--eps", "eight"], "8/255"),
        (["--method", "pgd11"], "--method must be one of"),
        (["--model", "resnet18"], "does not fit digits"),
        (["--epochs", "0"], "--epochs must be positive"),
        (["--momentum", "1.5"], "--momentum"),
        (["--batch-size", "100000"], "--batch-size"),
        (["--holdout", "0"], "--holdout"),
        (["--attacker-sees", "colour"], "image, gradient, delta"),
        (["--method", "l2l-grad", "--norm", "l2"], "linf"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        (["--resume", "nowhere"], "nowhere"),
        (["--grade-images", "0"], "--grade-images"),
        (["--dataset", "mnist"], "--dataset"),
        (["--seed", "-1"], "--seed"),
        (["--norm", "l2"], "--eps"),
        (["--compile", "--method", "fast-bat"], "--compile"),
        (["--method", "standard", "--label-smoothing", "0.1"], "--label-smoothing"),
        (["--threads", "0"], "--threads"),
        (["--learning-rate", "nan"], "--learning-rate must be a finite number"),
        (["--awp", "inf"], "--awp must be a finite number"),
        (["--seed", "4294967296"], "--seed"),
        (["--awp-from", "0.5"], "without --awp"),
        (["--ema", "0.5", "--average", "none"], "without --average ema"),
        (["--method", "l2l-sdi", "--attacker-sees"], "--attacker-sees"),
        (["--data-dir", "."], "--data-dir would change nothing"),
        (["--grade", "none", "--grade-images", "10"], "--grade-images would change nothing"),
        (["--dataset", "cifar10", "--grade-images", "10"], "--grade-images would change nothing"),
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_device_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--device", "cuda"])
    assert "no CUDA device" in capsys.readouterr().err


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(SystemExit):
        cli.main([*SMALL, "--run-dir", str(tmp_path)])
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    cli.main([*SMALL, "--method", "pgd", "--run-dir", str(folder)])
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("method: pgd", "method: l2l"))
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"status": "interrupted"}))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--resume", str(folder)])
    assert stopped.value.code == 2
    assert "does not fit" in capsys.readouterr().err


def test_grade_refuses_a_folder_without_a_classifier(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.grade_main([str(tmp_path)])
    assert "name a finished run" in capsys.readouterr().err
    for flag in ("--threads", "--images"):
        with pytest.raises(SystemExit) as stopped:
            cli.grade_main([str(tmp_path), flag, "0"])
        assert stopped.value.code == 2
        assert flag in capsys.readouterr().err


def test_unknown_settings_are_refused():
    with pytest.raises(UserError, match="epsilon"):
        from_dict({"epsilon": 1})
