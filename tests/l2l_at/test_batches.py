"""Batches that resume, and the augmentation."""

import copy
import itertools

import pytest
import torch

from l2l_at import batches
from l2l_at.datasets import Images, load
from l2l_experiment.errors import UserError


@pytest.mark.parametrize("flip", [True, False])
def test_a_frame_moves_whole_images(flip):
    torch.manual_seed(0)
    images = torch.rand(1000, 3, 8, 8)
    moved = batches.apply_crop(images, batches.random_crop_indices(images, flip=flip))
    padded = torch.nn.functional.pad(images, (4,) * 4)
    flips, shifts = 0, set()
    found = torch.zeros(1000, dtype=torch.bool)
    for r, c, flipped in itertools.product(range(9), range(9), (False, True)):
        crop = padded[:, :, r : r + 8, c : c + 8]
        same = (moved == (crop.flip(3) if flipped else crop)).flatten(1).all(1)
        found |= same
        flips += flipped * int(same.sum())
        shifts |= {(r, c)} if same.any() else set()
    assert found.all()
    assert 420 < flips < 580 if flip else not flips
    assert len(shifts) == 81


def test_writing_what_was_seen_changes_nothing():
    torch.manual_seed(0)
    padded, shown = torch.rand(50, 3, 16, 18), torch.rand(50, 3, 8, 10)
    frame = batches.random_crop_indices(shown)
    assert torch.equal(batches.scatter_crop(padded, frame, batches.gather_crop(padded, frame)), padded)
    written = batches.scatter_crop(padded, frame, shown)
    assert torch.equal(batches.gather_crop(written, frame), shown)
    changed = (written != padded).flatten(2).sum(2)
    assert (changed == 80).all()  # all the rest is as it was
    uncropped = batches.crop_indices_of(batches.Batch(shown, torch.arange(50)))
    assert torch.equal(batches.apply_crop(shown, uncropped), shown)


def test_batches_see_every_image_and_resume():
    images = load("digits").train.subset(slice(0, 100))
    torch.manual_seed(0)
    first, second = (batches.Batches(images, 25) for _ in range(2))
    seen = torch.cat([first.next().rows for _ in range(4)])
    assert sorted(seen.tolist()) == list(range(100))
    first.next()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(first.next().rows, second.next().rows)
    with pytest.raises(UserError, match="--batch-size 101"):
        batches.Batches(images, 101)


def test_batches_are_augmented_as_their_frame_says():
    pixels = torch.arange(40 * 64).remainder(251).to(torch.uint8).view(40, 1, 8, 8)
    images = Images(pixels, torch.arange(40))
    batch = batches.Batches(images, 20, "crop-flip").next()
    plain = images.take(batch.rows)[0]
    assert not torch.equal(batch.images, plain)
    assert torch.equal(batch.images, batches.apply_crop(plain, batch.frame))
