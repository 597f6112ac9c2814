"""A run's log: rows, what a kill leaves of them, and a resumed run's without a gap or a doubled step."""

import json
import math

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from l2l_experiment import metrics
from l2l_experiment.errors import UserError
from l2l_experiment.metrics import JsonLines


def steps(path):
    return [row["step"] for row in metrics.read(path)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_rows_are_written_one_a_line_and_flushed(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    rows = JsonLines(path)
    rows.write(10, {"loss": np.float32(0.5), "bad": math.nan, "far": math.inf})
    assert path.read_text() == '{"step": 10, "loss": 0.5, "bad": null, "far": null}\n'
    rows.write(20, {"loss": 1})
    with pytest.raises(ValueError, match="own column"):
        rows.write(40, {"step": 1.0})
    rows.close()
    first, second = metrics.read(path)
    assert math.isnan(first["bad"])
    assert second == {"step": 20, "loss": 1.0}


def test_a_cut_off_row_is_passed_over_and_not_glued_to_the_next(path):
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert steps(path) == [1]
    with JsonLines(path) as rows:
        rows.write(2, {"loss": 2.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    path.write_text(path.read_text().rstrip())  # a whole row without its newline
    with JsonLines(path) as rows:
        rows.write(3, {})
    assert steps(path) == [1, 2, 3]


def test_rows_behind_the_checkpoint_are_removed(path):
    path.write_text('{"step": 1}\n{"step": 5, "bad": null}\n{"step": 6}\n{"st')
    JsonLines(path, after=5).close()
    assert path.read_text() == '{"step": 1}\n{"step": 5, "bad": null}\n'


def test_a_resumed_run_logs_every_step_once(tmp_path):
    """As both tools log: a writer with `purge_step` beside rows that are cut back, killed after step 9, resumed from
    the checkpoint of step 6. No event file is touched, and TensorBoard shows each step once."""

    def train(first, last, **resumed):
        rows = JsonLines(tmp_path / "metrics.jsonl", after=first - 1 if first else None)
        with SummaryWriter(str(tmp_path), **resumed) as events, rows:
            for step in range(first, last):
                events.add_scalar("loss", 10.0 * step + bool(resumed), step)
                rows.write(step, {"loss": 10.0 * step + bool(resumed)})

    train(0, 10)
    (old,) = tmp_path.glob("events.*")
    # Older by its name: of two files of one second and process TensorBoard may read the later one first.
    old = old.rename(tmp_path / "events.out.tfevents.1000000000.host.1.0")
    content = old.read_bytes()
    train(7, 12, purge_step=7)
    expected = [(step, 10.0 * step + (step >= 7)) for step in range(12)]
    accumulator = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    accumulator.Reload()
    assert [(point.step, point.value) for point in accumulator.Scalars("loss")] == expected
    assert [(row["step"], row["loss"]) for row in metrics.read(tmp_path / "metrics.jsonl")] == expected
    assert old.read_bytes() == content


BAD_STEPS = ['{"loss": 1.0}', '{"step": null, "loss": 1.0}', '{"step": Infinity, "loss": 1.0}']


@pytest.mark.parametrize(
    "row", ["nonsense", "[1]", '{"step": 1, "a": "x"}', '{"step": 1, "a": 1%s}' % (400 * "0"), *BAD_STEPS]
)
def test_a_damaged_row_is_named_and_ends_what_is_read_of_it_otherwise(path, row):
    path.write_text("\n".join(['{"step": 1}', row, '{"step": 2}', ""]))
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        metrics.read(path)
    assert [found["step"] for found in metrics.read(path, strict=False)] == [1]
    with pytest.raises(UserError, match="no file"):
        metrics.read(path.with_name("other.jsonl"))


def test_curves_are_the_finite_values_of_a_tag():
    rows = [{"step": 1, "a": 2.0, "b": math.nan}, {"step": 3, "a": math.inf}, {"step": 5, "a": 4.0}]
    found = metrics.curves_of(rows, {"A": "a", "B": "b", "C": "c"})
    assert {title: curve.tolist() for title, curve in found.items()} == {"A": [[1.0, 5.0], [2.0, 4.0]]}


def test_rows_of_one_step_become_one_and_the_later_value_counts(path):
    with JsonLines(path) as rows:
        for step, values in ((1, {"a": 1}), (1, {"eval/return": 5}), (1, {"eval/return": 6}), (2, {"a": 2})):
            rows.write(step, values)
    assert metrics.read(path) == [{"step": 1, "a": 1, "eval/return": 6}, {"step": 2, "a": 2}]
