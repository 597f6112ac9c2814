"""The command that compares runs, and the TensorBoard chart it leaves."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from l2l_experiment import board, events
from tests.l2l_experiment.made_up import TAG, curve, foreign_run, our_run, ragged

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_a_board_has_a_band_of_three_runs_at_whole_steps(tmp_path):
    groups = {"a": [ragged(f"r{i}", "a", [0, 20], [0, value]) for i, value in enumerate([10.0, 20.0, 60.0])]}
    board.write(tmp_path, groups, {"a": np.linspace(0, 20, 100)}, TAG)
    steps, mean = events.read_scalars(tmp_path, "a/mean")
    assert steps.tolist() == list(range(21))
    assert mean.tolist() == pytest.approx([1.5 * step for step in range(21)])
    low, high = (events.read_scalars(tmp_path, f"a/{part}")[1] for part in ("low", "high"))
    assert (low[1:] < mean[1:]).all()
    assert (mean[1:] < high[1:]).all()


def test_board_has_all_groups_on_one_chart(tmp_path):
    groups = {"a": [curve([0, 1, 2]), curve([0, 3, 4])], "b": [curve([1, 1, 1])]}
    board.write(tmp_path / "tb", groups, dict.fromkeys("ab", np.array([0.0, 10.0, 20.0])), TAG)
    steps, values = events.read_scalars(tmp_path / "tb", "a/mean")
    assert steps.tolist() == [0, 10, 20]
    assert values.tolist() == [0, 2, 3]
    accumulator = EventAccumulator(str(tmp_path / "tb"))
    accumulator.Reload()
    (content,) = accumulator.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(content.tensor_proto.string_val[0])
    (chart,) = layout.category[0].chart
    assert [series.value for series in chart.margin.series] == ["a/mean", "b/mean"]
    assert chart.title == TAG
    other = tmp_path / "tb" / "events.out.tfevents.1.somebody"
    other.touch()
    board.write(tmp_path / "tb", groups, dict.fromkeys("ab", np.array([0.0, 10.0, 20.0])), TAG)
    assert other.exists()
    assert len(list((tmp_path / "tb").iterdir())) == 2


def test_command_leaves_out_what_it_cannot_read(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare

    runs = [our_run(tmp_path / f"{name}_s{i}", [0, 1, 2 + i], {"follower": name}) for name in "ab" for i in range(2)]
    late = our_run(tmp_path / "a_s7", [], {"follower": "a"})
    with events.JsonLines(late / events.METRICS) as rows:
        for step in (500, 600):
            rows.write(step, {TAG: 1.0})
    flags = [str(run) for run in (*runs, late, tmp_path / "gone")]
    monkeypatch.setattr(sys, "argv", ["compare", *flags, "--by", "follower", "--out", str(tmp_path / "out")])
    compare.main()
    printed = capsys.readouterr()
    assert "left out: there is no folder" in printed.err
    assert f"left out: {late} covers steps 500 to 600" in printed.err
    assert "| a | 2 |" in printed.out
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert set(first) == {"table.md", "comparison.json", "curves.png", "curves.svg"}
    assert json.loads(first["comparison.json"])["improvement"]["a over b"][0] == 0.5
    compare.main()
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}


def test_command_draws_hours_and_tells_of_doubled_steps_and_of_tasks(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare

    drawn = []
    monkeypatch.setattr(
        compare, "learning_curves", lambda groups, stem, **labels: drawn.append((groups, stem, labels)) or ()
    )
    runs = [foreign_run(tmp_path / f"a_s{i}", [(0, 1.0), (10, 2.0), (10, 3.0 + i)]) for i in range(2)]
    ours = our_run(tmp_path / "b_s0", [1.0, 2.0], {"env": "Hopper-v4"})
    flags = ["--out", str(tmp_path / "out"), "--unfinished"]
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, (*runs, ours)), *flags])
    compare.main()
    told = capsys.readouterr()
    assert f"Figure: `{TAG}`." in told.out
    assert told.err.count("logged 1 steps twice") == 2
    assert "taken to be of Hopper-v4" in told.err
    assert "does not say when" in told.err  # ours has no clock
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, runs), *flags])
    compare.main()
    groups, stem, labels = drawn[-1]
    assert (stem.name, labels["xlabel"]) == ("curves_hours", "hours")
    assert all(0 <= hours[-1] < 0.1 for hours, _ in groups["a"])


def test_a_picture_and_a_chart_a_task(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare

    tasks = ("Hopper-v4", "Walker2d-v4")
    settings = [{"env": env, "follower": who} for env in tasks for who in ("adam", "l2l")]
    runs = [our_run(tmp_path / f"r{i}_s0", [1.0, 2.0 + i], some) for i, some in enumerate(settings)]
    out = tmp_path / "out"
    out.mkdir()
    (out / "curves.png").touch()  # of an earlier comparison of one task
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, runs), "--by", "follower", "--out", str(out)])
    compare.main()
    assert {path.name for path in out.glob("curves*.png")} == {f"curves_{task}.png" for task in tasks}
    accumulator = EventAccumulator(str(out / "tensorboard"))
    accumulator.Reload()
    (content,) = accumulator.Tensors(metadata.CONFIG_SUMMARY_TAG)
    charts = layout_pb2.Layout.FromString(content.tensor_proto.string_val[0]).category[0].chart
    assert [chart.title for chart in charts] == [f"{task}: {TAG}" for task in tasks]
    assert [series.value for series in charts[1].margin.series] == [
        f"Walker2d-v4: {who}/mean" for who in ("adam", "l2l")
    ]


def test_command_refuses_a_file_as_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare

    (tmp_path / "out").write_text("mine")
    out = tmp_path / "out"
    for flags in (["--out", str(out)], ["--out", str(out / "deep")], ["--from", "docs/results"]):
        run = our_run(tmp_path / f"run{len(flags[1])}", [1.0, 2.0])
        monkeypatch.setattr(sys, "argv", ["compare", str(run), *flags])
        with pytest.raises(SystemExit) as stopped:
            compare.main()
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_command_refuses_figures_of_two_kinds(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare

    other = foreign_run(tmp_path / "b", [(0, 1.0), (10, 2.0)], tag="robust/pgd10")
    flags = [str(our_run(tmp_path / "a", [1.0, 2.0])), str(other)]
    monkeypatch.setattr(sys, "argv", ["compare", *flags, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        compare.main()
    assert stopped.value.code == 2
    assert "--tag" in capsys.readouterr().err
