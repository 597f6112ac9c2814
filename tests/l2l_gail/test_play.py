"""Playing a saved policy: what is refused, and a recording where the machine can draw."""

import numpy as np
import pytest
from PIL import Image

from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_gail import GAIL, Environment, play


@pytest.fixture
def run(config, cheetah, tmp_path):
    """A finished run's folder."""
    folder = tmp_path / "run"
    gail = GAIL("HalfCheetah-v4", cheetah, config=config).learn(64)
    Run.create(folder, kind="gail", config={})
    (folder / "config.yaml").unlink()
    gail.save(folder)
    return folder


def test_what_cannot_be_shown_is_said(run, tmp_path, refused, monkeypatch):
    refused(play.main, [run, "--video", tmp_path / "out.txt"], ".mp4")
    refused(play.main, [run, "--env", "Hopper-v4"], "the run's environment is HalfCheetah-v4, not Hopper-v4")
    monkeypatch.setattr(play.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    refused(play.main, [run], "--video")


@pytest.mark.parametrize(("fps", "stride", "duration"), [(20, 2, 100), (30, 3, 100), (60, 3, 50), (125, 5, 40)])
def test_a_gif_lasts_as_long_as_its_episode(tmp_path, fps, stride, duration):
    frames = [np.full((8, 8, 3), shade, dtype=np.uint8) for shade in range(0, 250, 10)]
    assert play.write_video(tmp_path / "out.gif", frames, fps) == len(frames[::stride])
    with Image.open(tmp_path / "out.gif") as shown:
        assert shown.n_frames == len(frames[::stride])
        assert shown.info["duration"] == duration == pytest.approx(1000 * stride / fps)


@pytest.mark.slow
def test_records_a_video_or_says_what_the_machine_lacks(run, tmp_path, refused, capsys):
    out = tmp_path / "out.gif"
    try:
        play.open_environment(Environment("HalfCheetah-v4"), recording=True).close()
    except UserError:
        refused(play.main, [run, "--video", out], "OSMesa")
        return
    play.main([str(run), "--video", str(out), "--max-steps", "4", "--episodes", "2"])
    assert out.stat().st_size > 0
    assert capsys.readouterr().out.count("4 steps") == 2


def test_an_episode_is_that_of_its_seed_and_of_the_most_likely_action(run):
    gail, env = GAIL.load(run), Environment("HalfCheetah-v4").make()
    fixed, free = (play.PlayArgs(run=run, max_steps=20, stochastic=stochastic) for stochastic in (False, True))
    observation, expected = env.reset(seed=3)[0], 0.0
    for _ in range(20):
        observation, reward, *_ = env.step(gail.predict(observation, deterministic=True)[0])
        expected += reward
    assert play.play(gail, env, 3, fixed) == (pytest.approx(expected), 20, [])
    assert len({play.play(gail, env, 3, free)[0] for _ in range(3)}) == 3
