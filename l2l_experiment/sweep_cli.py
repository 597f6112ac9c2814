"""Train many runs, on all cores: l2l-sweep gail --follower adam l2l --seed 0:5 --out runs/mine"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from l2l_experiment import sweeps
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.files import make_folder, read_mapping
from l2l_experiment.settings import parse
from l2l_experiment.sweep_files import OUT, boolean_flags, comparable_settings, expand, read, settings_of


@dataclass(frozen=True)
class Args:
    """Train every combination of settings; whatever is finished is skipped, whatever was cut off is resumed.

    All other flags are those of the training script, with any number of values each: --seed 0:5 stands for 0 to 4,
    --disc-hidden 64,64 256,256 for two settings of two numbers."""

    spec: Annotated[str, tyro.conf.Positional]  # gail, at, or a YAML file with experiments (docs/runs.md)
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # Experiments of the file to make; by default all
    out: Path | None = None  # Folder for the runs, and in it one for each experiment; by default runs/SPEC
    only: str = ""  # Only runs whose EXPERIMENT/NAME holds this
    records: Path | None = None  # Skip runs whose settings stand in this folder's records, e.g. docs/results/gail
    jobs: int = -1  # Runs side by side, one thread each; -1: one a core
    backend: sweeps.Backend = "local"  # local, or ray for all machines of a Ray cluster, which must share OUT
    address: str | None = None  # Address of the Ray cluster; by default one on this machine
    dry_run: bool = False  # Print the runs and make none


@dataclass(frozen=True)
class Planned:
    """Runs to make, and what is not made: runs that are the same as another, and those that stand in records."""

    jobs: list[sweeps.Job] = field(default_factory=list)
    duplicates: dict[Path, Path] = field(default_factory=dict)
    recorded: list[Path] = field(default_factory=list)


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Read the file, check every run, make them."""
    args, rest = parse(Args, argv, return_unknown_args=True)
    if args.address is not None and args.backend != "ray":
        raise UserError("--address is that of a Ray cluster: add --backend ray")
    out = args.out or Path("runs") / Path(args.spec).stem
    planned = plan(args.spec, args.names, rest, out.resolve(), only=args.only, records=args.records)
    if args.dry_run:
        for job in planned.jobs:
            print(f"{job.folder}: {' '.join(job.flags)}")
    for one, other in planned.duplicates.items():
        print(f"{one}: the same as {other}")
    if args.dry_run:
        print(f"{len(planned.jobs)} runs, {len(planned.recorded)} more stand in records")
        return
    if not planned.jobs and not planned.recorded:
        raise UserError(f"no run has {args.only!r} in its name; --dry-run without --only lists them")
    if not planned.jobs:
        print(f"nothing to do: {len(planned.recorded)} runs stand in records")
        return
    make_folder(out)
    failed = sweeps.run(planned.jobs, workers=args.jobs, backend=args.backend, address=args.address)
    depth = "/*/*/" if planned.jobs[0].folder.parent != out.resolve() else "/*/"
    done = f"{len(planned.jobs) - len(failed)} of {len(planned.jobs)} runs are finished"
    print(f"{done}; compare them: l2l-compare {shlex.quote(str(out))}{depth}")
    if failed:
        sys.exit(1)


def plan(
    spec: str, names: Sequence[str], rest: Sequence[str], out: Path, *, only: str = "", records: Path | None = None
) -> Planned:
    """The runs of a file's experiments: those with equal settings once, without those that stand in `records`."""
    script, experiments = read(spec, rest)
    if unknown := sorted(set(names) - set(experiments)):
        known = ", ".join(filter(None, experiments)) or "none"
        raise UserError(f"{spec} has no experiment {', '.join(unknown)}; there are {known}")
    known = recorded(script, records) if records is not None else set()
    found = Planned()
    made: dict[frozenset[Any], Path] = {}
    for experiment in names or experiments:
        for name, flags in expand(experiments[experiment], boolean_flags(script)).items():
            folder = out / experiment / name
            if only not in f"{experiment}/{name}":
                continue
            key = settings_key(settings_of(script, [word.replace(f"{OUT}/", "") for word in flags]))
            if key in known:
                found.recorded.append(folder)
            elif made.setdefault(key, folder) != folder:
                found.duplicates[folder] = made[key]
            else:
                found.jobs.append(sweeps.Job(script, folder, tuple(word.replace(OUT, str(out)) for word in flags)))
                check_same_settings(found.jobs[-1])
    return found


def settings_key(settings: dict[str, Any]) -> frozenset[Any]:
    """Equal for runs with equal settings; 1 and 1.0 are equal."""
    return frozenset((name, tuple(value) if isinstance(value, list) else value) for name, value in settings.items())


def recorded(script: str, folder: Path) -> set[frozenset[Any]]:
    """The runs of a folder's records that today's code would make again.

    A setting that a record does not know is younger than the record, and was as it is by default. Files with a `note`
    hold runs of other code."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one with records, e.g. docs/results/gail")
    usual = settings_of(script, [])
    contents = [read_mapping(path, advice="restore it") for path in sorted(folder.glob("*.json"))]
    runs = [run for content in contents if "note" not in content for run in content.get("runs", {}).values()]
    return {settings_key({name: run["settings"].get(name, value) for name, value in usual.items()}) for run in runs}


def check_same_settings(job: sweeps.Job) -> None:
    """UserError if a folder holds a run with other settings: what varies names a run, the rest does not."""
    if not (path := job.folder / "config.yaml").is_file():
        return
    wanted, found = settings_of(job.script, job.flags), comparable_settings(read_mapping(path))
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name] != found[name]:
            told = f"holds a run with {name} {found[name]}, but this sweep wants {wanted[name]}"
            raise UserError(f"{job.folder} {told}; name another --out")
