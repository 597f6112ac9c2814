"""The two players and everything that changes while they train: one object that steps, saves and restores."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR
from tqdm import trange

from l2l_at import answers, attacks, datasets, methods, models, parallel, weights
from l2l_at.attacks import full_precision
from l2l_at.batches import Batch, Batches
from l2l_at.config import ATConfig, tuned
from l2l_at.datasets import DataSet, Task
from l2l_at.methods import MethodOutput
from l2l_experiment import checkpoint, devices, randomness, settings
from l2l_experiment.errors import Diverged, UserError


class Trainer:
    """A classifier and the method that trains it. `model` is the classifier as it is now, by default the one that the
    settings name; `evaluated` the one to judge and export: its average, if there is one."""

    def __init__(self, config: ATConfig, task: Task, model: nn.Module | None = None) -> None:
        config.threat.check(task.shape)
        self.config, self.device = config, devices.resolve(config.device, auto="cuda")
        torch.manual_seed(config.seed)
        if model is None:
            models.check(config.model, task.shape)
            model = models.build(config.model, task.data.normalisation, task.data.classes)
        self.model = model.to(self.device)
        with attacks.evaluating(self.model):
            sample = task.train.subset(slice(0, 2)).to(self.device).take(slice(None))[0]
            answers.check_model(self.model, sample, classes=task.data.classes, logits_only=True)
        self.forward = torch.compile(self.model) if config.compile else self.model
        self.method = methods.make(config, task.shape[0])
        parallel.check(config.batch_size, single_process=self.method.follower.single_process)
        if config.compile and self.method.double_backward:
            raise UserError(f"--compile does not go with --method {config.method}, which differentiates a gradient")
        self.method.follower.prepare(len(task.train), task.shape)
        self.method.follower.to(self.device)
        self.batches = Batches(task.train.to(self.device), config.batch_size, task.data.augmentation)
        self.total = config.epochs * self.batches.per_epoch
        rate, momentum, decay = config.learning_rate, config.momentum, config.weight_decay
        self.fused = self.device.type == "cuda"  # on a CPU it would round differently and gain little
        kwargs = {"weight_decay": decay, "fused": self.fused}
        self.optimizer = torch.optim.SGD(self.model.parameters(), rate, momentum, **kwargs)
        self.schedule = make_schedule(self.optimizer, config, self.total)
        self.average = None if config.average == "none" else weights.averaged(self.model, config.average, config.ema)
        if self.method.follower.attacker is not None:
            parallel.register_gradient_averaging(self.method.follower.attacker)
        self.step_count = 0
        self.batch: Batch | None = None
        self.delta: Tensor | None = None

    @property
    def eval_model(self) -> nn.Module:
        return self.average.module if self.average is not None and self.average.n_averaged else self.model

    @property
    def epoch(self) -> float:
        return self.step_count / self.batches.per_epoch

    def step(self) -> dict[str, float | Tensor]:
        """One step on a batch: the classifier's, then the follower's learning; figures for the log."""
        if self.batch is None or self.step_count % self.method.replays == 0:
            self.batch = parallel.shard(self.batches.next())
        self.model.train()
        with self.precision(), _batch_norm_error():
            if self.config.awp and self.step_count >= self.config.awp_from * self.total:
                answer = self.awp_step(self.batch)
            else:
                answer = self.method.loss(self.forward, self.batch)
                self.differentiate(answer.loss)
                self.descend()
            parallel.average_batch_norm_stats(self.model)
            learned = self.method.follower.update(self.forward, self.batch)
        if self.method.follower.attacker is not None:
            parallel.average_batch_norm_stats(self.method.follower.attacker)
        self.step_count += 1
        if self.average is not None and self.should_average():
            self.average.update_parameters(self.model)
        self.delta = answer.delta
        return {"train_classifier/loss": answer.loss.detach()} | {
            f"train_attacker/{name}": value for name, value in learned.items()
        }

    def awp_step(self, batch: Batch) -> MethodOutput:
        """The classifier's step under adversarial weight perturbation; the answer is that of the unperturbed weights.
        Batch normalisation's moments are those of the perturbed weights alone, as in the published code."""
        method, moments = self.method, [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        answer = method.loss(self.forward, batch)
        self.differentiate(answer.loss)
        with torch.no_grad():
            for buffer, before in moments:
                buffer.copy_(before)
        with weights.perturbed(self.model, self.config.awp):
            if method.double_backward:  # its perturbations are no constants: they must be found anew
                loss = method.loss(self.forward, batch).loss
            else:
                loss = method.leader(self.forward, batch, answer.delta)
            self.differentiate(loss)
            self.descend()
        return answer

    def differentiate(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average_gradients(self.model)

    def descend(self) -> None:
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        torch.clear_autocast_cache()  # it holds the weights as they were, and the follower learns from those that are

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return devices.all_finite(self.model.parameters())

    def should_average(self) -> bool:
        """Whether the weights enter the average now: after every step (EMA), or at the last epochs' ends (SWA)."""
        ending = self.step_count % self.batches.per_epoch == 0
        return self.config.average == "ema" or (ending and self.step_count > self.config.swa_from * self.total)

    def precision(self) -> AbstractContextManager:
        name, kind = self.config.precision, self.device.type
        mixed = name == "bf16" or (name == "auto" and kind == "cuda")
        return torch.autocast(kind, dtype=torch.bfloat16) if mixed else full_precision()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, between two steps."""
        return {
            "settings": settings.plain(self.config),
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.last_epoch,  # the rates themselves stand in the optimiser's groups
            "follower": self.method.follower.state_dict(),
            "batches": self.batches.state_dict(),
            "batch": self.batch._asdict() if self.batch and self.method.replays > 1 else None,
            "step": self.step_count,
            "randomness": randomness.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, on the CPU bit for bit; UserError for that of other settings."""
        settings.require_same(state.get("settings", {}), self.config, but=frozenset({"device", "compile"}))
        try:
            checkpoint.check_compatible(state, self.state_dict())
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["fused"] = self.fused  # of this device, not of that on which the checkpoint was made
            self.schedule.last_epoch = state["schedule"]
            if state["follower"].keys() != self.method.follower.state_dict().keys():
                raise ValueError("it holds the state of another follower")
            self.method.follower.load_state_dict(state["follower"])
            self.method.follower.to(self.device)
            if state["batch"] is not None:
                kept = {name: None if part is None else part.to(self.device) for name, part in state["batch"].items()}
                self.batch = Batch(**kept)
            self.batches.load_state_dict(state["batches"])
            self.step_count = state["step"]
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            wrong = f"the checkpoint does not fit this run's settings ({str(error).splitlines()[0]})"
            raise UserError(f"{wrong}; resume with the config.yaml that made it") from error
        randomness.load_state_dict(state["randomness"])
        parallel.sync_rng(self.device)


@contextmanager
def _batch_norm_error() -> Iterator[None]:
    """UserError where batch normalisation meets a single image whose maps have shrunk to 1 × 1."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # so torch says it
            raise
        told = "the model's batch normalisation cannot train on a batch of one image; choose another batch_size"
        raise UserError(told) from error


def make_schedule(optimizer: torch.optim.Optimizer, config: ATConfig, total: int) -> LRScheduler:
    """The learning rate over `total` steps."""
    if config.schedule == "multi-step":
        return MultiStepLR(optimizer, [total // 2, total * 3 // 4], gamma=0.1)
    # torch cycles the momentum along with the rate unless told not to.
    return OneCycleLR(optimizer, config.learning_rate, total_steps=total + 1, cycle_momentum=False)


@torch.inference_mode(False)  # whatever the caller's mode
@torch.enable_grad()
def train(
    model: nn.Module | None,
    data: str | DataSet | Task,
    /,
    *,
    config: ATConfig | None = None,
    progress: bool = True,
    **changes: Any,
) -> nn.Module:
    """Train a classifier adversarially, without a run's folder; returns it in evaluation mode, averaged if so set.

    `model` takes images in [0, 1] and answers with logits; None is the one that the settings name (by default those of
    the data set, `tuned`). `data` is a data set or its name, which is split by the settings, or a split one; a new data
    set joins `DATASETS`. `changes` are settings over those of `config`: `method="l2l"`, `epochs=20`. Held-out images
    are left alone. Diverged if a weight becomes NaN or infinite."""
    if model is not None and not isinstance(model, nn.Module):
        raise UserError(f"the model must be a torch module, an instance, or None; got a {type(model).__name__}")
    if model is not None and not any(weight.requires_grad for weight in model.parameters()):
        raise UserError("the model has no weights to train")
    if not isinstance(data, str | DataSet | Task):
        kinds = "the name of a data set, a DataSet or what datasets.load returns"
        raise UserError(f"the data must be {kinds}; got a {type(data).__name__}")
    if config is not None and not isinstance(config, ATConfig):
        raise UserError(f"config must be an ATConfig, such as tuned({data!r}); got a {type(config).__name__}")
    own = data.data if isinstance(data, Task) else datasets.find(data) if isinstance(data, str) else data
    if own != datasets.DATASETS.get(own.name, own) and own.name in datasets.SHIPPED:
        raise UserError(f"there is a data set {own.name} already; give yours another name")
    datasets.DATASETS[own.name] = own
    config = tuned(own.name, **changes) if config is None else replace(config, dataset=own.name, **changes)
    if not isinstance(data, Task):
        data = datasets.load(own, holdout=config.holdout, seed=config.seed, subset=config.subset)
    trainer = Trainer(config, data, model)
    for _ in trange(trainer.total, disable=not progress, unit=" steps", mininterval=1.0):
        trainer.step()
    if not trainer.is_finite():
        raise Diverged("training diverged: a weight is NaN or infinite; a smaller learning_rate may help")
    return trainer.eval_model.eval()
