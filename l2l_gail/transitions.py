"""Transitions of a policy or of demonstrations, as the leader hands them over."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import Demonstrations


@dataclass(frozen=True)
class Transitions:
    """Transitions in an environment, as arrays whose first dimension counts them."""

    observations: np.ndarray  # as the environment gave them, not standardised
    actions: np.ndarray  # as the environment executed them
    next_observations: np.ndarray  # where the actions led: at an episode's end its last one, not the next one's first
    ended: np.ndarray  # bool, shape (n,): the episode terminated here; false where a time limit cut it off

    def __len__(self) -> int:
        return len(self.observations)

    def parts(self) -> list[np.ndarray]:
        return [getattr(self, field.name) for field in fields(self)]

    def rows(self, which: slice | np.ndarray) -> "Transitions":
        """Some of the transitions: a slice of them, or those of these numbers."""
        return Transitions(*(part[which] for part in self.parts()))

    def float32(self) -> "Transitions":
        """The same in single precision, as networks see them; whole numbers stay what they are."""
        single = (part.astype(np.float32) if part.dtype.kind == "f" else part for part in self.parts())
        return Transitions(*single)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of observations and actions, by which demonstrations are known again."""
        digest = hashlib.sha256(np.ascontiguousarray(self.observations))
        digest.update(np.ascontiguousarray(self.actions))
        return digest.hexdigest()


def transitions_of(demonstrations: Demonstrations, every: int = 1) -> Transitions:
    """The transitions of the demonstrations in order: all, or every `every`-th of each episode, from the first."""
    if not demonstrations.episodes:
        raise ValueError("no episodes: an empty Demonstrations has no transitions")
    return split(demonstrations, 0.0, every)[0]


def split(
    demonstrations: Demonstrations, holdout: float, every: int = 1, *, ends: bool = False
) -> tuple[Transitions, Transitions]:
    """Transitions to train on, and those held out: the end of every episode as one block, since neighbours are alike.

    Episodes too short to split are held out whole, as many as the share `holdout` asks for. With `holdout` 0 both parts
    are everything. With `ends`, both parts contain every terminal transition: a part without any would teach that only
    the policy's episodes terminate."""
    train, held, short = [], [], 0.0
    for episode in demonstrations.episodes:
        length = -(-len(episode) // every)
        cut = length - round(holdout * length)
        if holdout and not 0 < cut < length:
            before, short = short, short + holdout
            cut = 0 if int(short + 1e-9) > int(before + 1e-9) else length
        seen, ended = episode.observations, episode.arrays()["terminations"]
        everything = Transitions(seen[:-1], episode.actions, seen[1:], ended)
        whole = everything.rows(slice(None, None, every))
        train.append(whole.rows(slice(0, cut)))
        held.append(whole.rows(slice(cut, None)) if holdout else whole)
        for part in (train, held):
            if ends and episode.terminated and not part[-1].ended[-1:].any():
                part.append(everything.rows(slice(-1, None)))
    if not (sum(map(len, train)) and sum(map(len, held))):
        count = sum(map(len, train)) + sum(map(len, held))
        raise UserError(f"{count} transitions of demonstrations are too few to hold out {holdout:.0%} of them")
    seen = _joined(train)
    return seen, _joined(held) if holdout else seen  # once: there may be millions


def _joined(pieces: Sequence[Transitions]) -> Transitions:
    """The transitions of several pieces, one after the other."""
    return Transitions(*map(np.concatenate, zip(*(piece.parts() for piece in pieces), strict=True)))


def update_replay(
    replay: list[Transitions],
    new: Transitions,
    capacity: int,
    kind: Literal["newest", "uniform"],
    so_far: int,
    generator: torch.Generator,
) -> None:
    """Add a round to the replayed ones, at most `capacity`: the newest, or a uniform sample by reservoir sampling
    (Vitter, 1985). `so_far` counts all rounds, this one included."""
    place = 0
    if capacity and len(replay) == capacity:
        if kind == "uniform":
            place = int(torch.randint(max(so_far, capacity), (1,), generator=generator))
        if place >= capacity:
            return
        del replay[place]
    if capacity:
        replay.append(new)
