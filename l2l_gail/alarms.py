"""Alarms for a useless discriminator: one whose logits are all the same, or that misclassifies most transitions."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

from tqdm import tqdm

FLAT = 1e-3  # standard deviation of the logits; HalfCheetah's runs that lived stayed above 0.005
WRONG = 0.3  # accuracy before an update; in the runs of docs/results/gail that lived it never stayed under 0.4
PATIENCE = 10  # rounds in a row


class Trouble(NamedTuple):
    """A figure that has stayed below its limit for `PATIENCE` rounds."""

    figure: str
    limit: float
    now: str  # what to say when it begins, and what may help
    to_the_end: str  # what to say of a run that ended so


TROUBLES = {
    # Where a rule has driven the discriminator's weights to zero, no gradient leads back.
    "flat_since": Trouble(
        "train_disc/logit_std",
        FLAT,
        "the discriminator has given every transition the same logit: the reward is constant and teaches nothing. "
        "More --gradient-penalty or another --disc-learning-rate may help.",
        "the discriminator gave every transition the same logit: the reward was constant",
    ),
    # A learned rule may lower its own rate until the discriminator no longer moves.
    "wrong_since": Trouble(
        "train_disc/acc",
        WRONG,
        "the discriminator has misclassified most transitions: the reward favours being unlike the demonstrations. "
        "If train_follower/log_rate is far below 0, the learned rule has stopped: --gradient-penalty 1 or a smaller "
        "--log-rate-limit may help.",
        "the discriminator misclassified most transitions: the reward favoured being unlike the demonstrations",
    ),
}


class Alarm:
    """Prints a warning when a trouble has lasted `PATIENCE` rounds. `before`: figures of earlier rounds."""

    def __init__(self, before: Iterable[dict[str, float]] = ()) -> None:
        self.rounds = dict.fromkeys(TROUBLES, 0)
        for figures in before:
            self.count(figures)

    def __call__(self, figures: dict[str, float]) -> list[str]:
        """Look at a round's figures; the troubles for which the alarm is raised in this round."""
        raised = self.count(figures)
        for name in raised:
            tqdm.write(f"ALARM: for {PATIENCE} rounds {TROUBLES[name].now}", file=sys.stderr)
        return raised

    def count(self, figures: dict[str, float]) -> list[str]:
        """Count a round; returns the troubles that have now lasted exactly `PATIENCE` rounds."""
        measured = {name: trouble for name, trouble in TROUBLES.items() if trouble.figure in figures}
        for name, trouble in measured.items():
            self.rounds[name] = self.rounds[name] + 1 if figures[trouble.figure] < trouble.limit else 0
        return [name for name in measured if self.rounds[name] == PATIENCE]


def ongoing_since(rows: list[dict[str, float]]) -> dict[str, int | None]:
    """For each trouble the step since which it lasted to the end, at least `PATIENCE` rounds; None if it did not."""
    found: dict[str, int | None] = {}
    for name, trouble in TROUBLES.items():
        measured = [row for row in rows if trouble.figure in row]
        healthy = [index for index, row in enumerate(measured) if not row[trouble.figure] < trouble.limit]
        first = healthy[-1] + 1 if healthy else 0
        found[name] = int(measured[first]["step"]) if len(measured) - first >= PATIENCE else None
    return found
