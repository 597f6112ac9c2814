"""Functions of tensors, compiled: the same arithmetic without the cost of starting each operation by itself.

A small network's update is dozens of operations of a few microseconds each, and Python spends longer on starting them
than they take."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from tqdm import tqdm

COMPILE_FAILED = "nothing can be compiled here, so training is slower; a C++ compiler such as g++ may be missing"


class Compiled:
    """`function(state, data)`, two lists of tensors to a tensor or a tuple of them, compiled for each shape of `data`.

    `function` is traced, so that it may differentiate inside and write into `state`, and must not branch on values.
    Numbers that change from call to call are tensors of shape (). Random draws are those of the function itself.
    Where it cannot be compiled, it says so, once for all, and calls the function."""

    warned = False

    def __init__(self, function: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor | tuple[Tensor, ...]]) -> None:
        self.function = function
        self.compiled_for: dict[tuple, Callable] = {}
        self.failed = False

    def __call__(self, state: Sequence[Tensor], data: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        if self.failed:
            return self.function(state, data)
        shapes = tuple(tensor.shape for tensor in data)
        if (call := self.compiled_for.get(shapes)) is None:
            call = self.compiled_for[shapes] = self._compile(state, data)
        return call(*state, *data)

    def _compile(self, state: Sequence[Tensor], data: Sequence[Tensor]) -> Callable:
        import torch._inductor  # seconds, which only what is compiled should take

        count = len(state)

        def flat(*tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
            return self.function(tensors[:count], tensors[count:])

        try:
            device = data[0].device
            with (
                _interrupts_blocked(),
                torch.random.fork_rng([device] if device.type == "cuda" else []),
                torch.device(device),
            ):
                copies = [tensor.detach().clone() for tensor in (*state, *data)]
                # torch.compile would check at every call what is fixed here: a tenth of a millisecond.
                call = torch._inductor.compile(make_fx(flat)(*copies), copies, options=OPTIONS)
                call(*copies)  # what fails, fails now
        except Exception as error:  # the compiler's own, of many kinds
            if not Compiled.warned:
                tqdm.write(f"note: {COMPILE_FAILED} ({str(error).strip().splitlines()[0]})", file=sys.stderr)
            self.failed = Compiled.warned = True
            return flat
        return call


OPTIONS = {"fallback_random": True, "compile_threads": 1}  # the draws of eager torch; no helpers that outlive an error


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, which would kill the compiler's subprocess, and turn off the argument validation of
    torch.distributions, whose data-dependent branches cannot be traced."""
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "pthread_sigmask")
    distribution = torch.distributions.Distribution
    validates = distribution._validate_args
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if main else None
    distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        distribution.set_default_validate_args(validates)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
