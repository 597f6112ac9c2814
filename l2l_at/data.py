"""Data sets as one block of integers on the device, and batches of images in [0, 1] from it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import pad

from l2l_at import cifar
from l2l_experiment.errors import UserError

Dataset = Literal["digits", "cifar10", "cifar100"]
PADDING = 4  # pixels by which augmentation may shift an image
DIGITS_TEST = 360  # of 1797, split off by one fixed seed: every run and every table has the same test set


@dataclass(frozen=True)
class Images:
    """Images as integers, uint8 of shape (n, channels, height, width), and their labels, int64 of shape (n,)."""

    integers: Tensor
    labels: Tensor
    white: int
    """The integer that stands for 1."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images in [0, 1], float32, and labels of some rows."""
        return self.integers[rows].float() / self.white, self.labels[rows]

    def subset(self, rows: Tensor | slice) -> "Images":
        """Some of the images, as a set of their own."""
        return replace(self, integers=self.integers[rows], labels=self.labels[rows])

    def to(self, device: torch.device) -> "Images":
        """The same on another device."""
        return replace(self, integers=self.integers.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Task:
    """A data set in three parts: to train on, to choose by, and to report."""

    name: str
    classes: int
    train: Images
    held_out: Images
    test: Images
    augment: bool
    """Whether training images are cropped and flipped."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return tuple(self.train.integers.shape[1:])


def load(
    name: Dataset, *, data_dir: Path | None = None, holdout: float = 0.1, seed: int = 0, subset: int | None = None
) -> Task:
    """A data set; `holdout` is the share of the training images, stratified and drawn by `seed`, to choose by.

    With `subset` only so many training images are kept, stratified and drawn by `seed`. The test set is always the
    same: the official one, or 360 of scikit-learn's 1797 digits (8 × 8, from 0 to 16 grey levels).
    """
    if name == "digits":
        digits = load_digits()
        images, labels = digits.images[:, None].astype(np.uint8), digits.target.astype(np.int64)
        rows = np.arange(len(labels))
        train_rows, test_rows = train_test_split(rows, test_size=DIGITS_TEST, stratify=labels, random_state=0)
        train, test = (images[train_rows], labels[train_rows]), (images[test_rows], labels[test_rows])
        white, classes = 16, 10
    elif name in cifar.LAYOUTS:
        train, test = cifar.read(name, data_dir)
        white, classes = 255, cifar.LAYOUTS[name].classes
    else:
        raise UserError(f"--dataset must be digits, cifar10 or cifar100, got {name!r}")
    rows = np.arange(len(train[1]))
    rows, held_rows = _split(rows, train[1], holdout, seed, "--holdout")
    if subset is not None and subset < len(rows):
        rows = _some(rows, train[1][rows], subset, seed)
    return Task(
        name=name,
        classes=classes,
        train=_images(train, rows, white),
        held_out=_images(train, held_rows, white),
        test=_images(test, slice(None), white),
        augment=name != "digits",
    )


def _split(rows: np.ndarray, labels: np.ndarray, share: float, seed: int, flag: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        kept, other = train_test_split(rows, test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise UserError(f"{flag} leaves too few images of a class to split {len(rows):,} images by it") from error
    return kept, other


def _some(rows: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many of the rows, with every class as often as any other as far as that goes."""
    order = np.random.default_rng(seed).permutation(len(rows))
    # The first of each class, then the second of each class, and so on.
    turn = np.empty(len(rows), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        turn[members] = np.arange(len(members))
    return rows[order[np.argsort(turn[order], kind="stable")][:count]]


def _images(arrays: tuple[np.ndarray, np.ndarray], rows: np.ndarray | slice, white: int) -> Images:
    images, labels = arrays
    # A copy of its own: the arrays of a binary file are a read-only view of it.
    return Images(torch.from_numpy(images[rows].copy()), torch.from_numpy(labels[rows].copy()), white)


class Batch(NamedTuple):
    """What a method sees at once."""

    images: Tensor
    """In [0, 1], float32, shape (batch, channels, height, width)."""
    labels: Tensor
    """int64, shape (batch,)."""
    rows: Tensor | None = None
    """Which training images these are, int64, shape (batch,); None: they are none of them."""
    frame: Tensor | None = None
    """How they were moved by augmentation: a `random_frame`, or None: not at all."""


class Batches:
    """Batches of a training set, epoch after epoch, without end; an incomplete last batch of an epoch is left out.

    Order and augmentation are drawn from torch's global generators, so that a checkpoint of those and of `state`
    continues with the very next batch.
    """

    def __init__(self, images: Images, size: int, *, augment: bool) -> None:
        if size > len(images):
            raise UserError(f"--batch-size {size} is more than the {len(images):,} training images")
        self.images, self.size, self.augment = images, size, augment
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self.images) // self.size

    def next(self) -> Batch:
        """The next batch."""
        if self.position + self.size > len(self.order):
            self.order, self.position = torch.randperm(len(self.images)), 0
        rows = self.order[self.position : self.position + self.size].to(self.images.labels.device)
        self.position += self.size
        images, labels = self.images.take(rows)
        if not self.augment:
            return Batch(images, labels, rows)
        frame = random_frame(images)
        return Batch(take_from(images, frame), labels, rows, frame)

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Tensors and JSON values that `restore` takes."""
        return {"order": self.order}, {"position": self.position}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, int]) -> None:
        """Continue from a `state`."""
        self.order, self.position = tensors["order"], meta["position"]


def random_frame(images: Tensor) -> Tensor:
    """A shift of each image by up to `PADDING` pixels, and a flip from left to right by chance.

    Says for each pixel which one of the image, padded by `PADDING` and flattened, it is: int64, (batch, height, width).
    """
    count, _, height, width = images.shape
    shift = torch.randint(0, 2 * PADDING + 1, (2, count), device=images.device)
    flip = torch.rand(count, 1, device=images.device) < 0.5
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = torch.where(flip, width - 1 - columns, columns) + shift[1, :, None]
    rows = torch.arange(height, device=images.device) + shift[0, :, None]
    return rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]


def unmoved(images: Tensor) -> Tensor:
    """The frame that shows images as they are, shape (1, height, width)."""
    height, width = images.shape[-2:]
    rows, columns = (torch.arange(size, device=images.device) + PADDING for size in (height, width))
    return (rows[:, None] * (width + 2 * PADDING) + columns)[None]


def take_from(images: Tensor, frame: Tensor) -> Tensor:
    """Images as a frame shows them, zero where it looks past their edge; of the same shape."""
    return look(pad(images, (PADDING,) * 4), frame)


def look(padded: Tensor, frame: Tensor) -> Tensor:
    """What a frame shows of padded images of shape (batch, channels, height + 2 PADDING, width + 2 PADDING)."""
    return padded.flatten(2).gather(2, _places(padded, frame)).unflatten(2, frame.shape[1:])


def lay(padded: Tensor, frame: Tensor, shown: Tensor) -> Tensor:
    """Padded images with what a frame shows of them replaced; the inverse of `look`, pixel by pixel."""
    flat = padded.flatten(2).scatter(2, _places(padded, frame), shown.flatten(2))
    return flat.unflatten(2, padded.shape[2:])


def _places(padded: Tensor, frame: Tensor) -> Tensor:
    return frame.flatten(1)[:, None].expand(*padded.shape[:2], -1)
