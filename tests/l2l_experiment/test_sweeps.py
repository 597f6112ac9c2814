"""Making runs, with a script in the place of a training: what is skipped, resumed and reported, Ctrl-C."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from concurrent import futures

import pytest

from l2l_experiment import sweeps
from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_experiment.sweeps import Job

# Writes what it was given into its folder. With --slow it saves when it is asked to stop, and does not finish.
FAKE = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
flag = "--resume" if "--resume" in words else "--run-dir"
folder = pathlib.Path(words[words.index(flag) + 1])
folder.mkdir(exist_ok=True, parents=True)
print(" 50%|#####     |", flush=True)
if "--fail" in words:
    sys.exit(3)
def end(status):
    node = os.environ.get("RAY_RAYLET_PID")
    (folder / "record.json").write_text(json.dumps({"status": status, "words": words, "node": node}))
    sys.exit(0 if status == "finished" else 130)
if "--second" in words:
    time.sleep(1)
if "--slow" in words:
    (folder / "checkpoints" / "step_1").mkdir(parents=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (time.sleep(0.3), end("interrupted")))
    (folder / "ready").touch()
    time.sleep(60)
end("finished")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return str(path)


def test_finished_is_skipped_cut_off_is_resumed_and_failures_are_named(script, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "done").mkdir(parents=True)
    (out / "done" / "record.json").write_text('{"status": "finished"}')
    (out / "interrupted" / "checkpoints" / "step_5").mkdir(parents=True)
    (out / "early").mkdir()  # killed before its first checkpoint
    (out / "early" / "record.json").write_text('{"sta')
    flags = {"done": (), "interrupted": (), "early": ("--a", "1"), "failing": ("--fail",), "fresh": ()}
    jobs = [Job(script, out / name, words) for name, words in flags.items()]
    failed = sweeps.run(jobs, workers=2)
    assert [job.folder.name for job in failed] == ["failing"]
    assert "exit code 3" in capsys.readouterr().out
    words = {
        name: json.loads((out / name / "record.json").read_text()).get("words") for name in flags if name != "failing"
    }
    assert words["done"] is None
    assert words["interrupted"] == ["--resume", str(out / "interrupted")]
    assert words["early"] == ["--a", "1", "--run-dir", str(out / "early")]
    assert len(list(out.glob(".early.cut-off-*"))) == 1
    assert (out / "fresh.log").read_text().startswith(" 50%|")
    assert [job.folder.name for job in sweeps.run(jobs[:-2], workers=2)] == []


def test_a_run_that_ends_well_but_is_not_finished_counts_as_failed(tmp_path):
    path = tmp_path / "nothing.py"
    path.write_text("")
    assert sweeps.run([Job(str(path), tmp_path / "a", ())], workers=1) != []


def test_a_tool_is_run_as_a_module(tmp_path, monkeypatch):
    monkeypatch.setitem(sweeps.TOOLS, "gail", "no_such_package")
    assert sweeps.make(Job("gail", tmp_path / "a", ()), tmp_path / ".stop") == 1
    assert "no_such_package" in sweeps.log_of(tmp_path / "a").read_text()


def test_no_runs_side_by_side_are_refused():
    with pytest.raises(UserError, match="0 runs"):
        sweeps.run([], workers=0)


def test_a_run_that_another_process_trains_is_waited_for(script, tmp_path):
    folder = tmp_path / "a"
    Run.create(folder, kind="gail", config={})
    with futures.ThreadPoolExecutor() as pool:
        with Run.open(folder, kind="gail").locked():
            waiting = pool.submit(sweeps.make, Job(script, folder, ()), tmp_path / ".stop")
            while not (log := sweeps.log_of(folder)).exists() or "waiting for it" not in log.read_text():
                time.sleep(0.05)
            assert not waiting.done()
            assert folder.is_dir()  # what the other one is at work on is not moved away
        assert waiting.result(60) == 0


def test_runs_start_where_signals_cannot_be_blocked(script, tmp_path, monkeypatch):
    """As on Windows, which has process groups in place of sessions."""
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0, raising=False)
    assert sweeps.make(Job(script, tmp_path / "a", ()), tmp_path / ".stop") == 0


def test_two_sweeps_of_one_folder_make_each_run_once(script, tmp_path):
    job = Job(script, tmp_path / "a", ("--second",))
    with futures.ThreadPoolExecutor() as pool:
        both = [pool.submit(sweeps.make, job, tmp_path / ".stop") for _ in range(2)]
        assert [one.result(60) for one in both] == [0, 0]
    assert sweeps.log_of(job.folder).read_text().count("50%|") == 1


def test_a_run_that_another_sweep_has_finished_meanwhile_is_left_alone(script, tmp_path):
    job = Job(script, tmp_path / "a", ())
    assert sweeps.run([job], workers=1) == []
    before = (tmp_path / "a" / "record.json").read_bytes()
    written = sweeps.log_of(job.folder).read_bytes()
    assert sweeps.make(job, tmp_path / ".stop") == 0
    assert (tmp_path / "a" / "record.json").read_bytes() == before
    assert sweeps.log_of(job.folder).read_bytes() == written


HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="needs Ray: the extra [ray]")


def until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def slow_sweep(script, out, names="ab", prefix="", backend="local"):
    """A sweep of slow runs, two at a time, in a process of its own; two of them have begun."""
    code = f"""
from concurrent import futures
from pathlib import Path
from l2l_experiment import sweeps
from l2l_experiment.errors import exit_on_user_error
{prefix}
jobs = [sweeps.Job({script!r}, Path({str(out)!r}) / name, ("--slow",)) for name in {names!r}]
exit_on_user_error(sweeps.run)(jobs, workers=2, backend={backend!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    until(lambda: all((out / name / "ready").exists() for name in "ab"))
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])])
def test_a_signal_lets_every_run_save(script, tmp_path, number, backend):
    process = slow_sweep(script, tmp_path, "abc", backend=backend)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert [sweeps.status(tmp_path / name) for name in "abc"] == ["interrupted", "interrupted", "none"]


@pytest.mark.slow
def test_a_second_interrupt_leaves_no_run_behind_where_the_kernel_does_not_help(script, tmp_path):
    process = slow_sweep(script, tmp_path, prefix="sweeps._die_with_parent = lambda: ()")
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    until(lambda: all(sweeps.status(tmp_path / name) == "interrupted" for name in "ab"), seconds=10)


@pytest.mark.slow
def test_stopping_a_sweep_stops_no_other_in_the_same_folder(script, tmp_path):
    process = slow_sweep(script, tmp_path)
    process.send_signal(signal.SIGINT)
    until(lambda: list(tmp_path.glob(".stop*")))
    assert sweeps.run([Job(script, tmp_path / "other", ())], workers=1) == []
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list(tmp_path.glob(".stop*")) == []


def test_a_guard_that_does_not_know_its_words_is_left_out(tmp_path, monkeypatch):
    old = tmp_path / "setpriv"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sweeps._die_with_parent.cache_clear()
    assert sweeps._die_with_parent() == ()
    old.unlink()
    sweeps._die_with_parent.cache_clear()
    assert sweeps._die_with_parent() == ()
    sweeps._die_with_parent.cache_clear()


def test_share_is_the_last_bar_of_the_log(tmp_path):
    log = tmp_path / "a.log"
    assert sweeps._progress_fraction(log) == 0
    log.write_text("  3%|   | 12%|#  |")
    assert sweeps._progress_fraction(log) == 0.12


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_ray_that_is_not_there_is_one_sentence(tmp_path, script):
    with pytest.raises(UserError, match="needs Ray"):
        sweeps.run([Job(script, tmp_path / "a", ())], backend="ray")


@needs_ray
def test_ray_makes_the_same_runs(tmp_path, script):
    jobs = [Job(script, tmp_path / name, flags) for name, flags in {"a": (), "b": ("--fail",)}.items()]
    assert [job.folder.name for job in sweeps.run(jobs, backend="ray")] == ["b"]
    assert sweeps.status(tmp_path / "a") == "finished"


@pytest.mark.slow
@needs_ray
def test_ray_makes_runs_on_two_nodes(tmp_path, script):
    """Two nodes of one core on this machine, each a raylet of its own, as `ray start` twice would make."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        jobs = [Job(script, tmp_path / f"r{index}", ("--second",)) for index in range(6)]
        assert sweeps.run(jobs, workers=3, backend="ray", address=cluster.address) == []  # one more than cores
    finally:
        cluster.shutdown()
    nodes = {json.loads((job.folder / "record.json").read_text())["node"] for job in jobs}
    assert len(nodes) == 2
