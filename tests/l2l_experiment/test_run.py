"""A run's folder: what is recorded, what is refused, and that a record is never half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import filelock
import numpy as np
import pytest
import torch
import yaml

from l2l_experiment import checkpoint, provenance
from l2l_experiment.errors import UserError
from l2l_experiment.files import plain
from l2l_experiment.run import FORMAT, Run, default_folder


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", kind="gail", config={"a": 1})


def test_settings_are_plain_yaml_in_the_order_given(tmp_path):
    config = {"z": Path("expert_data/x"), "a": (2, np.float32(0.5)), "kind": "l2l", "none": None}
    run = Run.create(tmp_path / "r", kind="gail", config=config)
    text = (run.folder / "config.yaml").read_text()
    assert "!!" not in text
    expected = {"z": "expert_data/x", "a": [2, 0.5], "kind": "l2l", "none": None}
    assert list(yaml.safe_load(text).items()) == list(expected.items())
    opened = Run.open(run.folder, kind="gail")
    assert opened.config == run.config == expected
    assert opened.record == run.record
    with pytest.raises(TypeError, match="cannot write a object"):
        Run.create(tmp_path / "never", kind="gail", config={"x": object()})
    assert not (tmp_path / "never").exists()
    with pytest.raises(TypeError, match="key"):
        plain({(1, 2): 3})


def test_a_record_says_where_the_run_comes_from(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "train.py", "--name", "a b"])
    record = Run.create(tmp_path / "r", kind="gail", config={}).record
    assert (record["kind"], record["status"], record["format"]) == ("gail", "running", FORMAT)
    assert record["versions"]["torch"] == torch.__version__
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["cpu"]
    assert record["command"] == "python3 train.py --name 'a b'"
    assert record["started"][:2] == "20"


def test_figures_are_merged_into_the_record(run):
    run.update(status="finished", final=np.float32(2.5), worst=float("nan"), rates={"a": torch.tensor(3)})
    record = json.loads((run.folder / "record.json").read_text(), parse_constant=pytest.fail)
    assert record.items() >= {"status": "finished", "final": 2.5, "worst": None, "rates": {"a": 3}}.items()
    Run.open(run.folder, kind="gail").update(final=3.0)
    assert Run.open(run.folder, kind="gail").record == record | {"final": 3.0}


def test_an_update_that_fails_leaves_the_old_record(run, monkeypatch):
    before = (run.folder / "record.json").read_bytes()

    monkeypatch.setattr(Path, "replace", Mock(side_effect=OSError("killed between writing and renaming")))
    with pytest.raises(OSError, match="killed"):
        run.update(final=1.0)
    assert (run.folder / "record.json").read_bytes() == before
    assert sorted(os.listdir(run.folder)) == ["config.yaml", "record.json"]


def test_what_cannot_be_started_or_opened_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="not empty"):
        Run.create(run.folder, kind="gail", config={})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot start a run"):
        Run.create(tmp_path / "file", kind="gail", config={})
    with pytest.raises(UserError, match="no folder"):
        Run.open(tmp_path / "missing", kind="gail")
    with pytest.raises(UserError, match=r"no record\.json"):
        Run.open(tmp_path, kind="gail")
    with pytest.raises(UserError, match="kind 'gail', but this needs one of kind 'at'"):
        Run.open(run.folder, kind="at")
    run.update(format=1, versions={"l2l": "0.1.0"}, git={"commit": "0123456789abcdef"})
    with pytest.raises(UserError, match=r"made by l2l 0\.1\.0 \(commit 0123456789ab\); only that version"):
        Run.open(run.folder, kind="gail")


DAMAGE = ["a: [1, 2", "!!python/object/apply:os.getcwd []", "[]", ""]


@pytest.mark.parametrize(("name", "content"), [("record.json", '{"kind": "ga'), *(("config.yaml", d) for d in DAMAGE)])
def test_a_damaged_file_is_named(run, name, content):
    (run.folder / name).write_text(content)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        Run.open(run.folder, kind="gail")


def test_a_default_folder_is_new(tmp_path):
    for _ in range(3):
        default_folder(tmp_path, "ns/Env-v4").mkdir()  # fails if it is there
    assert [path.name[:13] for path in tmp_path.iterdir()] == 3 * ["ns_Env-v4_202"]


def test_the_commit_is_that_of_the_checkout_which_tracks_the_code(tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=n", "-c", "user.email=e@example.invalid", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    code, installed = tmp_path / "code.py", tmp_path / "installed.py"
    for file in (code, installed):
        file.write_text("1")
    git("add", "code.py")
    git("commit", "-qm", "first")
    assert provenance.git_state(code) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    code.write_text("2")
    assert provenance.git_state(code)["dirty"] is True
    assert provenance.git_state(installed) is None


def test_one_process_at_a_time_trains_in_a_folder(run):
    other = Run.open(run.folder, kind="gail")

    def train_in_vain():
        with run.locked():
            with pytest.raises(UserError, match="another process"), other.locked():
                pass
            run.update(status="finished", result=1)
            raise KeyError

    with pytest.raises(KeyError) as failed:
        train_in_vain()
    with other.locked():  # although somebody keeps the traceback, and with it the first run
        assert failed.tb is not None
        other.update(steps=7)  # of the record as it is now
    assert Run.open(run.folder, kind="gail").record["result"] == 1


def test_a_lock_that_cannot_be_taken(run, monkeypatch):
    errors = [NotImplementedError("a file system without locks"), PermissionError(13, "Permission denied")]
    monkeypatch.setattr(filelock.FileLock, "acquire", Mock(side_effect=errors))
    with run.locked():
        pass
    with pytest.raises(UserError, match="cannot write into .*: Permission denied"), run.locked():
        pass


def test_only_a_run_that_saved_nothing_starts_over(run):
    """Whatever came to an end, or can be gone on from, must not be written over."""
    assert run.saved_nothing()
    for figures in ({"status": "interrupted"}, {"status": "finished"}, {"status": "diverged"}, {"result": {}}):
        assert not Run(run.folder, run.config, run.record | figures).saved_nothing()
    checkpoint.save(run.folder, {}, 0)
    assert not run.saved_nothing()


def test_what_a_resumed_run_notes(run):
    for step in (10, 20):
        run.update(status="interrupted")
        run.log_resume(step, demos="x")
    record = Run.open(run.folder, kind="gail").record
    assert (record["status"], record["resumed_at"], record["demos"]) == ("running", [10, 20], "x")
    assert [session["step"] for session in record["sessions"]] == [10, 20]
    assert record["sessions"][0]["versions"] == record["versions"]


def test_a_folder_whose_name_is_not_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not UTF-8"):  # TensorBoard could not write there
        Run.create(tmp_path / os.fsdecode(b"a\xff"), kind="gail", config={})


def test_a_folder_that_holds_links_or_pipes_is_refused(tmp_path):
    for name, make in (
        ("policy.zip", lambda path: path.symlink_to(tmp_path / "elsewhere")),
        ("checkpoints", lambda path: path.symlink_to(tmp_path)),
        ("deep/loop", lambda path: path.symlink_to(path)),
        ("metrics.jsonl", os.mkfifo),
    ):
        folder = tmp_path / name.replace("/", "-")
        Run.create(folder, kind="gail", config={})
        (folder / name).parent.mkdir(exist_ok=True)
        make(folder / name)
        with pytest.raises(UserError, match=f"{name} is .*files and folders only"):
            Run.open(folder, kind="gail")


def test_a_run_that_was_killed_between_its_settings_and_its_record_starts_over(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Run.create(tmp_path / "a", kind="gail", config={"seed": 1})
    assert Run.create(tmp_path / "a", kind="gail", config={"seed": 2}).config == {"seed": 2}
    with pytest.raises(UserError, match="not empty"):
        Run.create(tmp_path / "a", kind="gail", config={})
