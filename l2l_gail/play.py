"""The command line of `scripts/play.py`: watch the policy of a run in a window, or record it."""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from l2l_experiment import process
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.files import make_folder
from l2l_experiment.run import Run
from l2l_experiment.settings import Count, Natural, check, parse
from l2l_gail.demonstrations import Episode
from l2l_gail.environments import Environment
from l2l_gail.gail import GAIL
from l2l_gail.session import KIND

DRIVERS = (
    "without a display MuJoCo needs EGL (Debian: apt install libegl1, with a GPU driver or libgl1-mesa-dri) or OSMesa "
    "(apt install libosmesa6, then MUJOCO_GL=osmesa)"
)


@dataclass(frozen=True)
class PlayArgs:
    """Play the policy of a GAIL run in a window, or record it into a video."""

    run: Annotated[Path, tyro.conf.Positional]  # Folder of the run
    env: str | None = None  # Only for a run whose environment's id names a module to import: that id again
    video: Path | None = None  # Record into this .mp4 or .gif instead of opening a window
    episodes: Count = 1  # How many episodes
    max_steps: Count | None = None  # Stop each episode after so many steps
    seed: Natural = 0  # Seed of the first episode's start
    stochastic: bool = False  # Sample actions instead of taking the most likely one

    def __post_init__(self) -> None:
        check(self)
        if self.video is not None and self.video.suffix not in (".mp4", ".gif"):
            raise UserError(f"--video must end in .mp4 or .gif, not {self.video.name!r}")


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Parse the flags and play."""
    args = parse(PlayArgs, argv)
    process.configure()
    Run.open(args.run, kind=KIND)
    if args.video is not None:
        make_folder(args.video.parent)
    gail, frames = GAIL.load(args.run, env=args.env, device="cpu"), []  # also if it was trained elsewhere
    env = open_environment(gail.env, recording=args.video is not None)
    for number in range(args.episodes):
        total, steps, images = play(gail, env, args.seed + number, args)
        frames += images
        print(f"episode {number + 1}: return {total:.1f}, {steps} steps")
    env.close()
    if args.video is not None:
        written = write_video(args.video, frames, env.metadata.get("render_fps", 30))
        print(f"wrote {args.video} ({written} frames)")


def play(gail: GAIL, env: gym.Env, seed: int, args: PlayArgs) -> tuple[float, int, list[np.ndarray]]:
    """One episode: its true return, its length, and the frames if it is recorded."""
    frames: list[np.ndarray] = []

    def policy(observation: np.ndarray) -> np.ndarray:
        return gail.predict(observation[None], deterministic=not args.stochastic)[0][0]

    with tqdm(desc="play", unit=" steps", leave=False) as bar:

        def on_step() -> None:
            bar.update()
            if args.video is not None:
                frames.append(env.render())

        episode = Episode.rollout(env, policy, seed, max_steps=args.max_steps, on_step=on_step)
    return float(episode.rewards.sum()), len(episode), frames


def open_environment(environment: Environment, *, recording: bool) -> gym.Env:
    """The environment ready to be drawn, or a UserError that says what the machine lacks."""
    headless = sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not recording and headless:
        raise UserError("there is no display to open a window on: run it on a desktop, or record with --video out.mp4")
    if recording and headless:
        os.environ.setdefault("MUJOCO_GL", "egl")
    model = None
    try:
        plain = environment.make()
        model = getattr(plain.unwrapped, "model", None)
        plain.close()
        cameras = [] if model is None else [model.camera(index).name for index in range(model.ncam)]
        # Without this camera it stays where the episode starts, and a robot that runs is soon out of the picture.
        following = {"camera_name": "track"} if "track" in cameras else {}
        env = environment.make(render_mode="rgb_array" if recording else "human", **following)
        env.reset(seed=0)
        env.render()  # the first frame is where a missing driver shows
    except Exception as error:  # MuJoCo, OpenGL and glfw each raise their own, AttributeError among them
        detail = str(error).splitlines()[0] if str(error) else "no detail"
        said = f"{environment.name} cannot be drawn here ({type(error).__name__}: {detail})"
        raise UserError(said if model is None else f"{said}; {DRIVERS}") from error
    return env


def write_video(path: Path, frames: list[np.ndarray], fps: int) -> int:
    """Write frames as .mp4 (by the package imageio-ffmpeg), or every second or fewer as .gif; returns how many."""
    import imageio

    try:
        if path.suffix == ".gif":
            # A GIF counts hundredths of a second, and viewers slow down what takes fewer than two.
            whole = (stride for stride in range(2, 13) if stride >= 0.02 * fps and 100 * stride % fps == 0)
            stride = next(whole, max(2, math.ceil(0.02 * fps)))
            frames = frames[::stride]
            imageio.mimsave(path, frames, duration=1000 * stride / fps, loop=0)
        else:
            imageio.mimsave(path, frames, fps=fps, macro_block_size=2)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    except (ImportError, ValueError) as error:
        advice = "an .mp4 needs the package imageio-ffmpeg (pip install imageio-ffmpeg)"
        raise UserError(f"cannot write {path}: {advice}") from error
    return len(frames)
