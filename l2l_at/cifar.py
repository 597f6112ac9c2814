"""CIFAR-10 and CIFAR-100 in the official binary form: found or fetched, checked, read. No pickle is opened."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch

from l2l_experiment.errors import UserError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """One data set's files. A record is its labels, a byte each, and 3072 bytes of pixels."""

    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: int  # of each image; the last is its class
    classes: int

    @property
    def url(self) -> str:
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"


# Checksums as on https://www.cs.toronto.edu/~kriz/cifar.html
LAYOUTS = {
    "cifar10": Layout(
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        labels=1,
        classes=10,
    ),
    "cifar100": Layout(
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        labels=2,
        classes=100,
    ),
}
TRAIN_RECORDS, TEST_RECORDS = 50_000, 10_000

Arrays = tuple[np.ndarray, np.ndarray]


def read(name: str, data_dir: Path | None = None) -> tuple[Arrays, Arrays]:
    """`((images, labels), (images, labels))` of training and test set, uint8 of shape (n, 3, 32, 32) and int64. Without
    `data_dir` the archive is fetched into a cache and its checksum compared; with it, the files are read from there:
    unpacked, in the official folder, or in the archive. UserError names the file that is missing or wrong."""
    layout = LAYOUTS[name]
    source = _download(layout) if data_dir is None else _locate(layout, data_dir)
    parts = [_read_file(source, file, layout, TRAIN_RECORDS // len(layout.train)) for file in layout.train]
    train = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return train, _read_file(source, layout.test, layout, TEST_RECORDS)


def _download(layout: Layout) -> Path:
    known, cache = f"md5:{layout.md5}", pooch.os_cache("l2l")
    try:
        return Path(pooch.retrieve(layout.url, known, fname=layout.archive, path=cache, progressbar=True))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot fetch {layout.url} ({str(error).splitlines()[0]}); put {layout.archive}, or the folder "
            f"{layout.folder} unpacked from it, into a folder and name that with --data-dir"
        ) from error


def _locate(layout: Layout, data_dir: Path) -> Path:
    for folder in (data_dir / layout.folder, data_dir):
        if (folder / layout.train[0]).is_file():
            return folder
    if (archive := data_dir / layout.archive).is_file():
        return archive
    files = f"neither {layout.folder}/ nor {layout.archive}"
    raise UserError(f"--data-dir {data_dir} holds {files}; the official archive is at {layout.url}")


def _read_file(source: Path, file: str, layout: Layout, records: int) -> Arrays:
    """Images and labels of one file in a folder or an archive, whose size is looked at before its content."""
    size = records * (layout.labels + PIXELS)
    try:
        if source.is_dir():
            found = (source / file).stat().st_size
            raw = np.fromfile(source / file, dtype=np.uint8, count=size)
        else:
            with tarfile.open(source) as tar:
                member = tar.getmember(f"{layout.folder}/{file}")
                found = member.size
                raw = np.frombuffer(tar.extractfile(member).read(size if found == size else 0), dtype=np.uint8)
    except (KeyError, AttributeError):  # there is none of that name, or it is a folder
        raise UserError(f"{source} holds no file {layout.folder}/{file}; fetch it again from {layout.url}") from None
    except (OSError, EOFError, tarfile.TarError) as error:
        what = f"cannot read {source / file}" if source.is_dir() else f"{source} is damaged"
        raise UserError(f"{what} ({error}); fetch it again from {layout.url}") from error
    wrong = f"it is damaged, or not a file of {layout.folder}"
    if found != size or raw.size != size:
        raise UserError(f"{file} has {found:,} bytes where {records:,} records need {size:,}; {wrong}")
    rows = raw.reshape(records, -1)
    labels = rows[:, layout.labels - 1].astype(np.int64)
    if labels.max() >= layout.classes:
        raise UserError(f"{file} holds the label {labels.max()} where labels lie below {layout.classes}; {wrong}")
    return rows[:, layout.labels :].copy().reshape(-1, 3, 32, 32), labels
