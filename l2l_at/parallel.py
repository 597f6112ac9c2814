"""Data-parallel training with torchrun: one process per device, each with its shard of every batch.

Weights, attacker, attack memory and random draws are the same in all processes; gradients and batch norm's running
statistics are averaged. Only rank 0 evaluates, logs and saves; before every step it broadcasts whether training goes
on. In a single process every function here is a no-op."""

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
    """Join torchrun's process group within the block, if there is one. If rank 0 raises UserError, all exit."""
    if not (dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1):
        yield
        return
    here = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if device.index is not None:
            raise UserError(f"torchrun gives each process a GPU of its own: --device cuda, not {device}")
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
                broadcast_bool(False)
        raise
    destroy_group()


def destroy_group() -> None:
    """Leave the process group; the other processes are no longer waited for."""
    if dist.is_initialized():
        dist.destroy_process_group()
        # Gloo's threads let go of the last message's tensors on their own, and abort a process that ends before that.
        time.sleep(0.5)


def rank() -> int:
    """This process's number; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast_bool(value: bool) -> bool:
    """The value that rank 0 passes, in every process."""
    said = torch.tensor(int(value))
    if world_size() > 1:
        dist.broadcast(said, 0)
    return bool(said)


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block on rank 0 first, then on the others: files are downloaded once. If rank 0 fails, they exit."""
    if rank() and not broadcast_bool(True):
        sys.exit(0)
    yield
    if rank() == 0:
        broadcast_bool(True)


def check(batch_size: int, *, single_process: bool) -> None:
    """UserError if several processes cannot train so; `single_process`: the method needs whole batches."""
    if world_size() > 1 and single_process:
        raise UserError("this method carries its perturbation from batch to batch and runs in one process only")
    if batch_size % world_size():
        raise UserError(f"--batch-size {batch_size} is the whole batch: make it a multiple of {world_size()} processes")


def shard(batch: Batch) -> Batch:
    if world_size() == 1:
        return batch
    return Batch(*(None if part is None else part[rank() :: world_size()] for part in batch))


def gather(tensor: Tensor) -> Tensor:
    """The tensors of all processes, one after the other along the first dimension."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def average_gradients(module: nn.Module) -> None:
    _average([p.grad for p in module.parameters() if p.grad is not None])


def register_gradient_averaging(module: nn.Module) -> None:
    """Register hooks that average all gradients of the module's weights over processes, in any backward pass."""
    if world_size() > 1:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_hook(mean)


def average_batch_norm_stats(module: nn.Module) -> None:
    """Average batch norm's running statistics: each process has seen those of its shard."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    _average([moment for norm in norms for moment in (norm.running_mean, norm.running_var)])


def mean(tensor: Tensor) -> Tensor:
    """The mean over processes, without a derivative."""
    if world_size() == 1:
        return tensor.detach()
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world_size()


@torch.no_grad()
def _average(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over processes, all in one message."""
    if world_size() == 1 or not tensors:
        return
    flat = mean(torch.cat([tensor.flatten() for tensor in tensors]))
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def sync_rng(device: torch.device) -> None:
    """Set every device's random generator to rank 0's, the one that checkpoints hold."""
    if world_size() > 1 and device.type == "cuda":
        state = torch.cuda.get_rng_state(device).to(device)
        dist.broadcast(state, 0)
        torch.cuda.set_rng_state(state.cpu(), device)
