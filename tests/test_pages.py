"""Records are complete, experiments parse, and the pages are what their records give."""

import itertools
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from l2l_experiment import sweep_files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
RECORDS = sorted(RESULTS.glob("*/*.json"))
KEYS = {"settings", "versions", "machine", "commit", "result", "curves"}


def runs_of(path):
    return json.loads(path.read_text()).get("runs", {})


@pytest.mark.slow
def test_pages_are_what_the_records_give():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "pages.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [path for path in RECORDS if runs_of(path)], ids=lambda path: path.stem)
def test_every_record_is_complete(path):
    known = set(sweep_files.settings_of(path.parent.name, []))
    whole = "note" not in json.loads(path.read_text())
    for name, run in runs_of(path).items():
        assert run.keys() - {"sessions"} == KEYS, name
        assert run["settings"].keys() <= known, name
        assert not whole or {"seed", "device", "threads"} <= run["settings"].keys(), name
        assert all(len(steps) == len(values) for steps, values in run["curves"].values()), name


def test_records_name_no_folder_of_the_machine_they_were_made_on():
    for path in RESULTS.rglob("*.json"):
        assert not re.search(r"[\" ]/(root|home|work|tmp|opt|Users)/", path.read_text()), path


def test_the_repository_keeps_few_pictures():
    assert len(list(RESULTS.glob("**/*.png"))) <= 12
    assert list(RESULTS.glob("**/*.svg")) == []


@pytest.mark.slow
@pytest.mark.parametrize("script", ["gail", "at"])
def test_experiments_parse(script):
    """Of each block a run for every word that it holds, seeds aside."""
    found, experiments = sweep_files.read(str(ROOT / "benchmarks" / f"{script}.yml"), ["--seed", "0"])
    assert found == script
    for block in itertools.chain(*experiments.values()):
        seen = set()
        for name, flags in sweep_files.expand([block], sweep_files.boolean_flags(script)).items():
            if not seen.issuperset(flags):
                assert sweep_files.settings_of(script, flags)["seed"] == 0, name
            seen.update(flags)


@pytest.fixture
def made_up(benchmarks, monkeypatch, tmp_path):
    """Six runs of two followers."""
    import records

    def run(who, seed, value):
        settings = {"follower": who, "disc_learning_rate": 3e-5, "seed": seed}
        return {"settings": settings, "result": {"percent_of_expert": value}, "curves": {"x/y": [[1, 9], [0.5, value]]}}

    scores = {"adam": (1.0, 2.0, 3.0), "l2l": (4.0, 4.0, 7.0)}
    runs = {f"{who}_s{i}": run(who, i, value) for who, values in scores.items() for i, value in enumerate(values)}
    (tmp_path / "gail").mkdir()
    (tmp_path / "gail" / "tiny.json").write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    records.load.cache_clear()
    yield
    records.load.cache_clear()


def test_a_table_is_a_query(made_up):
    import pages

    spec = {
        "from": ["gail/tiny"],
        "head": "who",
        "minus": {"follower": "adam"},
        "each": ["follower"],
        "title": "{follower}",
        "columns": [
            {"n": "{n}", "%": "{percent.spread:.1f}", "late": "{late.mean:.0f}", "L2L − Adam": "{percent.gaps:+.1f}"},
            {"over": {"disc_learning_rate": [3e-5, 3e-4]}, "cells": {"at {}": "{percent.worst:.0f}"}},
        ],
    }
    assert pages.table(spec) == [
        "|who|n|%|late|L2L − Adam|at 3e-5|at 3e-4|",
        "|---|---|---|---|---|---|---|",
        "|adam|3|2.0 ± 1.0|–|+0.0 (+0.0 to +0.0)|2 (1, 3)|–|",
        "|l2l|3|5.0 ± 1.7|–|+3.0 (+0.5 to +5.5)|5 (4, 3)|–|",
    ]


def test_two_runs_have_no_interval(made_up):
    from cells import Row, cell
    from records import Selection, runs

    some = Selection(runs(["gail/tiny"])).where({"seed": [0, 1]})
    row = Row(some.where({"follower": "l2l"}), some.where({"follower": {"not": "l2l"}}))
    assert cell("{percent.gaps:+.1f}", row) == "–"
    assert cell("{percent.gap:+.1f}", row) == "+2.5"
    assert [*some.picked("follower", "percent", "max").by_run("percent").values()] == [4.0, 4.0]


def test_when_runs_come_near_the_expert_is_told_in_steps_and_minutes(benchmarks):
    from cells import Row, cell
    from records import Selection

    def run(returns, **more):
        result = {"expert": {"mean": 100.0}, "random": {"mean": 0.0}} | more
        return {"settings": {"seed": 0}, "result": result, "curves": {"rollout/ep_rew_mean": [[10, 20, 40], returns]}}

    early, late, never = run([5, 90, 50], training_seconds=240), run([5, 80, 95]), run([5, 80, 89])

    def told(*runs):
        row = Row(Selection(runs), Selection())
        return cell("{near.median:.0f}", row), cell("{minutes.median:.1f}", row)

    assert told(early) == ("20", "2.0")
    assert told(late) == ("40", "–")  # nothing says how long it took
    assert told(early, late, never) == ("40", "–")
    assert told(early, early, never) == ("20", "2.0")
    assert told(early, never) == told(never) == ("–", "–")
    negative = {"expert": {"mean": -100.0}, "random": {"mean": -1100.0}}
    assert told(run([-1000, -201, -200], **negative)) == ("40", "–")


def test_marks_and_tables_belong_together(benchmarks):
    import pages

    page = "a\n<!-- begin t -->\nold\n<!-- end t -->\nb\n"
    assert pages.filled(page, {"t": ["|new|"]}) == page.replace("old", "|new|")
    for tables in ({}, {"t": [], "u": []}):
        with pytest.raises(ValueError, match="alone"):
            pages.filled(page, tables)


def test_a_run_becomes_a_record(benchmarks, tmp_path):
    import record

    folder = tmp_path / "out" / "exp" / "a_s0"
    folder.mkdir(parents=True)
    source = f"{tmp_path}/out/exp/b_s0"
    (folder / "config.yaml").write_text(f"settings: {{seed: 0}}\nfollower_from: {source}\nrun_dir: x\n")
    rows = [{"step": step, "robust/pgd10": step / 3, "robust/collapsed": step > 150} for step in range(200)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = {"kind": "at", "versions": {}, "machine": {}, "git": {"commit": "c"}, "result": {"best": 1}}
    found = record.of_run(folder, whole, tmp_path / "out")
    assert found["settings"] == {"seed": 0, "follower_from": "exp/b_s0"}
    assert found["result"] == {"best": 1, "alarms": [*range(151, 200)], "alarm_at_end": True}
    steps, values = found["curves"]["robust/pgd10"]
    assert (len(steps), steps[-1], values[-1]) == (60, 199, pytest.approx(199 / 3, rel=1e-4))
    again = record.merged({"old name": {"settings": found["settings"]}}, {"a_s0": found, "b": {"settings": {}}})
    assert again == {"old name": found, "b": {"settings": {}}}
    made = "/opt/env/bin/python /home/me/l2l/scripts/train_at.py --eps 0.2 --run-dir /home/me/runs/a --seed 0"
    assert record.anywhere(made) == "python scripts/train_at.py --eps 0.2 --seed 0"


@pytest.mark.slow
def test_every_cost_that_is_measured_is_of_settings_that_exist(benchmarks):
    import at_cost

    from l2l_at import methods
    from l2l_at.config import tuned

    forms = at_cost.forms()
    costs = json.loads((RESULTS / "at" / "cost.json").read_text())["summary"]
    assert set(costs) == {*methods.METHODS, *forms}
    for changes in forms.values():
        methods.make(at_cost.variant(tuned("digits"), changes), 1)
    assert at_cost.variant(tuned("cifar10"), {"method": "l2l-grad"}, "slim").attacker == "slim"


def test_operations_of_a_step_are_those_of_its_layers(benchmarks):
    """PGD-10 on a batch: eleven forward passes, ten gradients of the images, one of the weights (twice, but for the
    first layer, whose images need none)."""
    import at_cost

    from l2l_at.config import tuned

    config = replace(tuned("digits"), device="cpu", batch_size=32, method="pgd")
    # small-cnn: 2 operations for each weight at each place it is used.
    layers = [2 * 9 * 32 * 64, 2 * 9 * 32 * 64 * 64, 2 * 64 * 16 * 128, 2 * 128 * 10]
    forward = 32 * sum(layers)
    found = at_cost.operations(config, at_cost.datasets.load("digits"))
    assert found == 11 * forward + 10 * forward + 2 * forward - 32 * layers[0]


def test_reliability_is_that_of_the_comparison(benchmarks):
    """Of three runs: the figures and intervals that `compare.py` gives for the same curves."""
    from cells import Row
    from records import RETURN, Selection

    from l2l_compare import comparison
    from l2l_compare.curves import Curve

    draws, steps = np.random.default_rng(0), np.linspace(0, 1e6, 100)
    values = [np.cumsum(draws.normal(1, 3, size=100)) for _ in range(3)]
    curves = [Curve(f"r{i}", "g", "return", steps, some, steps * np.nan) for i, some in enumerate(values)]
    expected = comparison.reliability(curves, comparison.shared_grid(curves))
    runs = [{"settings": {"seed": i}, "curves": {RETURN: [steps, some]}} for i, some in enumerate(values)]
    row = Row(Selection(runs), Selection())
    for name, figure in (("final", "final"), ("drawdown", "drawdown_cvar"), ("late", "late_fall")):
        assert [row.get(f"{name}.{part}") for part in ("iqm", "iqm_low", "iqm_high")] == pytest.approx(expected[figure])


def test_a_gpu_machines_time_ends_with_runs_that_were_asked_to_stop(benchmarks, tmp_path, monkeypatch):
    import gpu

    waits = "import signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: (print('saved'), sys.exit(130)))\n"
    commands, sweeps, start = [], [], gpu.subprocess.Popen

    def sweep(command):
        commands.append(list(map(str, command)))
        sweeps.append(start([gpu.sys.executable, "-c", waits + "time.sleep(60)"]))
        return sweeps[-1]

    plan = tmp_path / "plan.yml"
    plan.write_text("at: [first, second]\ngail: [third]\n")
    monkeypatch.setattr(gpu.subprocess, "Popen", sweep)
    monkeypatch.setattr(gpu, "record", lambda out, tools, tell=False: None)
    flags = ["--out", str(tmp_path / "out"), "--plan", str(plan), "--data-dir", "images", "--jobs", "3"]
    flags += ["--minutes", "0.05", "--stop-seconds", "2", "--look-seconds", "0.2"]
    monkeypatch.setattr(gpu.sys, "argv", ["gpu.py", *flags])
    before = time.monotonic()
    gpu.main()
    assert time.monotonic() - before < 10
    assert [sweep.returncode for sweep in sweeps] == [130, 130]
    at, gail = commands
    assert [word for word in at if word in ("first", "second")] == ["first", "second"]
    assert at[-4:] == ["--jobs", "1", "--data-dir", "images"]
    assert gail[-2:] == ["--jobs", "3"]


def test_a_gpu_machine_is_given_experiments_that_exist():
    for tool, names in yaml.safe_load((ROOT / "benchmarks" / "gpu.yml").read_text()).items():
        _, experiments = sweep_files.read(str(ROOT / "benchmarks" / f"{tool}.yml"), [])
        assert set(names) <= set(experiments)
