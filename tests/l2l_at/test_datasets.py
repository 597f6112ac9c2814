"""Data sets: what they know of themselves, splits, the official binary files and what is wrong with them."""

import tarfile
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from l2l_at import ATConfig, DataSet, Images, cifar, datasets, tuned
from l2l_experiment.errors import UserError


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Official layouts with few records, written into a folder."""
    small = {}
    generator = np.random.default_rng(0)
    for name, layout in cifar.LAYOUTS.items():
        small[name] = replace(layout, md5="0" * 32)
        folder = tmp_path / layout.folder
        folder.mkdir()
        for file in (*layout.train, layout.test):
            count = 400 // len(layout.train) if file in layout.train else 200
            rows = generator.integers(0, 256, (count, layout.labels + cifar.PIXELS), dtype=np.uint8)
            rows[:, layout.labels - 1] = np.arange(count) % layout.classes
            (folder / file).write_bytes(rows.tobytes())
    monkeypatch.setattr(cifar, "LAYOUTS", small)
    monkeypatch.setattr(cifar, "TRAIN_RECORDS", 400)
    monkeypatch.setattr(cifar, "TEST_RECORDS", 200)
    return tmp_path


def test_digits_have_one_test_set_and_stratified_splits_by_seed():
    first, second = datasets.load("digits", seed=0), datasets.load("digits", seed=1)
    assert (len(first.train), len(first.held_out), len(first.test)) == (1293, 144, 360)
    assert torch.equal(first.test.integers, second.test.integers)
    assert not torch.equal(first.held_out.integers, second.held_out.integers)
    assert first.held_out.labels.bincount().min() >= 13
    images, labels = first.train.take(slice(None))
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert (labels.dtype, first.shape) == (torch.int64, (1, 8, 8))
    everything = torch.cat([first.train.integers, first.held_out.integers, first.test.integers])
    assert len(torch.unique(everything.flatten(1), dim=0)) == 1797  # no image is lost, and none stands in two parts


def test_moments_are_those_of_the_training_images():
    train, _ = datasets.DATASETS["digits"].read()
    for known, found in zip(datasets.DATASETS["digits"].normalisation, datasets.moments_of(train), strict=True):
        assert found == pytest.approx(known, abs=0.005)
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(0, 256, (2500, 3, 4, 4), generator=generator, dtype=torch.uint8)
    images = Images(integers, torch.arange(2500) % 10)
    pixels = images.take(slice(None))[0].double().transpose(0, 1).flatten(1)
    data = DataSet("own", 10, lambda: (images, images), "mine")
    mean, deviation = data.normalisation
    assert mean == pytest.approx(pixels.mean(1).tolist(), rel=1e-6)
    assert deviation == pytest.approx(pixels.std(1, correction=0).tolist(), rel=1e-6)
    assert data.deviation == pytest.approx(sum(deviation) / 3)


def test_arrays_will_do_for_images():
    arrays = np.zeros((30, 1, 8, 8), dtype=np.uint8), np.arange(30) % 10
    task = datasets.load(DataSet("own", 10, lambda: (arrays, arrays), "mine"), holdout=0.4)
    assert (len(task.train), len(task.held_out), len(task.test), task.train.white) == (18, 12, 30, 255)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x / 255, y), "must be uint8"),
        (lambda x, y: (x[:, 0], y), "of shape"),
        (lambda x, y: (x, y[:-1]), "one an image"),
        (lambda x, y: (x, y + 1), r"must lie in \[0, 10\), got 1 to 10"),
        (lambda x, y: (x[:, :, :4], y), "alike"),
    ],
)
def test_images_that_are_none_are_refused(change, message):
    arrays = np.zeros((30, 1, 8, 8), dtype=np.uint8), np.arange(30) % 10
    with pytest.raises(UserError, match=message):
        DataSet("own", 10, lambda: (arrays, change(*arrays)), "mine").read()


@pytest.mark.parametrize("dataset", datasets.DATASETS)
def test_settings_of_a_data_set_are_settings(dataset):
    config = tuned(dataset, epochs=7)
    assert (config.dataset, config.model, config.epochs) == (dataset, datasets.DATASETS[dataset].model, 7)
    assert ATConfig(**config.__dict__) == config
    with pytest.raises(UserError, match="epsilon"):
        tuned(dataset, epsilon=1)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_from_a_folder_and_from_the_archive_are_the_same(name, classes, small):
    loose = datasets.load(name, data_dir=small, holdout=0.25)
    assert (loose.data.classes, loose.shape, loose.data.augmentation) == (classes, (3, 32, 32), "crop-flip")
    assert (loose.data.note(small), loose.data.note()) == (
        f"{name}, from {small}",
        f"{name}, the official binary archive",
    )
    layout = cifar.LAYOUTS[name]
    raw = np.frombuffer((small / layout.folder / layout.test).read_bytes(), dtype=np.uint8)
    record = raw[: layout.labels + cifar.PIXELS]
    image, label = loose.test.take(slice(0, 1))
    assert int(label) == record[layout.labels - 1]
    torch.testing.assert_close(image[0].flatten(), torch.from_numpy(record[layout.labels :].copy()).float() / 255)
    packed = small / "packed"
    packed.mkdir()
    with tarfile.open(packed / layout.archive, "w:gz") as tar:
        tar.add(small / layout.folder, layout.folder)
    again = datasets.load(name, data_dir=packed, holdout=0.25)
    assert torch.equal(loose.train.integers, again.train.integers)
    inside = datasets.load(name, data_dir=small / layout.folder, holdout=0.25)
    assert torch.equal(loose.test.labels, inside.test.labels)


def test_damaged_files_are_refused_by_name(small, tmp_path):
    file = small / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_3.bin has 245,839 bytes where 80 records need 245,840"):
        datasets.load("cifar10", data_dir=small)
    file = small / "cifar-100-binary" / "test.bin"
    content = bytearray(file.read_bytes())
    content[1] = 100
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"test.bin holds the label 100 where labels lie below 100"):
        datasets.load("cifar100", data_dir=small)
    file.unlink()
    with pytest.raises(UserError, match=r"test.bin"):
        datasets.load("cifar100", data_dir=small)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"cifar-100-binary.tar.gz.*toronto"):
        datasets.load("cifar100", data_dir=empty)
    (empty / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="damaged"):
        datasets.load("cifar10", data_dir=empty)


def test_files_that_cannot_be_fetched_say_what_to_put_where(monkeypatch):
    offline = Mock(side_effect=OSError("no network"))
    monkeypatch.setattr(cifar.pooch, "retrieve", offline)
    with pytest.raises(UserError, match=r"cannot fetch .*cifar-10-binary.tar.gz \(no network\); put .* --data-dir"):
        datasets.load("cifar10")
    assert offline.call_args.args[1] == "md5:" + cifar.LAYOUTS["cifar10"].md5


@pytest.mark.parametrize("count", [5, 50, 276, 1290])
def test_a_subset_is_stratified(count):
    labels = datasets.load("digits", subset=count).train.labels
    assert len(labels) == count
    assert labels.bincount(minlength=10).max() - labels.bincount(minlength=10).min() <= (1 if count < 1000 else 10)


def test_too_small_a_split_is_refused():
    with pytest.raises(UserError, match="too few"):
        datasets.load("digits", holdout=0.001)
