"""Logs after a kill: no doubled point, no gap, whoever reads them."""

import json
import math
import os
import struct

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from l2l_experiment import events
from l2l_experiment.errors import UserError


def write_scalars(folder, steps, *, suffix="", tag="rollout/ep_rew_mean", **others):
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for step in steps:
            writer.add_scalar(tag, 10.0 * step, step)
            for name, factor in others.items():
                writer.add_scalar(name, factor * step, step)


def event_file(folder):
    (path,) = folder.glob("events.out.tfevents.*")
    return path


def accumulated(folder, tag="rollout/ep_rew_mean"):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(point.step, point.value) for point in accumulator.Scalars(tag)]


def test_scalars_are_read_back(tmp_path):
    write_scalars(tmp_path / "tensorboard", range(5), loss=2)
    steps, values = events.read_scalars(tmp_path, "loss")
    assert steps.tolist() == [0, 1, 2, 3, 4]
    assert values.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert (steps.dtype, values.dtype) == (np.int64, np.float64)
    assert [len(part) for part in events.read_scalars(tmp_path, "other")] == [0, 0]


def test_scalars_as_tensorflow_writes_them(tmp_path):
    """As tensors, of which the first alone says what it is."""
    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            tensor = TensorProto(dtype="DT_FLOAT", float_val=[2.0 * step])
            value = Summary.Value(tag="loss", tensor=tensor, metadata=None if step else kind)
            writer.file_writer.add_summary(Summary(value=[value]), step)
        writer.add_text("loss", "no number", 7)
        writer.add_scalar("loss/other", 5.0, 8)
    steps, values = events.read_scalars(tmp_path, "loss")
    assert (steps.tolist(), values.tolist()) == ([0, 1, 2], [0.0, 2.0, 4.0])


def test_of_two_values_for_a_step_the_later_counts(tmp_path):
    write_scalars(tmp_path, range(4), suffix=".0")
    with SummaryWriter(str(tmp_path), filename_suffix=".1") as writer:
        writer.add_scalar("rollout/ep_rew_mean", -1.0, 3)
    assert events.read_scalars(tmp_path, "rollout/ep_rew_mean")[1].tolist() == [0.0, 10.0, 20.0, -1.0]


def test_a_trimmed_run_goes_on_without_doubled_points_or_gaps(tmp_path):
    write_scalars(tmp_path, range(0, 10), loss=1)  # killed after 9; its checkpoint is of 6
    # Older by its name: of two files of one second and process TensorBoard may read the later one first.
    event_file(tmp_path).rename(tmp_path / "events.out.tfevents.1000000000.host.1.0")
    events.trim(tmp_path, 6)
    assert [step for step, _ in accumulated(tmp_path)] == list(range(7))
    write_scalars(tmp_path, range(7, 12), suffix=".resumed", loss=1)
    expected = [(step, 10.0 * step) for step in range(12)]
    assert accumulated(tmp_path) == expected
    assert accumulated(tmp_path, "loss") == [(step, float(step)) for step in range(12)]
    assert events.read_scalars(tmp_path, "loss")[0].tolist() == list(range(12))


def test_images_and_hyperparameters_up_to_the_step_stay(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_hparams({"rate": 3e-4}, {"hparam/final": 1.0}, run_name=".")
        for step in range(4):
            writer.add_image("frame", np.full((3, 4, 4), step / 4, dtype=np.float32), step)
            writer.add_histogram("weights", np.arange(5.0), step)
            writer.add_text("note", "hello", step)
    events.trim(tmp_path, 2)
    accumulator = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "tensors": 0, "histograms": 0})
    accumulator.Reload()
    assert [image.step for image in accumulator.Images("frame")] == [0, 1, 2]
    assert [histogram.step for histogram in accumulator.Histograms("weights")] == [0, 1, 2]
    assert [text.step for text in accumulator.Tensors("note/text_summary")] == [0, 1, 2]
    assert "hparams" in accumulator.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name
    assert accumulator.file_version == 2.0


@pytest.mark.parametrize("cut", [1, 4, 15, 30])
def test_a_cut_off_last_record_is_tolerated_and_removed(tmp_path, cut):
    write_scalars(tmp_path, range(5))
    path = event_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert events.read_scalars(tmp_path, "rollout/ep_rew_mean")[0].tolist() == [0, 1, 2, 3]
    events.trim(tmp_path, 100)
    assert accumulated(tmp_path) == [(step, 10.0 * step) for step in range(4)]
    whole = path.read_bytes()
    events.trim(tmp_path, 100)
    assert path.read_bytes() == whole


def test_zeros_behind_the_last_record_are_a_cut_off_end(tmp_path):
    """What a power cut leaves where a file had grown, but its content was not written yet."""
    write_scalars(tmp_path, range(5))
    path = event_file(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(64))
    with pytest.raises(UserError, match="cut off or damaged"):
        events.read_timed(tmp_path, "rollout/ep_rew_mean", whole=True)
    assert events.read_scalars(tmp_path, "rollout/ep_rew_mean")[0].tolist() == [0, 1, 2, 3, 4]
    events.trim(tmp_path, 100)
    assert not path.read_bytes().endswith(bytes(12))
    assert events.read_timed(tmp_path, "rollout/ep_rew_mean", whole=True)[0].tolist() == [0, 1, 2, 3, 4]


def test_events_behind_damage_are_not_lost_in_silence(tmp_path):
    write_scalars(tmp_path, range(5))
    path = event_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"rollout") - 60] ^= 0xFF  # inside the last record but one
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged at byte"):
        events.trim(tmp_path, 100)
    assert [step for step, _ in accumulated(tmp_path)] == [0, 1, 2]


def test_an_empty_event_file_is_tolerated(tmp_path):
    (tmp_path / "events.out.tfevents.1.host.0.0").write_bytes(b"")
    events.trim(tmp_path, 3)
    assert len(events.read_scalars(tmp_path, "loss")[0]) == 0


def test_files_that_need_no_change_are_not_touched(tmp_path):
    write_scalars(tmp_path / "tensorboard", range(5))
    with events.JsonLines(tmp_path / "metrics.jsonl") as rows:
        rows.write(1, {"loss": 1.0})
    paths = [event_file(tmp_path / "tensorboard"), tmp_path / "metrics.jsonl"]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
    events.trim(tmp_path, 5)
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths] == before


def test_trimming_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_scalars(tmp_path, range(5))
    path = event_file(tmp_path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        events.trim(tmp_path, 2)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_rows_are_written_one_a_line_and_flushed(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    rows = events.JsonLines(path)
    rows.write(10, {"loss": np.float32(0.5), "bad": math.nan})
    assert path.read_text() == '{"step": 10, "loss": 0.5, "bad": null}\n'
    rows.write(20, {"loss": 1})
    rows.close()
    read = events.read(path)
    assert [row["step"] for row in read] == [10, 20]
    assert math.isnan(read[0]["bad"])
    with events.JsonLines(path) as again:
        again.write(30, {})
        with pytest.raises(ValueError, match="own column"):
            again.write(40, {"step": 1.0})
    assert [row["step"] for row in events.read(path)] == [10, 20, 30]


def test_a_cut_off_row_is_passed_over_and_not_glued_to_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert [row["step"] for row in events.read(path)] == [1]
    with events.JsonLines(path) as rows:
        rows.write(2, {"loss": 2.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_whole_row_without_its_newline_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    with events.JsonLines(path) as rows:
        rows.write(3, {})
    assert [row["step"] for row in events.read(path)] == [1, 2, 3]


def test_rows_are_trimmed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"note": "no step"}\n{"step": 5}\n{"step": 6}\n{"st')
    events.trim(tmp_path, 5)
    assert path.read_text() == '{"step": 1}\n{"note": "no step"}\n{"step": 5}\n'


def test_a_damaged_row_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl"):
        events.read(path)
    with pytest.raises(UserError, match="no file"):
        events.read(tmp_path / "other.jsonl")


def test_a_record_that_is_no_event_is_damage(tmp_path):
    write_scalars(tmp_path, range(3), tag="loss")
    data = b"\xff\xffloss"  # well framed: both checksums hold
    header = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (header, data)]
    path = event_file(tmp_path)
    path.write_bytes(path.read_bytes() + header + sums[0] + data + sums[1])
    with pytest.raises(UserError, match="no event"):
        events.read_timed(tmp_path, "loss", whole=True)
    assert events.read_timed(tmp_path, "loss")[0].tolist() == [0, 1, 2]
