"""Scalars of event files, as several tools write them, and files that are not whole."""

import struct
import time

import pytest
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from l2l_compare import events
from l2l_experiment.errors import UserError
from tests.l2l_compare.made_up import TAG, foreign_run


def points(folder, tag=TAG, **options):
    return [(step, value) for step, value, _ in events.reader(folder, **options)(tag)]


def test_all_scalars_are_read_in_folders_below_and_in_the_order_of_writing(tmp_path):
    written = [(step, float(step)) for step in range(1200)]  # TensorBoard's own default keeps a sample of so many
    written += [(20, 2.0), (10, 3.0), (10, 4.0)]
    foreign_run(tmp_path / "tensorboard", written)
    (tmp_path / "events.out.tfevents.1.host.0.0").touch()  # empty, as a writer leaves it at first
    assert points(tmp_path) == written
    assert points(tmp_path, "other") == points(tmp_path / "nothing") == []


def test_scalars_as_tensorflow_writes_them(tmp_path):
    """As tensors, of which the first alone says what it is."""
    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(30):
            tensor = TensorProto(dtype="DT_FLOAT", float_val=[2.0 * step])
            value = Summary.Value(tag="loss", tensor=tensor, metadata=None if step else kind)
            writer.file_writer.add_summary(Summary(value=[value]), step)
        writer.add_text("note", "no number", 7)
        writer.add_scalar("loss/other", 5.0, 8)
    assert points(tmp_path, "loss") == [(step, 2.0 * step) for step in range(30)]
    assert points(tmp_path, "note/text_summary") == []


def test_hours_leave_out_the_time_between_two_files(tmp_path):
    for session in (0, 1):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{session}") as writer:
            for step in (1, 2):
                writer.add_scalar(TAG, 1.0, 2 * session + step, walltime=time.time() + 3600 * step)
    assert [hours for _, _, hours in events.reader(tmp_path)(TAG)] == pytest.approx([1, 2, 3, 4], abs=0.01)


def test_several_runs_below_one_folder_are_none(tmp_path):
    for name in "ab":
        foreign_run(tmp_path / name, [(0, 1.0), (10, 2.0)])
    with pytest.raises(UserError, match=r"several runs \(.*a and .*b\)"):
        points(tmp_path)


def damaged_record(data):
    header = struct.pack("<Q", len(data))
    return header + struct.pack("<I", masked_crc32c(header)) + data + struct.pack("<I", masked_crc32c(data))


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda content: content[:-1], 4),
        (lambda content: content[:-30], 4),
        (lambda content: content + bytes(64), 5),  # what a power cut leaves where a file had grown
        (lambda content: content[:-8] + bytes([content[-8] ^ 1]) + content[-7:], 4),
        (lambda content: content + damaged_record(b"\xff\xffloss"), 5),  # well framed, and no event
    ],
    ids=["cut", "cut more", "zeros", "a bit", "no event"],
)
def test_a_file_that_is_not_whole_is_told_or_read_as_far_as_it_goes(tmp_path, damage, left):
    (path,) = foreign_run(tmp_path, [(step, 10.0 * step) for step in range(5)]).iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path.name} is .*damaged"):
        events.reader(tmp_path)
    assert points(tmp_path, strict=False) == [(step, 10 * step) for step in range(left)]
