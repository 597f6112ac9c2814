"""A lock on a file, by which one process keeps others from training in the same folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"  # in a run's folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock within the block; BlockingIOError if another process holds it.

    Does nothing where the system or the file system knows no locks.
    """
    with path.open("a") as file:  # not for reading alone: network file systems then refuse the lock
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:  # the second on some network file systems
                raise BlockingIOError(f"{path} is locked") from error
            except OSError:
                pass
        yield


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock."""
    if not path.exists():
        return False
    try:
        with lock(path):
            return False
    except BlockingIOError:
        return True
