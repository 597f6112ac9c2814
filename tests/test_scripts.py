"""Every script and benchmark starts."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERY = sorted([*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")])
COMMANDS = [path for path in EVERY if "__main__" in path.read_text()]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name="__main__")
    assert not stopped.value.code
    assert "--help" in capsys.readouterr().out


@pytest.mark.slow
def test_a_script_starts_in_a_process_of_its_own():
    script = ROOT / "scripts" / "train_gail.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout
