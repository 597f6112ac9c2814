"""Every script and benchmark starts, and the page of results is made from its records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parents[1]
EVERY = sorted([*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")])
COMMANDS = [path for path in EVERY if "__main__" in path.read_text()]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_help(path):
    result = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--help" in result.stdout


@pytest.fixture
def benchmarks(monkeypatch):
    """Benchmarks are scripts; this lets a test import them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_every_listed_imitation_has_settings_that_exist(benchmarks):
    import gail_experiments

    from l2l_gail.config import tuned
    from l2l_gail.training import TrainArgs

    for runs in gail_experiments.experiments().values():
        for name, flags in runs.items():
            env = flags[flags.index("--env") + 1] if "--env" in flags else "HalfCheetah-v4"
            args = tyro.cli(TrainArgs, args=flags, default=TrainArgs(settings=tuned(env)))
            assert args.settings.follower in name


def test_every_listed_defence_has_settings_that_exist(benchmarks):
    import at_experiments

    from l2l_at import methods
    from l2l_at.config import tuned
    from l2l_at.training import TrainArgs

    for tier in ("quick", "standard"):
        listed = at_experiments.experiments(tier)
        for name, flags in [run for runs in listed.values() for run in runs.items()]:
            dataset = flags[flags.index("--dataset") + 1]
            args = tyro.cli(TrainArgs, args=flags, default=TrainArgs(settings=tuned(dataset)))
            assert name.endswith(f"_s{args.settings.seed}")
            assert args.settings.freeze_attacker == ("frozen" in name)
            assert at_experiments.wanted(flags) in ("quick", "standard", "none")
            methods.make(args.settings, 3)  # which refuses settings that would change nothing


def test_page_of_imitation_follows_from_its_records(benchmarks):
    """The tables in docs/results/gail.md are those that the records give: nothing was typed by hand."""
    import gail_report

    page = (ROOT / "docs" / "results" / "gail.md").read_text()
    for path in (ROOT / "docs" / "results" / "gail").glob("*.json"):
        content = json.loads(path.read_text())
        if "runs" in content:
            lines = gail_report.make_table(gail_report.with_related(path.stem, content["runs"]))
        elif "rows" in content:
            lines = gail_report.plain_table(content["rows"])
        else:
            lines = gail_report.throughput_table(content)
        assert "\n".join(lines) in page, path.name
    swept = [path for path in (gail_report.DATA / f"{name}.json" for name in gail_report.SWEPT) if path.is_file()]
    runs = [json.loads(path.read_text())["runs"] for path in swept]
    found = gail_report.sensitivity.collect([run for some in runs for run in some.values()])
    assert "\n".join(gail_report.sensitivity.table(found)) in page
    readme = (ROOT / "README.md").read_text()
    for name, lines in gail_report.readme_tables().items():
        assert "\n".join(lines) in readme, name


def test_page_of_defences_follows_from_its_records(benchmarks):
    """The same for docs/results/at.md."""
    import at_report

    page = (ROOT / "docs" / "results" / "at.md").read_text()
    for path in (ROOT / "docs" / "results" / "at").glob("*.json"):
        content = json.loads(path.read_text())
        runs = content.get("runs")
        runs = at_report.with_related(path.stem, runs) if runs else runs
        lines = at_report.make_table(runs, at_report.read_costs()) if runs else at_report.other_table(content)
        assert "\n".join(lines) in page, path.name
        if setting := at_report.at_sensitivity.SWEPT.get(path.stem):
            cells = at_report.at_sensitivity.collect(runs, setting)
            assert "\n".join(at_report.at_sensitivity.table(cells)) in page, path.name
    for lines in at_report.comparisons(at_report.read_costs()).values():
        assert "\n".join(lines) in page


def test_page_of_the_engine_follows_from_its_game(benchmarks):
    """The same for docs/engine.md."""
    import engine_report

    page, game = (ROOT / "docs" / "engine.md").read_text(), engine_report.QuadraticGame()
    for lines in (engine_report.after_steps(game), engine_report.at_the_answer(game)):
        assert "\n".join(lines) in page


def test_readme_lists_the_methods_that_there_are(benchmarks):
    import at_report
    import readme_report

    readme = (ROOT / "README.md").read_text()
    assert "\n".join(at_report.methods_table()) in readme
    assert "\n".join(readme_report.digits_table(at_report.read_costs())) in readme
    assert "\n".join(readme_report.first_table()) in readme
    for name in at_report.METHODS:
        assert (ROOT / "docs" / at_report.page_of(name)).is_file(), name
    for path in (ROOT / "docs" / "methods").glob("*.md"):
        if path.stem != "awp":
            assert "\n".join(at_report.method_figures(path.stem)) in path.read_text(), path.name


def test_finished_and_recorded_runs_are_not_made_again(benchmarks, tmp_path, monkeypatch):
    import campaign

    from l2l_experiment import sweeps

    made = []
    monkeypatch.setattr(sweeps, "make", lambda job: made.append(job.folder.name) or 0)
    (tmp_path / "out" / "e" / "finished").mkdir(parents=True)
    (tmp_path / "out" / "e" / "finished" / "record.json").write_text('{"status": "finished"}')
    (tmp_path / "e.json").write_text('{"runs": {"recorded": {}}}')
    runs = {"e": {"finished": [], "recorded": [], "new": [], "other": []}}
    campaign.run_all("x.py", runs, out=tmp_path / "out", records=tmp_path, jobs=1, only="e")
    assert made == ["new", "other"]
    campaign.run_all("x.py", runs, out=tmp_path / "out", records=tmp_path, jobs=1, only="recorded", again=True)
    assert made[2:] == ["recorded"]
    monkeypatch.setattr(sweeps, "make", lambda job: 1)
    with pytest.raises(SystemExit, match="not finished"):
        campaign.run_all("x.py", runs, out=tmp_path / "out", records=tmp_path, jobs=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.yaml"], "no file nowhere.yaml"),
        (["bad.yaml"], "must hold `script`"),
        (["gail", "stray"], "stray"),
        (["gail", "--run-dir", "x"], "--run-dir cannot be swept"),
        (["gail", "--folower", "l2l"], "--folower"),
        (["gail", "--disc-rate", "1e-3", "-1"], "--disc-rate must be positive"),
        (["at", "--norm", "l2"], "needs --eps"),
        (["at", "--method", "foo"], "--method must be one of"),
        (["gail", "--seed", "5:2"], "5:2 holds no number"),
    ],
)
def test_a_sweep_refuses_what_makes_no_sense_before_it_trains(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.chdir(tmp_path)
    import sweep

    (tmp_path / "bad.yaml").write_text("script: other\n")
    monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
    with pytest.raises(SystemExit) as stopped:
        sweep.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_sweep_from_a_file_with_flags_over_it(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import sweep

    spec = tmp_path / "mine.yaml"
    spec.write_text("script: gail\ngrid:\n  follower: [adam, l2l]\n  disc-hidden: [[64, 64]]\n  seed: 3:5\n")
    monkeypatch.setattr(sys, "argv", ["sweep.py", str(spec), "--steps=2048", "--mixup", "--dry-run"])
    sweep.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    flags = "--follower adam --disc-hidden 64 64 --seed 3 --steps 2048 --mixup"
    assert lines[0] == f"{Path.cwd()}/runs/mine/adam_s3: {flags}"


def test_a_sweep_does_not_take_other_settings_for_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import sweep

    folder = tmp_path / "s0"
    folder.mkdir()
    settings = sweep.settings_of("gail", ["--env", "Hopper-v4", "--run-dir", str(folder)])
    (folder / "config.yaml").write_text(json.dumps(settings))
    words = ["sweep.py", "gail", "--seed", "0", "--out", str(tmp_path), "--dry-run"]
    monkeypatch.setattr(sys, "argv", [*words, "--env", "Hopper-v4"])
    sweep.main()
    for other in (["--env", "Walker2d-v4"], ["--env", "Hopper-v4", "--steps", "7"]):
        monkeypatch.setattr(sys, "argv", [*words, *other])
        with pytest.raises(SystemExit):
            sweep.main()
        assert "name another --out" in capsys.readouterr().err
