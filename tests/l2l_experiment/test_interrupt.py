"""Signals ask a run to stop; a command's mistakes end in one line and exit code 2."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import l2l_experiment
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.interrupt import StopRequest

ROOT = Path(l2l_experiment.__file__).parents[1]
PROGRAM = """
import time
from l2l_experiment.interrupt import StopRequest

with StopRequest() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("saved", flush=True)
time.sleep(20)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_a_process_save_and_the_next_one_ends_it(number):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "saved\n"
    time.sleep(0.1)  # it prints before it leaves the block
    process.terminate()
    _, error = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM
    assert error.strip().count("\n") == 0
    assert "save and stop" in error


def test_the_second_ctrl_c_stops_at_once_and_the_handlers_come_back(capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)  # not a second Ctrl-C
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capfd.readouterr().err.count("save and stop") == 1


def test_what_a_launcher_passes_on_again_is_no_second_request(capfd):
    with StopRequest(quiet=True, launched=True) as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert stop.requested
    assert capfd.readouterr().err == ""


def test_outside_the_main_thread_it_does_nothing():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with StopRequest() as stop:
            seen.extend([stop.requested, signal.getsignal(signal.SIGINT)])

    (thread := threading.Thread(target=work)).start()
    thread.join()
    assert seen == [False, before]


def test_a_users_mistake_and_ctrl_c_are_one_line_and_a_bug_keeps_its_traceback(capsys):
    @exit_on_user_error
    def main(error: BaseException | None = None) -> str:
        """Docstring."""
        if error:
            raise error
        return "done"

    assert (main(), main.__doc__) == ("done", "Docstring.")
    told = "there is no such run; name another"
    for error, code, line in (
        (UserError(told), 2, f"error: {told}\n"),
        (KeyboardInterrupt(), 130, "stopped at once; the last checkpoint is kept\n"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(error)
        assert (stopped.value.code, capsys.readouterr().err) == (code, line)
    with pytest.raises(RuntimeError, match="a bug"):
        main(RuntimeError("a bug"))


def test_what_is_at_work_is_saved_although_nobody_reads_any_more(tmp_path):
    """Ctrl-C ends the `tee` behind a command as well: its next line must not keep it from saving."""
    code = """
import sys, pathlib
from tqdm import tqdm
from l2l_experiment.errors import exit_on_user_error

def main():
    for _ in tqdm(sys.stdin, mininterval=0):
        print("a round", file=sys.stderr)
    pathlib.Path(sys.argv[1]).touch()
    print("saved")

exit_on_user_error(main)()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "saved")], **pipes)
    process.stdout.close()
    process.stdin.write(b"\n\n\n")
    process.stdin.close()
    assert process.wait(60) == 0
    assert (tmp_path / "saved").exists()
