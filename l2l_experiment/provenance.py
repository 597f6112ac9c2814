"""Where a run comes from: versions, commit, machine, command line."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "l2l", "torch", "numpy", "scipy", "gymnasium", "mujoco", "stable-baselines3", "sb3-contrib", "minari",
    "scikit-learn", "safetensors", "tensorboard", "pyautoattack", "foolbox",
)  # fmt: skip


def origin() -> dict[str, Any]:
    """Everything below, for a record."""
    return {"command": command_line(), "git": git_state(), "versions": versions(), "machine": machine()}


def versions() -> dict[str, str]:
    """Version of python and of every installed package that can change a figure."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(file: Path = Path(__file__)) -> dict[str, Any] | None:
    """Commit of the checkout that `file` belongs to, and whether tracked files differ from it; None outside of one."""
    folder = file.resolve().parent
    # An installed copy may lie in another project's checkout (its .venv, say), whose commit says nothing of this code.
    if _git(folder, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command that only reads, or None where it fails or git is missing."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, platform, and GPUs (None without any)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "gpu": ", ".join(gpus) or None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command_line() -> str:
    """The command that started this process, ready to be pasted into a shell."""
    interpreter, *arguments = sys.orig_argv or ["python"]
    return shlex.join([Path(interpreter).name, *arguments])
