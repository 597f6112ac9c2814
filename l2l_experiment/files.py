"""Files that are either the old ones or the new ones, never something between."""

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`; whoever reads, even after a crash, finds the old content or the new.

    The temporary name lies in the same folder, because a rename is atomic only within one file system, and says nothing
    of the file's own name, because TensorBoard opens whatever has "tfevents" in its name.
    """
    temporary = path.with_name(f".tmp_{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold what was written at `path`: a file's content, or the names in a folder."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and writes its names through
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
