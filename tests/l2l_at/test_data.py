"""Data: splits, the official binary files and what is wrong with them, augmentation, batches that resume."""

import tarfile

import numpy as np
import pytest
import torch

from l2l_at import cifar, data
from l2l_experiment.errors import UserError


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Official layouts with few records, written into a folder."""
    small = {}
    generator = np.random.default_rng(0)
    for name, layout in cifar.LAYOUTS.items():
        small[name] = cifar.Layout(**{**layout.__dict__, "records": 40 if name == "cifar10" else 400, "md5": "0" * 32})
        folder = tmp_path / layout.folder
        folder.mkdir()
        for file in (*layout.train, *layout.test):
            count = small[name].records if file in layout.train else 200
            rows = generator.integers(0, 256, (count, layout.labels + cifar.PIXELS), dtype=np.uint8)
            rows[:, layout.labels - 1] = np.arange(count) % layout.classes
            (folder / file).write_bytes(rows.tobytes())
    monkeypatch.setattr(cifar, "LAYOUTS", small)
    monkeypatch.setattr(cifar, "TEST_RECORDS", 200)
    return tmp_path


def test_digits_have_one_test_set_and_stratified_splits_by_seed():
    first, second = data.load("digits", seed=0), data.load("digits", seed=1)
    assert (len(first.train), len(first.held_out), len(first.test)) == (1293, 144, 360)
    assert torch.equal(first.test.integers, second.test.integers)
    assert not torch.equal(first.held_out.integers, second.held_out.integers)
    assert first.held_out.labels.bincount().min() >= 13
    images, labels = first.train.take(slice(None))
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert labels.dtype == torch.int64
    assert first.shape == (1, 8, 8)
    everything = torch.cat([first.train.integers, first.held_out.integers, first.test.integers])
    assert everything.flatten(1).float().sum() == float(data.load_digits().images.sum())


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_from_a_folder_and_from_the_archive_are_the_same(name, classes, small):
    loose = data.load(name, data_dir=small, holdout=0.25)
    assert (loose.classes, loose.shape, loose.augment) == (classes, (3, 32, 32), True)
    layout = cifar.LAYOUTS[name]
    raw = np.frombuffer((small / layout.folder / layout.test[0]).read_bytes(), dtype=np.uint8)
    record = raw[: layout.labels + cifar.PIXELS]
    image, label = loose.test.take(slice(0, 1))
    assert int(label) == record[layout.labels - 1]
    torch.testing.assert_close(image[0].flatten(), torch.from_numpy(record[layout.labels :].copy()).float() / 255)
    packed = small / "packed"
    packed.mkdir()
    with tarfile.open(packed / layout.archive, "w:gz") as tar:
        tar.add(small / layout.folder, layout.folder)
    again = data.load(name, data_dir=packed, holdout=0.25)
    assert torch.equal(loose.train.integers, again.train.integers)
    inside = data.load(name, data_dir=small / layout.folder, holdout=0.25)
    assert torch.equal(loose.test.labels, inside.test.labels)


def test_a_cut_off_file_is_refused_by_name(small):
    file = small / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_3.bin has 122,919 bytes where 40 records need 122,920"):
        data.load("cifar10", data_dir=small)


def test_a_wrong_label_is_refused_by_name(small):
    file = small / "cifar-100-binary" / "test.bin"
    content = bytearray(file.read_bytes())
    content[1] = 100
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"test.bin holds the label 100 where labels lie below 100"):
        data.load("cifar100", data_dir=small)


def test_a_missing_file_or_folder_says_what_to_put_where(small, tmp_path):
    (small / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    with pytest.raises(UserError, match="test_batch.bin"):
        data.load("cifar10", data_dir=small)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"cifar-100-binary.tar.gz.*toronto"):
        data.load("cifar100", data_dir=empty)


def test_a_damaged_archive_is_refused(small, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="damaged"):
        data.load("cifar10", data_dir=packed)


def test_offline_without_data_says_what_to_put_where(monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(cifar.pooch, "retrieve", offline)
    with pytest.raises(UserError, match=r"cannot fetch .*cifar-10-binary.tar.gz \(no network\); put .* --data-dir"):
        data.load("cifar10")


def test_a_wrong_checksum_is_refused(monkeypatch, tmp_path):
    asked = []

    def forged(url, known_hash, **_):
        asked.append(known_hash)
        raise ValueError(f"MD5 hash of downloaded file does not match the known hash {known_hash}")

    monkeypatch.setattr(cifar.pooch, "retrieve", forged)
    with pytest.raises(UserError, match="known hash"):
        data.load("cifar100")
    assert asked == ["md5:" + cifar.LAYOUTS["cifar100"].md5]


def test_subset_is_stratified(small):
    task = data.load("cifar10", data_dir=small, holdout=0.5, subset=50)
    assert len(task.train) == 50
    assert (task.train.labels.bincount() == 5).all()


@pytest.mark.parametrize("count", [5, 276, 1290])
def test_subset_has_just_so_many_images(count):
    assert len(data.load("digits", subset=count).train) == count


@pytest.mark.parametrize("settings", [{"holdout": 0.001}])
def test_too_small_a_split_is_refused(small, settings):
    with pytest.raises(UserError, match="too few"):
        data.load("cifar10", data_dir=small, **settings)


def test_a_frame_moves_whole_images():
    torch.manual_seed(0)
    images = torch.rand(1000, 3, 8, 8)
    moved = data.take_from(images, data.random_frame(images))
    padded = torch.nn.functional.pad(images, (4,) * 4)
    flips, shifts = 0, set()
    for image, frame in zip(moved, padded, strict=True):
        found = [
            (flip, row, column)
            for flip in (False, True)
            for row in range(9)
            for column in range(9)
            if torch.equal(
                image,
                (
                    frame[:, row : row + 8, column : column + 8].flip(2)
                    if flip
                    else frame[:, row : row + 8, column : column + 8]
                ),
            )
        ]
        assert found
        flips += found[0][0]
        shifts.add(found[0][1:])
    assert 420 < flips < 580
    assert len(shifts) == 81


def test_laying_what_was_looked_at_changes_nothing():
    torch.manual_seed(0)
    padded, shown = torch.rand(50, 3, 16, 18), torch.rand(50, 3, 8, 10)
    frame = data.random_frame(shown)
    assert torch.equal(data.lay(padded, frame, data.look(padded, frame)), padded)
    laid = data.lay(padded, frame, shown)
    assert torch.equal(data.look(laid, frame), shown)
    changed = (laid != padded).flatten(2).sum(2)
    assert (changed == 80).all()  # all the rest is as it was


def test_an_unmoved_frame_shows_images_as_they_are():
    images = torch.rand(5, 3, 8, 10)
    assert torch.equal(data.take_from(images, data.unmoved(images).expand(5, -1, -1)), images)


def test_batches_see_every_image_and_resume():
    images = data.load("digits").train.subset(slice(0, 100))
    torch.manual_seed(0)
    batches = data.Batches(images, 25, augment=False)
    seen = torch.cat([batches.next().rows for _ in range(4)])
    assert sorted(seen.tolist()) == list(range(100))
    batches.next()
    tensors, meta = batches.state()
    other = data.Batches(images, 25, augment=False)
    other.restore(tensors, meta)
    assert torch.equal(batches.next().rows, other.next().rows)


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(UserError, match="--batch-size 101"):
        data.Batches(data.load("digits").train.subset(slice(0, 100)), 101, augment=False)


def test_unknown_data_set():
    with pytest.raises(UserError, match="digits, cifar10 or cifar100"):
        data.load("mnist")


def test_batches_are_augmented_as_their_frame_says():
    pixels = torch.arange(40 * 64).remainder(251).to(torch.uint8).view(40, 1, 8, 8)
    images = data.Images(pixels, torch.arange(40), 255)
    batch = data.Batches(images, 20, augment=True).next()
    plain = images.take(batch.rows)[0]
    assert not torch.equal(batch.images, plain)
    assert torch.equal(batch.images, data.take_from(plain, batch.frame))
