"""Tells when the discriminator says the same of everything, so that the policy is paid a constant."""

import sys

from tqdm import tqdm

FLAT = 1e-3  # standard deviation of the logits; HalfCheetah's runs that lived stayed above 0.005
PATIENCE = 10  # rounds in a row


class FlatAlarm:
    """Speaks once, when the logits of `PATIENCE` rounds in a row have spread less than `FLAT`.

    A discriminator whose weights a rule has driven to zero ends so, and no gradient leads back from there.
    """

    def __init__(self) -> None:
        self.rounds = 0

    def __call__(self, figures: dict[str, float]) -> bool:
        """Look at a round's figures; True in the round in which the alarm is raised."""
        spread = figures.get("disc/logit_std")
        if spread is None:
            return False
        self.rounds = self.rounds + 1 if spread < FLAT else 0
        if self.rounds != PATIENCE:
            return False
        tqdm.write(
            f"ALARM: for {PATIENCE} rounds the discriminator has said the same of all transitions: the policy is paid "
            "a constant and learns nothing from it. More --gradient-penalty or another --disc-rate may help.",
            file=sys.stderr,
        )
        return True


def flat_since(rows: list[dict[str, float]]) -> int | None:
    """The step from which on all rounds to the end were flat, at least `PATIENCE` of them; None if there is none."""
    measured = [row for row in rows if "disc/logit_std" in row]
    lively = [index for index, row in enumerate(measured) if not row["disc/logit_std"] < FLAT]
    first = lively[-1] + 1 if lively else 0
    return int(measured[first]["step"]) if len(measured) - first >= PATIENCE else None
