"""Signals ask a run to stop; a command's mistakes end in one line and exit code 2."""

import shlex
import signal
import subprocess
import sys
import threading

import pytest

from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.interrupt import StopRequest


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_the_second_ctrl_c_stops_at_once_and_the_handlers_come_back(first, capfd):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(first)
        assert stop.requested
        signal.raise_signal(signal.SIGTERM)  # not a second Ctrl-C
        if first == signal.SIGTERM:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
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


@pytest.mark.parametrize("stream", [">&-", ">/dev/full", "2>&-", "2>/dev/full", ">&- 2>&-", "| head -c 0"])
def test_output_that_cannot_be_written_stops_nothing(stream, tmp_path):
    code = f"""
import sys, tqdm
from l2l_experiment.errors import exit_on_user_error
@exit_on_user_error
def main():
    for number in tqdm.trange(3):
        print("x" * 10_000, flush=True)
    open({str(tmp_path / "done")!r}, "w").close()
main()
"""
    (tmp_path / "program.py").write_text(code)
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(tmp_path / 'program.py'))} {stream}"
    ended = subprocess.run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, timeout=60)
    assert (tmp_path / "done").exists()
    assert b"Traceback" not in ended.stderr
    assert ended.returncode == 0


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_is_a_request_unless_it_is_ignored(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with StopRequest(quiet=True) as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.requested != ignored
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_disk_that_is_full_is_one_sentence(capsys):
    @exit_on_user_error
    def main():
        raise OSError(28, "No space left on device", "metrics.jsonl")

    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.startswith("error: cannot read or write metrics.jsonl: No space left on device")
