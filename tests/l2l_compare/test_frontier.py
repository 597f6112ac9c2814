"""The picture of graded runs: robustness against the cost of training."""

import json

import pytest
import yaml

from l2l_compare import cli, frontier
from l2l_compare.curves import PROBE
from l2l_experiment.errors import UserError
from l2l_experiment.metrics import METRICS, JsonLines

MACHINE = {"cpu": "Some CPU", "gpu": None}


def graded_run(folder, robust, seconds, machine=MACHINE, tier="quick", sessions=(), **settings):
    """A finished run with a probe's curve, a cost and a grade (`robust=None`: without)."""
    with JsonLines(folder / METRICS) as rows:
        for step in (10, 20):
            rows.write(step, {PROBE: 0.01 * step})
    known = {"dataset": "digits", "norm": "linf", "eps": "0.1", "method": folder.name.split("_")[0]} | settings
    (folder / "config.yaml").write_text(yaml.safe_dump({"settings": known}))
    grade = {"tier": tier, "n": 360, "norm": "linf", "radius": 0.1, "seed": 0, "autoattack": robust}
    result = {"training_seconds": seconds} | ({} if robust is None else {"grade": grade})
    record = {"kind": "at", "status": "finished", "machine": machine, "sessions": list(sessions), "result": result}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_frontier_has_the_median_cost_and_all_grades_of_a_group(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(frontier.figures, "frontier", lambda points, stem, **labels: drawn.update(points) or stem)
    runs = {"pgd": [graded_run(tmp_path / f"pgd_s{i}", 0.8 + i / 100, 10.0 + i**2) for i in range(3)]}
    runs["l2l"] = [graded_run(tmp_path / "l2l_s0", 0.79, 4.0)]
    pictures, reasons = frontier.draw({"digits": runs}, tmp_path / "frontier")
    assert (len(pictures), reasons) == (1, [])
    assert drawn["pgd"] == (11.0, pytest.approx([80, 81, 82]))
    assert drawn["l2l"] == (4.0, pytest.approx([79]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tier": "standard"}, "different tiers"),
        ({"machine": {"cpu": "Some CPU", "gpu": "a GPU"}}, "different machines"),
        ({"sessions": [{"machine": {"cpu": "Another CPU"}}]}, "different machines"),
        ({"robust": None}, "l2l-grade-at"),
        ({"robust": {}}, "was not graded"),  # damaged
    ],
)
def test_what_has_no_common_scale_is_not_drawn(tmp_path, change, reason):
    a = graded_run(tmp_path / "a_s0", 0.8, 10.0)
    b = graded_run(tmp_path / "b_s0", **({"robust": 0.7, "seconds": 5.0} | change))
    pictures, reasons = frontier.draw({"digits": {"a": [a], "b": [b]}}, tmp_path / "frontier")
    assert (pictures, len(reasons)) == ([], 1)
    assert reason in reasons[0]


def test_the_command_that_grades_a_run_can_be_pasted(tmp_path):
    (folder := tmp_path / "a b").mkdir()
    with pytest.raises(UserError, match=f"l2l-grade-at '{folder}'$"):
        frontier.read(graded_run(folder, None, 10.0))


def test_grades_that_were_made_otherwise_are_not_averaged(tmp_path, capsys):
    runs = [graded_run(tmp_path / f"pgd_s{i}", 0.8 - i / 10, 5.0, tier=t) for i, t in enumerate(("quick", "standard"))]
    cli.main([*map(str, runs), "--out", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert "AutoAttack %" not in told.out
    assert "graded with different tiers" in told.err
    cli.main([str(runs[0]), "--out", str(tmp_path / "out")])
    assert "AutoAttack %" in capsys.readouterr().out


def test_compare_draws_it_and_removes_an_older_one(tmp_path, capsys):
    runs = [graded_run(tmp_path / f"{name}_s0", robust, 5.0) for name, robust in (("pgd", 0.8), ("l2l", 0.7))]
    out = tmp_path / "out"
    argv = [*map(str, runs), "--out", str(out)]
    cli.main(argv)
    assert {path.name for path in out.glob("frontier*")} == {"frontier.png"}
    assert "frontier.png" in capsys.readouterr().out
    record = tmp_path / "l2l_s0" / "record.json"
    record.write_text(record.read_text().replace('"grade"', '"nothing"'))
    cli.main(argv)
    assert not list(out.glob("frontier*"))
    assert "l2l_s0 was not graded" in capsys.readouterr().err
