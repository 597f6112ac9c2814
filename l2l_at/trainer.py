"""The two players and everything that changes while they train: one object that steps, saves and restores."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from l2l_at import methods, models
from l2l_at.config import ATConfig
from l2l_at.data import Batch, Batches, Task
from l2l_experiment.checkpoint import join, rng_state, set_rng_state, split
from l2l_experiment.errors import UserError


class Trainer:
    """A classifier and the method that trains it.

    `model` is the classifier as it is now, `evaluated` the one to judge and export: its average, if there is one.
    """

    def __init__(self, config: ATConfig, task: Task) -> None:
        config.threat.check(task.shape)
        self.config, self.device = config, resolve_device(config.device)
        torch.manual_seed(config.seed)
        self.model = models.build(config.model, task.name, task.classes).to(self.device)
        if task.name != "digits":
            self.model.to(memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if config.compile else self.model
        self.method = methods.make(config, task.shape).to(self.device)
        self.batches = Batches(task.train.to(self.device), config.batch_size, augment=task.augment)
        self.total = config.epochs * self.batches.per_epoch
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=config.rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.schedule = make_schedule(self.optimizer, config, self.total)
        # The average takes in the buffers too: the running moments must fit the averaged weights.
        self.average = AveragedModel(self.model, avg_fn=warmed_up(config.ema), use_buffers=True) if config.ema else None
        self.step_count = 0
        self.last: tuple[Batch, Tensor] | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The classifier to judge: averaged, if there is an average."""
        return self.model if self.average is None else self.average.module

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step_count / self.batches.per_epoch

    def step(self) -> dict[str, float | Tensor]:
        """One batch: the classifier's step, then the attacker's learning; figures for the log."""
        batch = self.batches.next()
        self.model.train()
        with self.autocast():
            answer = self.method.loss(self.forward, batch)
        self.optimizer.zero_grad(set_to_none=True)
        answer.loss.backward()
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        with self.autocast():
            learned = self.method.improve(self.forward, batch)
        self.step_count += 1
        self.last = batch, answer.delta
        own = {f"follower/{name}": value for name, value in (answer.figures | learned).items()}
        return {"train/loss": answer.loss.detach()} | own

    def autocast(self) -> AbstractContextManager:
        """Mixed precision as configured."""
        precision = self.config.precision
        enabled = precision == "bf16" or (precision == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def state(self) -> tuple[dict, dict]:
        """Everything a resumed run needs, as tensors and JSON values, between two steps."""
        method, order = self.method.state(), self.batches.state()
        tree = {
            "model": self.model.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.last_epoch,  # the rates themselves stand in the optimiser's groups
        }
        random = rng_state()
        tensors, meta = split(tree)
        return (
            {"players": tensors, "method": method[0], "batches": order[0], "rng": random[0]},
            {
                "players": meta,
                "method": method[1],
                "batches": order[1],
                "rng": random[1],
                "step": self.step_count,
            },
        )

    def restore(self, tensors: dict, meta: dict) -> None:
        """Continue from a `state`, on the CPU bit by bit."""
        try:
            tree = join(tensors["players"], meta["players"])
            self.model.load_state_dict(tree["model"])
            if self.average is not None:
                self.average.load_state_dict(tree["average"])
            self.optimizer.load_state_dict(tree["optimizer"])
            self.schedule.last_epoch = tree["schedule"]
            self.method.restore(tensors["method"], meta["method"])
            self.batches.restore(tensors["batches"], meta["batches"])
            self.step_count = meta["step"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"the checkpoint does not fit this run's settings ({str(error).splitlines()[0]}); "
                "resume with the config.yaml that made it"
            ) from error
        set_rng_state(tensors["rng"], meta["rng"])


def make_schedule(
    optimizer: torch.optim.Optimizer, config: ATConfig, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over `total` steps."""
    if config.schedule == "multi-step":
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [total // 2, total * 3 // 4], gamma=0.1)
    # torch cycles the momentum along with the rate unless told not to.
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=total + 1, cycle_momentum=False)


def warmed_up(decay: float):
    """An averaging function whose decay rises from 0.1 to `decay`: early weights are forgotten soon."""

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        return averaged + (1 - now) * (current - averaged)

    return average


def resolve_device(name: str) -> torch.device:
    """The device that a setting names; auto is CUDA where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA device that torch can use; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
