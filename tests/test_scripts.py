"""Every script and benchmark starts."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERY = sorted([*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")])
COMMANDS = [path for path in EVERY if "__main__" in path.read_text()]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help(path):
    result = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--help" in result.stdout
