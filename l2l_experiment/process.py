"""Settings of the whole process that make training on a CPU fast; a command makes them before it trains."""

import contextlib
import ctypes

import torch


def configure(threads: int = 1) -> None:
    """Give torch so many threads, and let freed memory stay with the process.

    Networks as small as those of imitation lose time with more than one thread. glibc hands freed memory back to the
    kernel, which faults it in again at the next step: a fifth of a small convolutional network's time. With another C
    library the second half does nothing."""
    torch.set_num_threads(threads)
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((-3, 32 << 20), (-1, 1_000_000_000)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            library.mallopt(parameter, value)
