"""The commands that compare and diagnose runs, and the TensorBoard chart that a comparison leaves."""

import json
import types

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from l2l_compare import board, cli, diagnose, events
from l2l_experiment.drawings import Drawing
from l2l_experiment.metrics import METRICS, JsonLines
from tests.l2l_compare.made_up import TAG, curve, foreign_run, our_run, ragged


def scalars(folder, tag):
    return [(step, value) for step, value, _ in events.reader(folder)(tag)]


def charts(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    (content,) = accumulator.Tensors(metadata.CONFIG_SUMMARY_TAG)
    found = layout_pb2.Layout.FromString(content.tensor_proto.string_val[0]).category
    return {chart.title: [series.value for series in chart.margin.series] for chart in found[0].chart}


def refused(command, argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(list(map(str, argv)))
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    return told


def test_every_group_is_a_run_of_tensorboard_with_the_same_tags(tmp_path):
    groups = {"a": [ragged(f"r{i}", "a", [0, 20], [0, value]) for i, value in enumerate([10.0, 20.0, 60.0])]}
    groups["b"] = [curve([1, 3, 2])]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "events.out.tfevents.1.somebody").touch()
    for names in ("ab", "a"):  # the second one replaces the first
        some = {name: groups[name] for name in names}
        board.write(tmp_path, some, dict.fromkeys(names, np.linspace(0, 20, 100)), TAG)
        assert sorted(path.name for path in tmp_path.iterdir()) == [*names]
    assert charts(tmp_path / "a") == {TAG: [TAG]}
    low, mean, high = (np.array(scalars(tmp_path / "a", tag)).T for tag in (f"{TAG}_lower", TAG, f"{TAG}_upper"))
    assert mean[0].tolist() == list(range(21))
    assert mean[1].tolist() == pytest.approx([1.5 * step for step in range(21)])
    assert (low[1, 1:] < mean[1, 1:]).all()
    assert (mean[1, 1:] < high[1, 1:]).all()
    assert scalars(tmp_path / "a", "stability/drawdown") == [(step, 0) for step in range(21)]
    assert scalars(tmp_path / "a", "stability/spread_across_runs")[-1] == (20, 25)  # quartiles of 10, 20, 60: 15, 40
    assert len(list((tmp_path / "a").iterdir())) == 2  # others' files stay
    board.write(tmp_path, {"b": groups["b"]}, {"b": np.linspace(0, 20, 100)}, TAG)
    assert scalars(tmp_path / "b", "stability/drawdown")[-1] == (20, -1)


def test_compare_leaves_out_what_it_cannot_read_and_writes_the_same_again(tmp_path, capsys):
    runs = [our_run(tmp_path / f"{name}_s{i}", [0, 1, 2 + i], {"follower": name}) for name in "ab" for i in range(2)]
    late = our_run(tmp_path / "a_s7", [], {"follower": "a"})
    with JsonLines(late / METRICS) as rows:
        for step in (500, 600):
            rows.write(step, {TAG: 1.0})
    argv = [*map(str, (*runs, late, tmp_path / "gone")), "--by", "follower", "--out", str(tmp_path / "out")]
    cli.main(argv)
    printed = capsys.readouterr()
    assert "left out: there is no folder" in printed.err
    assert f"left out: {late} covers steps 500 to 600" in printed.err
    assert [line.split() for line in printed.out.splitlines()[2:5]] == [
        ["group", "runs", "final", "largest", "fall"],
        ["a", "2", "2.5", "0"],
        ["b", "2", "2.5", "0"],
    ]
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert set(first) == {"table.md", "comparison.json", "curves.png"}
    assert json.loads(first["comparison.json"])["improvement"] == {}  # of two runs a group there is no probability
    cli.main(argv)
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}


def test_compare_draws_hours_and_tells_of_doubled_steps_and_of_tasks(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(cli, "learning_curves", lambda groups, stem, **more: drawn.append((groups, stem, more)) or stem)
    runs = [foreign_run(tmp_path / f"a_s{i}", [(0, 1.0), (10, 2.0), (10, 3.0 + i)]) for i in range(2)]
    ours = our_run(tmp_path / "b_s0", [1.0, 2.0], {"env": "Hopper-v4"})
    flags = ["--out", str(tmp_path / "out"), "--unfinished"]
    cli.main([*map(str, (*runs, ours)), *flags])
    told = capsys.readouterr()
    assert told.out.startswith(TAG)
    assert told.err.count("logged 1 steps twice") == 2
    assert "taken to be of Hopper-v4" in told.err
    assert "does not say when" in told.err  # ours has no clock
    cli.main([*map(str, runs), *flags])
    groups, stem, labels = drawn[-1]
    assert (stem.name, labels["xlabel"]) == ("curves_hours", "seconds of training")
    assert all(0 <= seconds[-1] < 360 for seconds, _ in groups["a"])


def test_a_picture_and_a_chart_a_task(tmp_path):
    tasks = ("Hopper-v4", "Walker2d-v4")
    settings = [{"env": env, "follower": who} for env in tasks for who in ("adam", "l2l")]
    runs = [our_run(tmp_path / f"r{i}_s0", [1.0, 2.0 + i], some) for i, some in enumerate(settings)]
    out = tmp_path / "out"
    out.mkdir()
    (out / "curves.png").touch()  # of an earlier comparison of one task
    cli.main([*map(str, runs), "--by", "follower", "--out", str(out)])
    assert {path.name for path in out.glob("curves*")} == {f"curves_{task}.png" for task in tasks}
    for task in tasks:
        assert [charts(out / "tensorboard" / task / who) for who in ("adam", "l2l")] == 2 * [{TAG: [TAG]}]


def test_what_runs_are_told_of_their_end_and_the_sign_of_a_figure(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(cli, "learning_curves", lambda groups, stem, **more: drawn.append(more) or stem)
    runs = [our_run(tmp_path / f"a_s{i}", [1.0, 2.0, 3.0]) for i in range(2)]
    for i, run in enumerate(runs):
        ends = {"return": {"mean": 10.0 + i}, "percent_of_expert": 50.0, "expert": {"mean": 20}, "random": {"mean": 1}}
        record = {"kind": "gail", "status": "finished", "result": ends}
        (run / "record.json").write_text(json.dumps(record))
    short = our_run(tmp_path / "b_s0", [1.0, 2.0])
    cli.main([*map(str, (*runs, short)), "--out", str(tmp_path / "out"), "--min-steps", "20"])
    told = capsys.readouterr()
    assert "b_s0 ends at step 10, before --min-steps 20" in told.err
    assert told.out.splitlines()[3].split() == ["a", "2", "3", "0", "10.5", "50", "–", "(0", "of", "2", "runs)", "–"]
    assert drawn[0]["reference"] == {"demonstrations": 20.0, "random policy": 1.0}
    cli.main([*map(str, runs), "--out", str(tmp_path / "out"), "--lower-is-better"])
    assert f"minus {TAG}" in (told := capsys.readouterr().out)
    assert told.splitlines()[3].split()[2:4] == ["-3", "2"]
    cli.main([*map(str, runs), "--out", str(tmp_path / "out"), "--lower-is-better", "--level", "2"])
    assert capsys.readouterr().out.splitlines()[3].split()[-2] == "0"  # at 1 already, which is below 2
    cli.main([*map(str, runs), "--out", str(tmp_path / "out"), "--lower-is-better", "--level", "0"])
    assert "-0" not in capsys.readouterr().out
    cli.main([*map(str, runs), "--out", str(tmp_path / "out"), "--level", "2.5"])
    assert capsys.readouterr().out.splitlines()[3].split()[-2] == "20"
    assert "--level must be finite" in refused(cli, [*runs, "--level", "nan", "--out", tmp_path / "out"], capsys)


def test_compare_refuses_what_it_cannot_do(tmp_path, capsys):
    run = our_run(tmp_path / "a", [1.0, 2.0])
    (tmp_path / "file").write_text("mine")
    assert "cannot make the folder" in refused(cli, [run, "--out", tmp_path / "file" / "deep"], capsys)
    other = foreign_run(tmp_path / "b", [(0, 1.0), (10, 2.0)], tag="robust/pgd10")
    assert "choose one with --tag" in refused(cli, [run, other, "--out", tmp_path / "out"], capsys)
    assert "name the folders of runs" in refused(cli, ["--out", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()
    ours = our_run(tmp_path / "c", [1.0, 2.0], {"follower": "l2l"})
    assert "--by nothing: no run has such a setting" in refused(cli, [ours, "--by", "nothing"], capsys)


def test_diagnose_draws_what_the_tool_of_the_run_finds(tmp_path, monkeypatch, capsys):
    run = our_run(tmp_path / "run", [1.0, 2.0])
    (run / "record.json").write_text('{"kind": "gail", "format": 2}')
    words = {"ylabel": "y", "title": "Hopper: step", "verdict": "it grows", "log": True}
    found = {name: Drawing({"a": [([0, 1], [0.5, 1.5])]}, words) for name in ("step", "other")}

    def module(kind, part):
        assert (kind, part) == ("gail", "diagnosis")
        return types.SimpleNamespace(diagnose=lambda opened, env, demos: found if opened.folder == run else {})

    monkeypatch.setattr(diagnose, "module", module)
    diagnose.main([str(run)])
    pictures = ["step.png", "other.png", "overview.png"]
    assert {path.name for path in (run / "diagnosis").iterdir()} == {*pictures, "diagnosis.json"}
    told = capsys.readouterr().out.splitlines()
    assert told == ["step: it grows", "other: it grows", *(str(run / "diagnosis" / name) for name in pictures)]
    (run / "record.json").write_text('{"kind": "zoo"}')
    assert f"{run} holds a run of kind 'zoo'" in refused(diagnose, [run], capsys)
    assert "record.json" in refused(diagnose, [tmp_path], capsys)


def test_by_needs_settings(tmp_path, capsys):
    runs = [foreign_run(tmp_path / name, [(0, 1.0), (10, 2.0)]) for name in ("a_s0", "b_s0")]
    assert "--by needs runs of this project" in refused(cli, [*runs, "--by", "follower"], capsys)
