"""Data sets: where their images come from, how they are normalised and augmented, and their split for a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from l2l_at import cifar
from l2l_experiment.errors import UserError

Augmentation = Literal["none", "crop", "crop-flip"]
Moments = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation, a value per channel
DIGITS_TEST = 360  # of 1797, split off by one fixed seed: every run and every table has the same test set


@dataclass(frozen=True)
class Images:
    """Images as integers, uint8 of shape (n, channels, height, width), and their labels, int64 of shape (n,)."""

    integers: Tensor
    labels: Tensor
    white: int = 255  # The integer that stands for 1

    def __len__(self) -> int:
        return len(self.labels)

    def check(self, name: str, classes: int, shape: Sequence[int]) -> None:
        """UserError unless they are images of a shape, and labels of so many classes; `name` is the data set's."""
        integers, labels = self.integers, self.labels
        if integers.dtype != torch.uint8 or integers.dim() != 4 or tuple(integers.shape[1:]) != tuple(shape):
            raise UserError(
                f"the images of {name} must be uint8 of shape (n, channels, height, width), training and test alike; "
                f"got {integers.dtype} of shape {tuple(integers.shape)}"
            )
        if shape[0] > 4 and shape[-1] in (1, 3, 4):
            raise UserError(
                f"the images of {name} seem to have their channels last: {tuple(shape)}; channels come first"
            )
        if labels.dtype != torch.int64 or labels.shape != integers.shape[:1] or not len(labels):
            got = f"{labels.dtype} of shape {tuple(labels.shape)} for {len(integers):,} images"
            raise UserError(f"the labels of {name} must be int64, one an image; got {got}")
        if integers.max() > self.white:
            raise UserError(f"the images of {name} reach {integers.max()}, above {self.white}, which stands for white")
        if labels.min() < 0 or labels.max() >= classes:
            reach = f"{labels.min()} to {labels.max()}"
            raise UserError(f"the labels of {name} must lie in [0, {classes}), got {reach}")

    def take(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images in [0, 1], float32, and labels of some rows."""
        return self.integers[rows].float() / self.white, self.labels[rows]

    def subset(self, rows: Tensor | slice) -> "Images":
        return replace(self, integers=self.integers[rows], labels=self.labels[rows])

    def to(self, device: torch.device) -> "Images":
        return replace(self, integers=self.integers.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class DataSet:
    """A data set and all that runs need to know of it; put it into `DATASETS` to train on it by name. `loader` returns
    training and test images, each as `Images` or as arrays `(integers, labels)` of which 255 is white."""

    name: str
    classes: int
    loader: Callable[..., tuple[Any, Any]]
    source: str  # Where the images come from, for the card of every classifier that is trained on them
    moments: Moments | None = None  # Of the pixels in [0, 1]; None: those of the training images
    augmentation: Augmentation = "none"  # Shift training images by up to four pixels (crop), and mirror half (flip)
    model: str = "preact-tiny"  # The classifier by default
    settings: Mapping[str, Any] = field(default_factory=dict)  # Other settings by default, over those of ATConfig
    grade: Literal["none", "quick", "standard"] = "none"  # How runs are graded by default
    grade_images: int | None = None  # On so many test images; None: on all
    takes_folder: bool = False  # Whether the loader takes the folder of --data-dir, or None to fetch the files

    def __post_init__(self) -> None:
        if not isinstance(self.classes, int) or self.classes < 2:
            raise UserError(f"{self.name} must have 2 or more classes, got {self.classes!r}")
        if not callable(self.loader):
            raise UserError(f"the loader of {self.name} must be a function that returns training and test images")
        if self.augmentation not in get_args(Augmentation):
            known = ", ".join(get_args(Augmentation))
            raise UserError(f"the augmentation of {self.name} must be one of {known}, got {self.augmentation!r}")

    def read(self, data_dir: Path | None = None) -> tuple[Images, Images]:
        """Training and test images; UserError if they are not what they should be."""
        if data_dir is not None and not self.takes_folder:
            raise UserError(f"--data-dir would change nothing: {self.name} is not read from a folder")
        parts = self.loader(data_dir) if self.takes_folder else self.loader()
        try:
            train, test = (part if isinstance(part, Images) else Images(*map(torch.as_tensor, part)) for part in parts)
        except (TypeError, ValueError, RuntimeError) as error:
            wanted = "(training, test), each Images or arrays (integers, labels)"
            raise UserError(f"the loader of {self.name} must return {wanted}; got {type(parts).__name__}") from error
        if self.moments is not None and {len(one) for one in self.moments} != {train.integers.shape[1]}:
            told = f"{train.integers.shape[1]} channels, and moments of {len(self.moments[0])}"
            raise UserError(f"{self.name} has images of {told}; give a mean and a deviation for each channel")
        for images in (train, test):
            images.check(self.name, self.classes, train.integers.shape[1:])
        return train, test

    @cached_property
    def normalisation(self) -> Moments:
        return self.moments or moments_of(self.read()[0])

    @property
    def deviation(self) -> float:
        """The pixels' standard deviation, mean over channels."""
        return sum(self.normalisation[1]) / len(self.normalisation[1])

    def note(self, data_dir: Path | None = None) -> str:
        """Where the images of a run came from."""
        return self.source if data_dir is None else f"{self.name}, from {data_dir}"


def moments_of(images: Images) -> Moments:
    """Mean and standard deviation of the pixels in [0, 1], per channel, without a copy of all images in floats."""
    parts = [part.transpose(0, 1).flatten(1).double() / images.white for part in images.integers.split(1000)]
    count = sum(part.shape[1] for part in parts)
    mean = sum(part.sum(1) for part in parts) / count
    variance = sum((part - mean[:, None]).square().sum(1) for part in parts) / count
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def _read_digits() -> tuple[Images, Images]:
    """8 × 8 images of 0 to 16 grey levels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = Images(torch.from_numpy(images.astype(np.uint8)).view(-1, 1, 8, 8), torch.from_numpy(labels).long(), 16)
    split = train_test_split(np.arange(len(labels)), test_size=DIGITS_TEST, stratify=labels, random_state=0)
    return tuple(images.subset(torch.from_numpy(rows)) for rows in split)


def _cifar(name: str, classes: int, mean: tuple[float, ...], deviation: tuple[float, ...]) -> DataSet:
    """CIFAR, with moments as in the published FAST-BAT code."""
    return DataSet(
        name,
        classes,
        partial(cifar.read, name),
        f"{name}, the official binary archive",
        moments=(mean, deviation),
        augmentation="crop-flip",
        model="preactresnet18",
        settings={"eps": "8/255", "epochs": 30, "learning_rate": 0.2, "ema": 0.9995, "attacker": "wide"},
        takes_folder=True,
    )


DATASETS: dict[str, DataSet] = {  # those that `--dataset` names; add your own
    "digits": DataSet(
        "digits",
        10,
        _read_digits,
        "scikit-learn's digits",
        moments=((0.3053,), (0.3760,)),
        model="small-cnn",
        grade="quick",
        grade_images=100,
    ),
    "cifar10": _cifar("cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": _cifar("cifar100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
SHIPPED = frozenset(DATASETS)  # those that any program knows


def find(name: str) -> DataSet:
    """The data set of a name; UserError for one that is not in `DATASETS`."""
    if name not in DATASETS:
        advice = "one of your own is known only to the file that puts it into l2l_at.DATASETS: run that"
        raise UserError(f"--dataset must be one of {', '.join(DATASETS)}, got {name!r}; {advice}")
    return DATASETS[name]


@dataclass(frozen=True)
class Task:
    """A data set in three parts: to train on, to choose by, and to report."""

    data: DataSet
    train: Images
    held_out: Images
    test: Images

    def __post_init__(self) -> None:
        for part in (self.train, self.held_out, self.test):
            part.check(self.data.name, self.data.classes, self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.train.integers.shape[1:])


def load(
    data: str | DataSet, *, data_dir: Path | None = None, holdout: float = 0.1, seed: int = 0, subset: int | None = None
) -> Task:
    """A data set, or the one of that name, split for a run: the share `holdout` of the training images is to choose by,
    and of the rest `subset` are kept, both stratified and drawn by `seed`. The test images are always the same."""
    from sklearn.model_selection import train_test_split  # loads slowly

    data = find(data) if isinstance(data, str) else data
    if not 0 < holdout < 1 or seed < 0 or (subset is not None and subset < 1):
        given = f"holdout {holdout}, seed {seed}, subset {subset}"
        raise UserError(f"holdout lies between 0 and 1, seed is 0 or more and subset 1 or more; got {given}")
    train, test = data.read(None if data_dir is None else Path(data_dir))
    data = replace(data, moments=data.moments or moments_of(train))  # read again, a folder would be missing
    labels = train.labels.numpy()
    try:
        rows, held = train_test_split(np.arange(len(train)), test_size=holdout, stratify=labels, random_state=seed)
    except ValueError as error:
        raise UserError(f"--holdout leaves too few images of a class to split {len(train):,} images by it") from error
    if subset is not None and subset < len(rows):
        rows = np.random.default_rng(seed).permutation(rows)
        turn = np.empty(len(rows), dtype=np.int64)  # the first of each class, then the second of each class, and so on
        for label in np.unique(labels):
            members = labels[rows] == label
            turn[members] = np.arange(members.sum())
        rows = rows[np.argsort(turn, kind="stable")][:subset]
    return Task(data, train.subset(torch.from_numpy(rows)), train.subset(torch.from_numpy(held)), test)
