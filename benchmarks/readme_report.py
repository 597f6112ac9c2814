"""All tables of the README, from the records in docs/results/: python benchmarks/readme_report.py"""

import json
from typing import Any

import numpy as np
import tyro
from at_report import methods_table
from at_tables import after_both, digits_table, read_costs
from at_tables import recorded as defences
from campaign import ROOT
from gail_report import readme_tables
from pages import README, update

IMITATION = ROOT / "docs" / "results" / "gail"
UNTUNED, TUNED = (3e-5, "0.02"), (3e-4, None)  # discriminator's learning rate; step size over ε, None is the default
EPS = "0.2"


def main() -> None:
    """Write the tables."""
    update(README, tables())


def tables() -> dict[str, list[str]]:
    """Every table of the README, by its mark."""
    ours = {"first": first_table(), "methods": methods_table(), "digits": digits_table(read_costs())}
    return ours | readme_tables()


def first_table() -> list[str]:
    """What a learned follower buys and costs: beside a hand-designed one, where somebody tuned and where nobody did."""
    speed = json.loads((IMITATION / "throughput.json").read_text())["summary"]
    slower = speed["gail"]["ratio"] / speed["l2l-gail"]["ratio"]
    costs = {name: cost for (dataset, _, name), cost in read_costs().items() if dataset == "digits"}
    rows = []
    for words, (rate, size) in (("untuned", UNTUNED), ("tuned", TUNED)):
        what = f"discriminator's learning rate {rate:.0e}".replace("e-0", "e-") + f" ({words})"
        rows.append((f"imitation: {what}", "Adam", imitation("adam", rate), imitation("l2l", rate), slower))
        what = f"attacker's step size {size or '0.75'} ε ({words})"
        both = (defence(name, size) for name in ("frozen", "l2l"))
        rows.append((f"robust digits: {what}", "nothing learned", *both, costs["l2l"] / costs["frozen"]))
    rows.append(("robust digits: against PGD-10", "PGD-10", defence("pgd", None), defence("l2l", None), costs["l2l"]))
    lines = ["| | follower | hand-designed | L2L | cost of L2L over it |", "|---|---|---|---|---|"]
    return [
        *lines,
        *(f"| {what} | {name} | {one} | {two} | {cost:.2f} |" for what, name, one, two, cost in sorted(rows)),
    ]


def imitation(follower: str, rate: float) -> str:
    """Percent of the demonstrations' return on HalfCheetah with one demonstration."""
    runs = json.loads((IMITATION / "rates.json").read_text())["runs"].values()
    return summed(
        run["result"]["percent_of_expert"]
        for run in runs
        if run["settings"]["follower"] == follower and run["settings"]["disc_rate"] == rate
    )


def defence(name: str, size: str | None) -> str:
    """Percent of the test images that withstand AutoAttack's first two attacks, which every run was graded with."""
    runs = defences("digits") | defences("frozen") | defences("step-length")
    return summed(after_both(run) for run in runs.values() if is_of(run, name, size))


def is_of(run: dict[str, Any], name: str, size: str | None) -> bool:
    """Whether a run is of this attacker with this step size, at the radius of the table."""
    settings = run["settings"]
    method = "frozen" if settings["freeze_attacker"] else settings["method"]
    wanted = None if size is None else float(size)
    return (method, settings["eps"], settings["attack_size"]) == (name, EPS, wanted)


def summed(values) -> str:
    """Mean, lowest and highest, and number."""
    values = np.array(list(values))
    return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f}, n = {len(values)})"


if __name__ == "__main__":
    tyro.cli(main)
