"""Inner runs, on which a rule is trained: a run's rollouts, recorded once, and a new discriminator trained on them.

The policy learns nothing and no environment is stepped, so that an inner run takes seconds. "Inner training" is Metz et
al.'s (2020) word."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.func import functional_call

from l2l_experiment import settings
from l2l_experiment.errors import UserError
from l2l_experiment.files import write_atomically
from l2l_gail.config import EARLIER, GAILConfig
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.followers import Objectives
from l2l_gail.gail import GAIL
from l2l_gail.rewards import reward
from l2l_gail.transitions import Transitions

PARTS = ("observations", "actions", "next_observations", "ended")
APART = 10  # rounds between the policies that a ranking tells apart
SHOWN = 512  # transitions of each of them
Score = Literal["held-out", "ranking"]


class Stopped(Exception):
    """A recording was asked to stop; it starts over the next time."""


def record(
    env: str,
    demonstrations: Demonstrations,
    config: GAILConfig,
    folder: Path,
    *,
    steps: int,
    stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Train GAIL for so many environment steps and keep the transitions of every round, a file each in `folder`; or
    take those that are there, recorded with these settings, or earlier defaults, and any seed. UserError if they were
    recorded with others. Stopped as soon as `stop` says so."""
    made_by = settings.plain(config) | {"steps": steps, "demonstrations": len(demonstrations)}
    about = folder / "recording.json"
    fitting = [made_by | {"seed": 0}, made_by | EARLIER | {"seed": 0}]
    if about.is_file() and json.loads(about.read_text()) | {"seed": 0} not in fitting:
        raise UserError(f"{folder} holds a recording that was made with other settings; name another folder")

    def on_round(_: GAIL) -> None:
        if stop():
            raise Stopped

    rounds = -(-steps // (config.n_envs * config.n_steps))
    files = [folder / f"{number:06d}.npz" for number in range(rounds)]
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):  # of a folder that several processes share the first one records
        if not all(file.is_file() for file in files):
            write_atomically(about, json.dumps(made_by).encode())
            gail = _RecordingGAIL(env, demonstrations, config=config)
            gail.files = iter(files)
            gail.learn(steps, on_round=on_round)
    return files


class _RecordingGAIL(GAIL):
    files: Any

    def answer(self, transitions: Transitions, progress: float) -> None:
        single, content = transitions.float32(), io.BytesIO()
        np.savez(content, **{name: getattr(single, name) for name in PARTS})
        write_atomically(next(self.files), content.getvalue())
        super().answer(transitions, progress)


def load(file: Path) -> Transitions:
    """The transitions of a round."""
    with np.load(file) as arrays:
        return Transitions(*(arrays[name] for name in PARTS))


class InnerRun(GAIL):
    """A discriminator and its follower, trained on recorded rollouts one after the other: on all, or on `most` of
    them, evenly from the first to the last.

    `score` says what a learned rule is fitted on: `held-out`, the objective on demonstrations and rollout that its
    steps have not seen, as in training; or `ranking`, how well the reward tells the policies of later rounds from those
    of earlier ones. The latter needs later rounds, so it works on recordings only."""

    def __init__(
        self,
        rollouts: Sequence[Path],
        env: str,
        demonstrations: Demonstrations,
        config: GAILConfig,
        *,
        score: Score = "held-out",
        most: int | None = None,
    ) -> None:
        if len(rollouts) < 2:
            raise UserError(f"an inner run needs at least 2 recorded rounds, not {len(rollouts)}")
        if config.disc_form != "logit" or config.replay_rounds:
            raise UserError("a recording has no policy for --disc-form airl, and no earlier rounds to replay")
        size = len(load(rollouts[0]))
        super().__init__(env, demonstrations, config=replace(config, n_envs=1, n_steps=size))
        places = np.linspace(0, len(rollouts) - 1, min(most or len(rollouts), len(rollouts))).round().astype(int)
        self.rollouts, self.kind, self.round = [rollouts[place] for place in places], score, 0

    def run(self) -> dict[str, float]:
        """Train on the rollouts. Returns the mean over rounds of the loss on unseen transitions after the follower's
        answer, and of the rank correlation between a policy's round and the reward of its transitions."""
        losses, correlations, weights = [], [], dict(self.discriminator.named_parameters())
        for number, file in enumerate(self.rollouts):
            self.round, transitions = number, load(file)
            self.answer(transitions, (number + 1) / len(self.rollouts))
            unseen = super().objectives([transitions]).score()
            losses.append(float(unseen(weights).detach()))
            correlations.append(self._rank_correlation())
        return {"loss": float(np.mean(losses)), "order": float(np.nanmean(correlations))}

    def objectives(self, recent: list[Transitions]) -> Objectives:
        found = super().objectives(recent)
        if self.kind == "held-out":
            return found
        return found._replace(score=self._ranking)

    def _neighbours(self) -> list[Tensor]:
        """Inputs of transitions of the round, of one before and of one after it, the oldest policy first."""
        last = len(self.rollouts) - 1
        near = sorted({max(self.round - APART, 0), self.round, min(self.round + APART, last)})
        rows = []
        for number in near:
            data = load(self.rollouts[number])
            chosen = torch.randint(len(data), (min(SHOWN, len(data)),), generator=self.generator).numpy()
            rows.append(self.model.inputs(data.rows(chosen)))
        return rows

    def _ranking(self) -> Callable[[dict[str, Tensor]], Tensor]:
        """1 less the correlation between the reward of transitions and the order of the policies that made them."""
        rows = self._neighbours()
        later = torch.cat([torch.full((len(part),), float(index)) for index, part in enumerate(rows)])
        later, seen = later.to(rows[0].device) - later.mean(), torch.cat(rows)

        def score(weights: dict[str, Tensor]) -> Tensor:
            rewards = reward(functional_call(self.discriminator, weights, (seen,)), self.config.reward)
            rewards = rewards - rewards.mean()
            return 1 - (rewards * later).sum() / (rewards.norm() * later.norm() + 1e-12)

        return score

    @torch.no_grad()
    def _rank_correlation(self) -> float:
        rows = self._neighbours()
        rewards = reward(self.discriminator(torch.cat(rows)), self.config.reward).cpu().numpy()
        later = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        return float(spearmanr(rewards, later).statistic) if np.ptp(rewards) > 0 else float("nan")
