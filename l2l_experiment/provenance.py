"""Where a run comes from: versions, commit, machine, command line."""

import importlib.metadata
import os
import platform
import re
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
    """Everything below, and the command that started this process, ready to be pasted into a shell."""
    interpreter, *arguments = sys.orig_argv or ["python"]
    command = shlex.join([Path(interpreter).name, *arguments])
    return {"command": command, "git": git_state(), "versions": versions(), "machine": machine()}


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
    file = file.resolve()

    def git(*arguments: str) -> str:
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        options = {"capture_output": True, "text": True, "timeout": 20, "check": True}
        return subprocess.run(["git", *arguments], cwd=file.parent, env=environment, **options).stdout.strip()

    try:
        # An installed copy may lie in another project's checkout (its .venv, say), whose commit says nothing of it.
        git("ls-files", "--error-unmatch", file.name)
        changes = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, platform, and GPUs (None if this process uses none)."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:(.*)", info.read_text(errors="replace") if info.is_file() else "", re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Asking for the name takes hundreds of megabytes of a GPU, which a process on the CPU leaves alone.
    indices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    gpus = [torch.cuda.get_device_name(index) for index in indices]
    return {
        "cpu": named[1].strip() if named else platform.processor() or platform.machine(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "gpu": ", ".join(gpus) or None,
    }
