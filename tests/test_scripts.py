"""Every script and benchmark starts, and the page of results is made from its records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = sorted([*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*_*.py")])


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help(path):
    result = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--help" in result.stdout


def test_every_listed_experiment_has_settings_that_exist():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import gail_experiments
    finally:
        sys.path.pop(0)
    import tyro

    from l2l_gail.config import tuned
    from l2l_gail.training import TrainArgs

    for runs in gail_experiments.experiments().values():
        for name, flags in runs.items():
            env = flags[flags.index("--env") + 1] if "--env" in flags else "HalfCheetah-v4"
            args = tyro.cli(TrainArgs, args=flags, default=TrainArgs(settings=tuned(env)))
            assert args.settings.follower in name


def test_page_of_results_follows_from_its_records(tmp_path):
    """The tables in docs/results/gail.md are those that the records give: nothing was typed by hand."""
    page = (ROOT / "docs" / "results" / "gail.md").read_text()
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import gail_report
    finally:
        sys.path.pop(0)
    for path in (ROOT / "docs" / "results" / "gail").glob("*.json"):
        content = json.loads(path.read_text())
        if "runs" in content:
            lines = gail_report.make_table(content["runs"])
        elif "rows" in content:
            lines = gail_report.plain_table(content["rows"])
        else:
            lines = gail_report.throughput_table(content)
        assert "\n".join(lines) in page, path.name
