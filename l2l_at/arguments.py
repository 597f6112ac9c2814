"""What `scripts/train_at.py` takes, and how a run's folder keeps it."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from l2l_at.config import ATConfig, from_dict
from l2l_experiment.errors import UserError
from l2l_experiment.run import Run

KIND = "at"
"""What the record of such a run says that it is."""


@dataclass(frozen=True)
class TrainArgs:
    """Train a classifier to withstand small perturbations of its input, with a learned or a hand-designed attacker."""

    settings: Annotated[ATConfig, tyro.conf.arg(name="")] = field(default_factory=ATConfig)
    list: bool = False
    """Print the methods, a line each, and do nothing else."""
    data_dir: Path | None = None
    """Folder with the official CIFAR files, packed or unpacked; without it they are fetched into a cache."""
    run_dir: Path | None = None
    """Folder of the run; by default a new one in runs/."""
    resume: Path | None = None
    """Continue the run in this folder from its last checkpoint; no other flag may be given beside it."""
    checkpoint_every: int = 1
    """Epochs between two checkpoints."""
    probe_every: int = 1
    """Epochs between two measurements on held-out and training images."""
    probe_images: int = 1000
    """Measure on so many held-out images; the best classifier is chosen by them."""
    stop_on_collapse: bool = False
    """End the run when catastrophic overfitting is seen, instead of only raising the alarm."""
    grade: Literal["none", "quick", "standard"] | None = None
    """Have the result attacked by others' code at the end; by default quick for digits, none for CIFAR."""
    grade_images: int | None = None
    """Grade on so many test images only; by default 100 of the digits, all of CIFAR."""
    threads: int = 1
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "probe_every", "probe_images", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.grade_images is not None and self.grade_images < 1:
            raise UserError(f"--grade-images must be at least 1, got {self.grade_images}")

    @property
    def tier(self) -> str:
        """What the result is graded with."""
        return self.grade or ("quick" if self.settings.dataset == "digits" else "none")


def plain_args(args: TrainArgs) -> dict[str, Any]:
    """The arguments as nested plain values, for config.yaml."""
    # Resuming from another folder must find the same images.
    whole = {} if args.data_dir is None else {"data_dir": args.data_dir.resolve()}
    return {key: value for key, value in (asdict(args) | whole).items() if key not in ("list", "resume")}


def stored_args(run: Run) -> TrainArgs:
    """The arguments that a run was started with."""
    try:
        values = dict(run.config)
        settings = from_dict(values.pop("settings"))
        paths = {name: Path(values.pop(name)) if values.get(name) else None for name in ("run_dir", "data_dir")}
        return replace(TrainArgs(), settings=settings, **{**values, **paths})
    except (KeyError, TypeError) as error:
        raise UserError(f"{run.folder}/config.yaml does not hold the settings of an AT run ({error})") from error
