"""Every script and benchmark starts, and the page of results is made from its records."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
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


def test_every_listed_imitation_has_settings_that_exist(benchmarks):
    import gail_experiments

    from l2l_gail.config import tuned
    from l2l_gail.training import TrainArgs

    for runs in gail_experiments.experiments().values():
        for name, flags in runs.items():
            env = flags[flags.index("--env") + 1] if "--env" in flags else "HalfCheetah-v4"
            args = tyro.cli(TrainArgs, args=flags, default=TrainArgs(settings=tuned(env)))
            words = name.split("_")
            learned = [word for word in words if word.startswith("l2l")]
            expected = "adam" if not learned else "l2l-rate" if "l2l-rate" in learned else "l2l"
            assert args.settings.follower == expected
            assert words[-1] == f"s{args.settings.seed}"
            rates = [float(word) for word in words if word[0].isdigit() and "e-" in word]
            assert rates in ([], [args.settings.disc_rate])
            assert words[0] == args.settings.env or words[0][0].islower()
            if penalty := [word.removeprefix("gp") for word in words if word.startswith("gp")]:
                assert [float(number) for number in penalty] == [args.settings.gradient_penalty]
                assert words[words.index(f"gp{penalty[0]}") - 1] == str(args.num_demos)


def test_every_listed_defence_has_settings_that_exist(benchmarks):
    import at_experiments

    from l2l_at import methods
    from l2l_at.arguments import TrainArgs
    from l2l_at.config import tuned

    for tier in ("quick", "standard"):
        listed = at_experiments.experiments(tier)
        for name, flags in [run for runs in listed.values() for run in runs.items()]:
            dataset = flags[flags.index("--dataset") + 1]
            args = tyro.cli(TrainArgs, args=flags, default=TrainArgs(settings=tuned(dataset)))
            assert name.endswith(f"_s{args.settings.seed}")
            assert args.settings.freeze_attacker == ("frozen" in name)
            assert at_experiments.wanted(flags) in ("quick", "standard", "none")
            methods.make(args.settings, 3)  # which refuses settings that would change nothing


def test_every_cost_that_is_measured_is_of_settings_that_exist(benchmarks):
    import at_cost

    from l2l_at import methods
    from l2l_at.config import tuned

    for name in at_cost.Args().methods:
        methods.make(at_cost.variant(tuned("digits"), name), 1)
        methods.make(at_cost.variant(tuned("cifar10"), name, "slim"), 3)
    assert at_cost.variant(tuned("cifar10"), "l2l-grad", "slim").attacker == "slim"


def test_a_cost_is_that_of_the_batch_size_and_of_the_attacker(benchmarks):
    import at_tables

    run = {"dataset": "cifar10", "model": "resnet18", "attacker": "wide", "batch_size": 128}
    costs = at_tables.read_costs()
    at_128, at_512 = (at_tables.cost_of(costs, run | {"batch_size": size}, "l2l") for size in (128, 512))
    assert None not in (at_128, at_512)
    assert at_128 != at_512
    assert at_tables.cost_of(costs, run | {"batch_size": 256}, "l2l") is None
    assert at_tables.cost_of(costs, run, "l2l-grad") is not None
    assert at_tables.cost_of(costs, run | {"attacker": "slim"}, "l2l-grad") is None


def test_operations_of_a_step_are_those_of_its_layers(benchmarks):
    """PGD-10 on a batch: eleven forward passes, ten gradients of the images, one of the weights (twice, but for the
    first layer, whose images need none)."""
    import at_cost

    from l2l_at.config import tuned
    from l2l_at.data import load

    config, task = replace(tuned("digits"), device="cpu", batch_size=32, method="pgd"), load("digits")
    # small-cnn: 2 operations for each weight at each place it is used.
    layers = [2 * 9 * 32 * 64, 2 * 9 * 32 * 64 * 64, 2 * 64 * 16 * 128, 2 * 128 * 10]
    forward = 32 * sum(layers)
    assert at_cost.operations(config, task) == 11 * forward + 10 * forward + 2 * forward - 32 * layers[0]


def sections(page):
    """What stands between the marks of a page, by name: tables alone, without the pictures below them."""
    found = re.findall(r"<!-- begin ([\w-]+) -->\n(.*?)<!-- end \1 -->", page, flags=re.DOTALL)
    assert len(found) == page.count("<!-- begin ")
    return {name: [line for line in text.splitlines() if line and not line.startswith("![")] for name, text in found}


def without_blanks(lines):
    return [line for line in lines if line and not line.startswith("![")]


def test_reliability_from_records_is_that_of_the_comparison(benchmarks):
    """Of one task and three runs: the figures and intervals that `compare.py` gives for the same curves."""
    import gail_reliability

    from l2l_experiment import comparison
    from l2l_experiment.curves import Curve

    draws, steps = np.random.default_rng(0), np.linspace(0, 1e6, 100)
    values = [np.cumsum(draws.normal(1, 3, size=100)) for _ in range(3)]
    curves = [Curve(f"r{i}", "g", "return", steps, some, steps * np.nan) for i, some in enumerate(values)]
    expected = comparison.reliability(curves, comparison.shared_grid(curves))
    found = gail_reliability.reliability([[np.array([steps, some]) for some in values]])
    assert found.keys() - {"worst"} == expected.keys() - {"best", "average", "risk_across_runs"}
    for name, estimate in found.items():
        if name != "worst":
            pairs = zip(estimate, expected[name], strict=True)
            known = [(mine, theirs) for mine, theirs in pairs if theirs is not None]
            assert len(known) == (1 if name == "dispersion_across_runs" else 3)  # whose interval takes five runs
            assert all(mine == pytest.approx(theirs, rel=1e-9) for mine, theirs in known), name
    assert found["worst"].value == min(some[-1] for some in values)
    two = gail_reliability.reliability([[np.array([steps, some]) for some in values]] * 2)
    assert two["final"].value == pytest.approx(np.mean(sorted(some[-1] for some in values * 2)[1:-1]))


def test_records_name_no_folder_of_the_machine_they_were_made_on(benchmarks):
    import diagnosis

    made = "/opt/env/bin/python /home/me/l2l/scripts/train_at.py --eps 0.2 --run-dir /home/me/runs/a --seed 0"
    assert diagnosis.anywhere(made).split()[1:] == ["scripts/train_at.py", "--eps", "0.2", "--seed", "0"]
    for path in (ROOT / "docs" / "results").rglob("*.json"):
        assert not re.search(r"[\" ]/(root|home|work|tmp|opt|Users)/", path.read_text()), path


def test_what_was_not_run_is_counted_by_setting(benchmarks, tmp_path):
    import campaign

    listed = {"a": {"adam_s0": [], "adam_s1": [], "l2l_s0": []}, "b": {"x_s0": []}}
    (tmp_path / "a.json").write_text('{"runs": {"adam_s1": {}, "another": {}}}')
    (tmp_path / "b.json").write_text('{"runs": {"x_s0": {}}}')
    assert campaign.coverage(listed, tmp_path)[2:] == ["| `a` | 1 | 3 | adam (1), l2l (1) |"]
    many = {"c": {f"rate-{number}_s0": [] for number in range(12)}}
    (line,) = campaign.coverage(many, tmp_path)[2:]
    assert line.startswith("| `c` | 0 | 12 | rate-0 (1), ")
    assert line.endswith(", and 4 more settings |")


def test_page_of_imitation_follows_from_its_records(benchmarks):
    """The tables in docs/results/gail.md are those that the records give: nothing was typed by hand."""
    import gail_report

    page = sections((ROOT / "docs" / "results" / "gail.md").read_text())
    expected = {}
    for path in (ROOT / "docs" / "results" / "gail").glob("*.json"):
        content = json.loads(path.read_text())
        if "runs" in content:
            lines = gail_report.make_table(gail_report.with_related(path.stem, content["runs"]))
        elif "rows" in content:
            lines = gail_report.plain_table(content["rows"])
        elif "drawings" in content:
            lines = []  # pictures alone
        elif "slopes" in content:
            lines = gail_report.gail_slopes.table(content, gail_report.ended)
        else:
            lines = gail_report.throughput_table(content)
        expected[path.stem] = without_blanks(lines)
    expected["paired"] = without_blanks(gail_report.paired_table())
    expected["reliability"] = without_blanks(gail_report.gail_reliability.table())
    expected["coverage"] = gail_report.coverage(gail_report.experiments(), gail_report.DATA)
    found = gail_report.sensitivity.collect(gail_report.swept())
    expected["merit"] = without_blanks(gail_report.sensitivity.table(found))
    assert page == {name: expected.get(name, []) for name in page}
    assert set(expected) - set(page) <= {"sensitivity"}  # its runs are rows of `merit`


def test_page_of_defences_follows_from_its_records(benchmarks):
    """The same for docs/results/at.md."""
    import at_report

    page, expected = sections((ROOT / "docs" / "results" / "at.md").read_text()), {}
    for path in (ROOT / "docs" / "results" / "at").glob("*.json"):
        content = json.loads(path.read_text())
        runs = content.get("runs")
        runs = at_report.with_related(path.stem, runs) if runs else runs
        if "drawings" in content:
            lines = []  # pictures alone
        else:
            lines = at_report.make_table(runs, at_report.read_costs()) if runs else at_report.other_table(content)
        expected[path.stem] = without_blanks(lines)
        if setting := at_report.at_sensitivity.SWEPT.get(path.stem):
            cells = at_report.at_sensitivity.collect(runs, setting)
            expected[f"{path.stem}-merit"] = without_blanks(at_report.at_sensitivity.table(cells))
    for name, lines in at_report.comparisons(at_report.read_costs()).items():
        expected[name] = without_blanks(lines)
    expected["ablation-flags"] = at_report.ablation_flags()
    expected["coverage"] = at_report.coverage(at_report.experiments(), at_report.DATA)
    assert page == {name: expected.get(name, []) for name in page}
    assert set(expected) == set(page) & set(expected)


def test_page_of_the_engine_follows_from_its_game(benchmarks):
    """The same for docs/engine.md."""
    import engine_report

    page, game = sections((ROOT / "docs" / "engine.md").read_text()), engine_report.QuadraticGame()
    tables = (engine_report.after_steps(game), engine_report.at_the_answer(game))
    assert sorted(page.values()) == sorted(without_blanks(lines) for lines in tables)


def test_readme_lists_the_methods_that_there_are(benchmarks):
    import at_report
    import readme_report

    tables = readme_report.tables()
    readme = sections((ROOT / "README.md").read_text())
    assert readme == {name: without_blanks(tables[name]) for name in readme}
    assert set(tables) == set(readme)
    for name in at_report.METHODS:
        assert (ROOT / "docs" / at_report.page_of(name)).is_file(), name
    for path in (ROOT / "docs" / "methods").glob("*.md"):
        figures = {"figures": without_blanks(at_report.method_figures(path.stem))}
        assert sections(path.read_text()) == figures, path.name


def test_finished_and_recorded_runs_are_not_made_again(benchmarks, tmp_path, monkeypatch):
    import campaign

    from l2l_experiment import sweeps

    made = []
    monkeypatch.setattr(sweeps, "make", lambda job, stop_file: made.append(job.folder.name) or 0)
    (tmp_path / "out" / "e" / "finished").mkdir(parents=True)
    (tmp_path / "out" / "e" / "finished" / "record.json").write_text('{"status": "finished"}')
    (tmp_path / "e.json").write_text('{"runs": {"recorded": {}}}')
    runs = {"e": {"finished": [], "recorded": [], "new": [], "other": []}}
    campaign.run_all("x.py", runs, out=tmp_path / "out", records=tmp_path, jobs=1, only="e")
    assert made == ["new", "other"]
    campaign.run_all("x.py", runs, out=tmp_path / "out", records=tmp_path, jobs=1, only="recorded", again=True)
    assert made[2:] == ["recorded"]
    monkeypatch.setattr(sweeps, "make", lambda job, stop_file: 1)
    with pytest.raises(SystemExit, match="not finished"):
        campaign.run_all("x.py", runs, out=tmp_path / "out", records=tmp_path, jobs=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.yaml"], "no file nowhere.yaml"),
        (["bad.yaml"], "must hold `script`"),
        (["gail", "stray"], "stray"),
        (["gail", "--run-dir", "x"], "--run-dir cannot be swept"),
        (["gail", "--run_dir", "x"], "--run-dir cannot be swept"),
        (["list.yaml"], "must hold `script`"),
        (["broken.yaml"], "mend it"),
        (["empty.yaml"], "Missing value for argument '--seed'"),
        (["gail", "--address", "here:6379"], "--backend ray"),
        (["gail", "--out", "bad.yaml/deep"], "cannot make the folder"),
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
    (tmp_path / "list.yaml").write_text("script: [gail]\ngrid: {seed: 0}\n")
    (tmp_path / "broken.yaml").write_text("script: gail\ngrid: [\n")
    (tmp_path / "empty.yaml").write_text("script: gail\ngrid:\n  seed:\n")
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
    spec.write_text(
        "script: gail\ngrid:\n  follower: [adam, l2l]\n  disc_hidden: [[64, 64]]\n  disc_rate: [1, 2]\n  seed: 3:5\n"
    )
    monkeypatch.setattr(
        sys, "argv", ["sweep.py", str(spec), "--disc-rate", "3e-4", "--steps=2048", "--mixup", "--dry-run"]
    )
    sweep.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    flags = "--follower adam --disc-hidden 64 64 --disc-rate 3e-4 --seed 3 --steps 2048 --mixup"
    assert lines[0] == f"{Path.cwd()}/runs/mine/adam_s3: {flags}"


def test_true_and_false_in_a_sweep_are_spelled_as_the_parser_has_them(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import sweep

    spec = tmp_path / "mine.yaml"
    spec.write_text("script: gail\ngrid:\n  l2l:\n  follower_anchored: [true, False]\n  mixup: [True, false]\n")
    monkeypatch.setattr(sys, "argv", ["sweep.py", str(spec), "--dry-run"])
    sweep.main()
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == [
        f"--l2l --follower-anchored {anchored} {mixup}"
        for anchored in ("True", "False")
        for mixup in ("--mixup", "--no-mixup")
    ]


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
