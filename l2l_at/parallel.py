"""Several processes that train one classifier, one a device: each sees its share of every batch (`torchrun`).

All hold the same weights, attacker, memory and random draws, and do the same; what they do not share is a batch's
images, and gradients and batch normalisation's moments are averaged. The first process alone measures, logs and saves,
and tells the others before every step whether it goes on. Alone, every function here does nothing."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from l2l_at.batches import Batch
from l2l_experiment.errors import UserError

PATIENCE = timedelta(hours=4)  # the first process fetches data, measures and saves while the others wait


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Within the block this process belongs with those that torchrun started, if any; if the first fails, all end."""
    if not (dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1):
        yield
        return
    here = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if here >= torch.cuda.device_count():
            raise UserError(f"there are {torch.cuda.device_count()} GPUs; start as many processes on this machine")
        torch.cuda.set_device(here)
    # Control messages use gloo: NCCL would time out while the first process evaluates and saves.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    except UserError:  # the first process raises between two steps, when the others wait for its broadcast
        if rank() == 0:
            with suppress(RuntimeError):  # the others have met it as well, and are gone
                told_by_first(False)
        raise
    leave()


def leave() -> None:
    """Go on alone: the other processes are no longer waited for."""
    if dist.is_initialized():
        dist.destroy_process_group()
        # Gloo's threads let go of the last message's tensors on their own, and abort a process that ends before that.
        time.sleep(0.5)


def rank() -> int:
    """This process's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def told_by_first(value: bool) -> bool:
    """What the first process says."""
    said = torch.tensor(int(value))
    if count() > 1:
        dist.broadcast(said, 0)
    return bool(said)


@contextmanager
def first() -> Iterator[None]:
    """The block runs in the first process, then in the others: a file is fetched once. If it fails, they end."""
    if rank() and not told_by_first(True):
        sys.exit(0)
    yield
    if rank() == 0:
        told_by_first(True)


def check(batch_size: int, *, alone: bool) -> None:
    """UserError if several processes cannot train by these settings; `alone`: the method needs whole batches."""
    if count() > 1 and alone:
        raise UserError("this method carries its perturbation from batch to batch and runs in one process only")
    if batch_size % count():
        raise UserError(f"--batch-size {batch_size} is the whole batch and must be a multiple of {count()} processes")


def share(batch: Batch) -> Batch:
    if count() == 1:
        return batch
    return Batch(*(None if part is None else part[rank() :: count()] for part in batch))


def gather(tensor: Tensor) -> Tensor:
    """The tensors of all processes, one after the other along the first dimension."""
    if count() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def average_gradients(module: nn.Module) -> None:
    _average([p.grad for p in module.parameters() if p.grad is not None])


def average_gradients_to_come(module: nn.Module) -> None:
    """Have every gradient of a module's weights averaged where it arises, whoever asks for it."""
    if count() > 1:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_hook(mean)


def average_moments(module: nn.Module) -> None:
    """Average the running moments of batch normalisation: each process has seen those of its share."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    _average([moment for norm in norms for moment in (norm.running_mean, norm.running_var)])


def mean(tensor: Tensor) -> Tensor:
    """The mean over processes, without a derivative."""
    if count() == 1:
        return tensor.detach()
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / count()


@torch.no_grad()
def _average(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over processes, all in one message."""
    if count() == 1 or not tensors:
        return
    flat = mean(torch.cat([tensor.flatten() for tensor in tensors]))
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def same_draws(device: torch.device) -> None:
    """Let every process's device draw as the first one's does; checkpoints hold the generators of that process."""
    if count() > 1 and device.type == "cuda":
        state = torch.cuda.get_rng_state(device).to(device)
        dist.broadcast(state, 0)
        torch.cuda.set_rng_state(state.cpu(), device)
