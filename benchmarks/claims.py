"""Figures that stand in sentences of README and docs, made from the records as those of the tables are.

A claim is a sentence with a slot for every figure, and the figures. `restate` finds the sentence in its page, wherever
its lines break, and writes the figures anew. Whoever changes a sentence has to change its claim: one that does not
stand in its page exactly once is an error.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

SLOT = re.compile(r"\{[^{}]*\}")
FIGURE = r"[+−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+−-]?\d+)?"  # a comma behind it belongs to the sentence
MEASURED = re.compile(rf"{FIGURE}(?:\s+%|\s+points?\b)")  # in these units nothing but measurements is told
SET = re.compile(r"9?5\s+%")  # the level of intervals and bands, and the worst runs and points of risk measures


class Claim(NamedTuple):
    """A sentence, or a part of one, about something that was measured."""

    sentence: str
    """With slots as `str.format` has them, `{:.1f}`."""
    figures: Sequence[float | str]

    def pattern(self) -> re.Pattern[str]:
        """Where the sentence stands in a page, whatever its figures are."""
        words = [re.sub(r"(?:\\ |\s)+", r"\\s+", re.escape(part)) for part in SLOT.split(self.sentence)]
        return re.compile("".join(f"({part})({FIGURE})" for part in words[:-1]) + f"({words[-1]})")

    def written(self) -> list[str]:
        """The figures as the page shows them, with the minus sign of running text."""
        slots = SLOT.findall(self.sentence)
        if len(slots) != len(self.figures):
            raise ValueError(f"{len(slots)} slots, {len(self.figures)} figures: {self.sentence}")
        written = [slot.format(figure) for slot, figure in zip(slots, self.figures, strict=True)]
        return [figure.replace("-", "−") if figure.startswith("-") else figure for figure in written]


def restate(page: str, claims: Sequence[Claim]) -> str:
    """The page with the figures of its claims written anew."""
    for claim in claims:
        found = list(claim.pattern().finditer(page))
        if len(found) != 1:
            raise ValueError(f"stands {len(found)} times in its page, not once: {claim.sentence}")
        parts = list(found[0].groups())
        parts[1::2] = claim.written()
        page = page[: found[0].start()] + "".join(parts) + page[found[0].end() :]
    return page


def unclaimed(page: str, claims: Sequence[Claim]) -> list[str]:
    """What a page's sentences say in percent or points outside its generated tables without being a claim's figure."""
    prose = re.sub(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", "", page, flags=re.DOTALL)
    for claim in claims:
        prose = claim.pattern().sub(lambda match: "…".join(match.groups()[::2]), prose)
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", prose, flags=re.DOTALL)
    return [found for found in MEASURED.findall(prose) if not SET.fullmatch(found)]
