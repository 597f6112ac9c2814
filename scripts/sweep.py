"""Train many runs, on all cores: python scripts/sweep.py gail --follower adam l2l --seed 0:5 --out runs/mine"""

import functools
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from l2l_experiment import sweeps
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.files import make_folder, read_mapping
from l2l_experiment.run import plain

SCRIPTS = {name: Path(__file__).with_name(f"train_{name}.py").resolve() for name in ("gail", "at")}


@dataclass(frozen=True)
class Args:
    """Train every combination of settings; whatever is finished is skipped, whatever was cut off is resumed.

    All other flags are those of the training script, with any number of values each: --seed 0:5 stands for 0 to 4,
    --disc-hidden 64,64 256,256 for two settings of two numbers.
    """

    spec: Annotated[str, tyro.conf.Positional]
    """gail, at, or a YAML file with `script` (gail or at) and `grid` (values by flag)."""
    out: Path | None = None
    """Folder for the runs; by default runs/SPEC."""
    jobs: int = -1
    """Runs side by side, one thread each; -1: one a core."""
    backend: sweeps.Backend = "local"
    """local, or ray for all machines of a Ray cluster, which must share OUT."""
    address: str | None = None
    """Address of the Ray cluster; by default one on this machine."""
    dry_run: bool = False
    """Print the runs and make none."""


@exit_on_user_error
def main() -> None:
    """Read the grid, check every combination, run."""
    args, rest = tyro.cli(Args, return_unknown_args=True)
    script, grid = read(args.spec, rest)
    if args.address is not None and args.backend != "ray":
        raise UserError("--address is that of a Ray cluster: add --backend ray")
    out = args.out or Path("runs") / Path(args.spec).stem
    jobs = sweeps.expand(grid, SCRIPTS[script], out.resolve())  # a Ray worker has a working folder of its own
    for job in jobs:
        settings = settings_of(script, job.flags)
        if (job.folder / "config.yaml").is_file():
            refuse_another(job.folder, settings)
    if args.dry_run:
        print("\n".join(f"{job.folder}: {' '.join(job.flags)}" for job in jobs))
        return
    make_folder(out)
    failed = sweeps.run(jobs, workers=args.jobs, backend=args.backend, address=args.address)
    print(
        f"{len(jobs) - len(failed)} of {len(jobs)} runs are finished; compare them: python scripts/compare.py {out}/*/"
    )
    if failed:
        sys.exit(1)


def read(spec: str, rest: Sequence[str]) -> tuple[str, dict[str, list[Any]]]:
    """The name of the training script and the grid, from a file and from flags; flags stand over the file."""
    grid: dict[str, list[Any]] = {}
    script = spec
    if spec not in SCRIPTS:
        content = read_spec(Path(spec))
        script = content["script"]
        for key, value in content["grid"].items():
            grid[key.replace("_", "-")] = value if isinstance(value, list) else [value] if value else []
    name = None
    for token in rest:
        if token.startswith("--"):
            name, _, value = token[2:].partition("=")
            name = name.replace("_", "-")  # as the training scripts have it: both spellings are one flag
            grid[name] = [value] if value else []
        elif name is None:
            raise UserError(f"{token} stands behind no flag; write e.g. --seed 0:5")
        else:
            grid[name].append(token)
    for forbidden in {"run-dir", "resume", "list"} & set(grid):
        raise UserError(f"--{forbidden} cannot be swept; the runs go into --out, and are resumed by the same command")
    return script, {key: [spelled(script, key, value) for value in values] for key, values in grid.items()}


def spelled(script: str, key: str, value: Any) -> Any:
    """A value as the training script's parser has it: several between commas, True and False where a flag takes one."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() if key in switches(script) else value.capitalize()
    return value.split(",") if "," in value else value


@functools.cache
def switches(script: str) -> set[str]:
    """The settings of a training script that are a flag and its opposite."""
    if script == "gail":
        from l2l_gail.config import GAILConfig as Settings
        from l2l_gail.training import TrainArgs as Arguments
    else:
        from l2l_at.arguments import TrainArgs as Arguments
        from l2l_at.config import ATConfig as Settings
    kinds = typing.get_type_hints(Settings) | typing.get_type_hints(Arguments)
    return {name.replace("_", "-") for name, kind in kinds.items() if kind is bool}


def read_spec(path: Path) -> dict[str, Any]:
    """The content of a sweep's file."""
    if not path.is_file():
        raise UserError(f"there is no file {path}; name one, or one of {', '.join(SCRIPTS)}")
    content = read_mapping(path, loader=yaml.BaseLoader, advice="mend it")  # else 3:5 is 185, in base 60
    known = isinstance(content.get("script"), str) and content["script"] in SCRIPTS
    if not known or not isinstance(content.get("grid"), dict):
        raise UserError(f"{path} must hold `script` ({' or '.join(SCRIPTS)}) and `grid`, a list of values by flag")
    return content


def settings_of(script: str, flags: Sequence[str]) -> dict[str, Any]:
    """What a run's config.yaml says if it is made with these flags; wrong ones are refused."""
    if script == "gail":
        from l2l_gail.cli import parse
        from l2l_gail.training import plain_args
    else:
        from l2l_at import methods
        from l2l_at.arguments import plain_args
        from l2l_at.cli import parse

        methods.make(parse(flags).settings, 1)  # refuses settings that the method does not look at
    return plain(plain_args(parse(flags)))


def refuse_another(folder: Path, wanted: dict[str, Any]) -> None:
    """UserError if a folder holds a run with other settings: what varies names a run, the rest does not."""
    found = read_mapping(folder / "config.yaml")
    for ours, theirs in ((wanted, found), (wanted["settings"], found.get("settings") or {})):
        for name in sorted(set(ours) & set(theirs) - {"settings", "run_dir"}):
            if ours[name] != theirs[name]:
                raise UserError(
                    f"{folder} holds a run with {name} {theirs[name]}, but this sweep wants {ours[name]}; "
                    "name another --out"
                )


if __name__ == "__main__":
    main()
