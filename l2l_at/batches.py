"""Batches of images in [0, 1] from a data set on the device, and the augmentation that moves them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from l2l_at.datasets import Augmentation, Images
from l2l_experiment.errors import UserError

PADDING = 4  # pixels by which augmentation may shift an image


class Batch(NamedTuple):
    """What a method sees at once."""

    images: Tensor  # In [0, 1], float32, shape (batch, channels, height, width)
    labels: Tensor  # int64, shape (batch,)
    rows: Tensor | None = None  # Which training images these are, int64, shape (batch,); None: they are none of them
    frame: Tensor | None = None  # How they were moved by augmentation: a `random_frame`, or None: not at all


class Batches:
    """Endless shuffled minibatches of a training set; an epoch's incomplete last batch is dropped. Random numbers come
    from torch's global generators: with their state and `state_dict` restored, the next batch is the same."""

    def __init__(self, images: Images, size: int, augmentation: Augmentation = "none") -> None:
        if size > len(images):
            raise UserError(f"--batch-size {size} is more than the {len(images):,} training images")
        self.images, self.size, self.augmentation = images, size, augmentation
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0

    @property
    def per_epoch(self) -> int:
        return len(self.images) // self.size

    def next(self) -> Batch:
        if self.position + self.size > len(self.order):
            self.order, self.position = torch.randperm(len(self.images)), 0
        rows = self.order[self.position : self.position + self.size].to(self.images.labels.device)
        self.position += self.size
        images, labels = self.images.take(rows)
        if self.augmentation == "none":
            return Batch(images, labels, rows)
        frame = random_crop_indices(images, flip=self.augmentation == "crop-flip")
        return Batch(apply_crop(images, frame), labels, rows, frame)

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.position = state["order"], state["position"]


def random_crop_indices(images: Tensor, *, flip: bool = True) -> Tensor:
    """Random crop of each image padded by `PADDING`, and, with `flip`, a random horizontal flip, as gather indices: for
    each output pixel its index in the flattened padded image; int64, (batch, height, width)."""
    count, _, height, width = images.shape
    shift = torch.randint(0, 2 * PADDING + 1, (2, count), device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if flip:
        flipped = torch.rand(count, 1, device=images.device) < 0.5
        columns = torch.where(flipped, width - 1 - columns, columns)
    columns = columns + shift[1, :, None]
    rows = torch.arange(height, device=images.device) + shift[0, :, None]
    return rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]


def crop_indices_of(batch: Batch) -> Tensor:
    """How a batch was moved; if it was not, the frame that shows its images as they are."""
    if batch.frame is not None:
        return batch.frame
    images, (height, width) = batch.images, batch.images.shape[-2:]
    rows, columns = (torch.arange(size, device=images.device) + PADDING for size in (height, width))
    return (rows[:, None] * (width + 2 * PADDING) + columns).expand(len(images), -1, -1)


def apply_crop(images: Tensor, frame: Tensor) -> Tensor:
    """Images as a frame shows them, zero where it looks past their edge; of the same shape."""
    return gather_crop(pad(images, (PADDING,) * 4), frame)


def gather_crop(padded: Tensor, frame: Tensor) -> Tensor:
    """What a frame shows of padded images of shape (batch, channels, height + 2 PADDING, width + 2 PADDING)."""
    return padded.flatten(2).gather(2, _gather_indices(padded, frame)).unflatten(2, frame.shape[1:])


def scatter_crop(padded: Tensor, frame: Tensor, shown: Tensor) -> Tensor:
    """Padded images with what a frame shows of them replaced; the inverse of `gather_crop`, pixel by pixel."""
    flat = padded.flatten(2).scatter(2, _gather_indices(padded, frame), shown.flatten(2))
    return flat.unflatten(2, padded.shape[2:])


def _gather_indices(padded: Tensor, frame: Tensor) -> Tensor:
    return frame.flatten(1)[:, None].expand(*padded.shape[:2], -1)
