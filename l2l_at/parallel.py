"""Several processes that train one classifier, one a device: each sees its share of every batch (`torchrun`).

All hold the same weights, attacker, memory and random draws, and do the same; what they do not share is a batch's
images, and gradients and batch normalisation's moments are averaged. The first process alone measures, logs and saves.
Alone, every function here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from l2l_at.data import Batch
from l2l_experiment.errors import UserError


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Within the block this process belongs with those that torchrun has started, if it has."""
    if dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1:
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        leave()


def leave() -> None:
    """Go on alone: the other processes are no longer waited for."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def first() -> Iterator[None]:
    """The block runs in the first process, and then in the others: a file is fetched once."""
    if rank():
        dist.barrier()
    yield
    if count() > 1 and not rank():
        dist.barrier()


def check(batch_size: int, replays: int) -> None:
    """UserError if several processes cannot train by these settings."""
    if count() > 1 and replays > 1:
        raise UserError("--method free keeps a batch over several steps and runs in one process only")
    if batch_size % count():
        raise UserError(f"--batch-size {batch_size} is the whole batch and must be a multiple of {count()} processes")


def share(batch: Batch) -> Batch:
    """This process's share of a batch."""
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
    """Have every gradient of a module's weights averaged over the processes where it arises, whoever asks for it."""
    if count() > 1:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_hook(_mean)


@torch.no_grad()
def average_moments(module: nn.Module) -> None:
    """Average the running moments of batch normalisation: each process has seen those of its share."""
    if count() > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(_mean(buffer))


def _mean(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / count()


def of_first(value: bool, device: torch.device) -> bool:
    """What the first process says."""
    if count() == 1:
        return value
    said = torch.tensor(int(value), device=device)
    dist.broadcast(said, 0)
    return bool(said)


def same_draws(device: torch.device) -> None:
    """Let every process's device draw as the first one's does; checkpoints hold the generators of that process."""
    if count() > 1 and device.type == "cuda":
        state = torch.cuda.get_rng_state(device).to(device)
        dist.broadcast(state, 0)
        torch.cuda.set_rng_state(state.cpu(), device)
