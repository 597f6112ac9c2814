"""Playing a saved policy: what is refused, and a recording where the machine can draw."""

import pytest

from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_gail import playing
from l2l_gail.gail import GAIL


@pytest.fixture
def run(config, cheetah, tmp_path):
    """A finished run's folder."""
    folder = tmp_path / "run"
    Run.create(folder, kind="gail", config={})
    GAIL(config, cheetah).learn(64).save(folder)
    return folder


def refused(capsys, argv, word):
    with pytest.raises(SystemExit) as stopped:
        playing.main([str(a) for a in argv])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error:")
    assert word in error


def test_mistakes(run, tmp_path, capsys):
    refused(capsys, [tmp_path / "nothing"], "nothing")
    refused(capsys, [run, "--video", tmp_path / "out.txt"], ".mp4")
    refused(capsys, [run, "--episodes", "0"], "--episodes")
    refused(capsys, [run, "--max-steps", "0"], "--max-steps")
    refused(capsys, [run, "--seed", "-1"], "--seed")
    (tmp_path / "file").write_text("mine")
    refused(capsys, [run, "--video", tmp_path / "file" / "out.gif"], "cannot make the folder")


def test_without_a_display_it_says_what_is_needed(run, capsys, monkeypatch):
    monkeypatch.setattr(playing.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    refused(capsys, [run], "--video")


def test_records_a_video_or_says_what_the_machine_lacks(run, tmp_path, capsys):
    out = tmp_path / "out.gif"
    try:
        playing.open_environment("HalfCheetah-v4", recording=True).close()
    except UserError:
        refused(capsys, [run, "--video", out], "OSMesa")
        return
    playing.main([str(run), "--video", str(out), "--max-steps", "4"])
    assert out.stat().st_size > 0
    assert "4 steps" in capsys.readouterr().out


def test_camera_follows_where_the_model_has_one_that_does():
    assert playing.tracking_camera("HalfCheetah-v4") == {"camera_name": "track"}
    assert playing.tracking_camera("Pendulum-v1") == {}
