"""The two players and everything that changes while they train: one object that steps, saves and restores."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from l2l_at import awp, methods, models, parallel
from l2l_at.attacks import full_precision
from l2l_at.average import Average
from l2l_at.config import ATConfig
from l2l_at.data import Batch, Batches, Task
from l2l_at.methods import Answer
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
        self.forward = torch.compile(self.model) if config.compile else self.model
        self.method = methods.make(config, task.shape[0])
        parallel.check(config.batch_size, config.method)
        if config.compile and self.method.differentiates:
            raise UserError(f"--compile does not go with --method {config.method}, which differentiates a gradient")
        self.method.follower.prepare(len(task.train), task.shape)
        self.method.follower.to(self.device)
        self.batches = Batches(task.train.to(self.device), config.batch_size, augment=task.augment)
        self.total = config.epochs * self.batches.per_epoch
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=config.rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.schedule = make_schedule(self.optimizer, config, self.total)
        self.average = None if config.average == "none" else Average(self.model, config.average, config.ema)
        if self.method.follower.attacker is not None:
            parallel.average_gradients_to_come(self.method.follower.attacker)
        self.step_count = 0
        self.batch: Batch | None = None
        self.delta: Tensor | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The classifier to judge: averaged, if there is an average."""
        return self.average.module if self.average is not None and self.average.count else self.model

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step_count / self.batches.per_epoch

    def step(self) -> dict[str, float | Tensor]:
        """One step on a batch: the classifier's, then the follower's learning; figures for the log."""
        if self.batch is None or self.step_count % self.method.replays == 0:
            self.batch = parallel.share(self.batches.next())
        batch, model = self.batch, self.forward
        self.model.train()
        weights_move = self.config.awp and self.step_count >= self.config.awp_from * self.total
        with self.precision():
            if weights_move:
                answer = self.against_weights_too(batch)
            else:
                answer = self.method.loss(model, batch)
                self.differentiate(answer.loss)
                self.descend()
            parallel.average_moments(self.model)
            learned = self.method.follower.improve(model, batch)
        if self.method.follower.attacker is not None:
            parallel.average_moments(self.method.follower.attacker)
        self.step_count += 1
        if self.average is not None and self.averages_now():
            self.average.update(self.model)
        self.delta = answer.delta
        return {"train/loss": answer.loss.detach()} | {f"follower/{name}": value for name, value in learned.items()}

    def against_weights_too(self, batch: Batch) -> Answer:
        """The classifier's step under adversarial weight perturbation; the answer is that of the unperturbed weights.

        Batch normalisation's moments are those of the perturbed weights alone, as in the published code.
        """
        moments = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        answer = self.method.loss(self.forward, batch)
        self.differentiate(answer.loss)
        with torch.no_grad():
            for buffer, before in moments:
                buffer.copy_(before)
        with awp.perturbed(self.model, self.config.awp):
            if self.method.differentiates:  # its perturbations are no constants: they must be found anew
                loss = self.method.loss(self.forward, batch).loss
            else:
                loss = self.method.leader(self.forward, batch, answer.delta)
            self.differentiate(loss)
            self.descend()
        return answer

    def differentiate(self, loss: Tensor) -> None:
        """Give the classifier's weights their gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average_gradients(self.model)

    def descend(self) -> None:
        """The optimiser's step and the schedule's."""
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        torch.clear_autocast_cache()  # it holds the weights as they were, and the follower learns from those that are

    def is_finite(self) -> bool:
        """Whether the weights are finite numbers."""
        return all(bool(weight.isfinite().all()) for weight in self.model.parameters())

    def averages_now(self) -> bool:
        """Whether the weights enter the average now: after every step (EMA), or at the last epochs' ends (SWA)."""
        if self.config.average == "ema":
            return True
        return self.step_count % self.batches.per_epoch == 0 and self.step_count > self.config.swa_from * self.total

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Mixed or full precision, as configured."""
        name, kind = self.config.precision, self.device.type
        if name == "bf16" or (name == "auto" and kind == "cuda"):
            with torch.autocast(kind, dtype=torch.bfloat16):
                yield
        else:
            with full_precision():
                yield

    def state(self) -> tuple[dict, dict]:
        """Everything a resumed run needs, as tensors and JSON values, between two steps."""
        follower, order = self.method.follower.state(), self.batches.state()
        tree = {
            "model": self.model.state_dict(),
            "average": {} if self.average is None else self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.last_epoch,  # the rates themselves stand in the optimiser's groups
            "batch": self.batch._asdict() if self.batch and self.method.replays > 1 else {},
        }
        random = rng_state()
        tensors, meta = split(tree)
        return (
            {"players": tensors, "follower": follower[0], "batches": order[0], "rng": random[0]},
            {
                "players": meta,
                "follower": follower[1],
                "batches": order[1],
                "rng": random[1],
                "step": self.step_count,
            },
        )

    def restore(self, tensors: dict, meta: dict) -> None:
        """Continue from a `state`, on the CPU bit for bit."""
        try:
            tree = join(tensors["players"], meta["players"])
            self.model.load_state_dict(tree["model"])
            if self.average is not None:
                self.average.restore(tree["average"])
            self.optimizer.load_state_dict(tree["optimizer"])
            self.schedule.last_epoch = tree["schedule"]
            self.method.follower.restore(tensors["follower"], meta["follower"])
            self.method.follower.to(self.device)
            if tree["batch"]:
                self.batch = Batch(
                    **{name: None if value is None else value.to(self.device) for name, value in tree["batch"].items()}
                )
            self.batches.restore(tensors["batches"], meta["batches"])
            self.step_count = meta["step"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"the checkpoint does not fit this run's settings ({str(error).splitlines()[0]}); "
                "resume with the config.yaml that made it"
            ) from error
        set_rng_state(tensors["rng"], meta["rng"])
        parallel.same_draws(self.device)


def make_schedule(
    optimizer: torch.optim.Optimizer, config: ATConfig, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over `total` steps."""
    if config.schedule == "multi-step":
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [total // 2, total * 3 // 4], gamma=0.1)
    # torch cycles the momentum along with the rate unless told not to.
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=total + 1, cycle_momentum=False)


def resolve_device(name: str) -> torch.device:
    """The device that a setting names; auto is CUDA where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA device that torch can use; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
