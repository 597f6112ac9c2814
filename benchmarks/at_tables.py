"""Tables of docs/results/at.md, made from its records."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import campaign
import numpy as np
import turns
from campaign import ROOT
from pages import difference

from l2l_at.config import ATConfig
from l2l_at.graders import AUTOATTACK, FOOLBOX
from l2l_at.methods import METHODS
from l2l_at.threat import parse_radius

DATA = ROOT / "docs" / "results" / "at"
IN_README = ("trades", "l2l-trades", "arow", "fast-bat", "n-fgsm")  # of the zoo, beside the first methods
DIGITS = {"dataset": "digits", "model": "small-cnn", "attacker": "tiny"}
Robust = Callable[[dict[str, Any]], float]
recorded = partial(campaign.recorded, DATA)
Costs = dict[tuple[str, str, int, str], float]  # of a step over PGD-10's, by data set, network, batch size and method


def read_costs() -> Costs:
    """What the records of benchmarks/at_cost.py say (cost.json, cost_*.json), of steps without compilation."""
    costs: Costs = {}
    for path in sorted(DATA.glob("cost*.json")):
        record = json.loads(path.read_text())
        settings = record["settings"]
        if not settings["compile"]:
            costs |= {_key(settings, name): row["ratio"] for name, row in record["summary"].items()}
    return costs


def cost_of(costs: Costs, settings: dict[str, Any], method: str) -> float | None:
    """The cost of a run's method with the run's batch size; None where it was not measured."""
    return costs.get(_key(settings, method))


def _key(settings: dict[str, Any], method: str) -> tuple[str, str, int, str]:
    """What a cost depends on, the network of the published attackers included."""
    if method in METHODS and "attacker" in METHODS[method].takes:
        method += f", {settings.get('attacker', 'tiny')}"
    return settings["dataset"], settings["model"], settings.get("batch_size", ATConfig().batch_size), method


def grouped(runs: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Runs that differ in their seed only, under the name they share."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in sorted(runs.values(), key=lambda run: (radius(run), run["group"], run["settings"]["seed"])):
        groups[run["group"]].append(run)
    return groups


def radius(run: dict[str, Any]) -> float:
    """A run's ε as a number: 8/255 comes before 16/255."""
    return parse_radius(run["settings"]["eps"])


def method_of(group: str) -> str:
    """A group's name without its radius."""
    return group.rsplit("_", 1)[0]


def shown(method: str) -> str:
    """What a method is called in the overview and in pictures."""
    return "l2l, frozen" if method == "frozen" else method


def make_table(runs: dict[str, Any], costs: Costs) -> list[str]:
    """One row a group: clean, second opinion and AutoAttack, or our own probe where it was not graded; alarms, cost."""
    graded = ["grade" in run["result"] for run in runs.values()]
    heads = ["runs", "n", "ε"]
    heads += ["clean %", "foolbox PGD-50 %", "AutoAttack %, mean ± sd over seeds (each)", "tier"] if any(graded) else []
    heads += [] if all(graded) else ["held-out clean %", "held-out PGD-10 %"]
    heads += ["strength", "gain", "alarms (at the end)", "cost over pgd"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, members in grouped(runs).items():
        settings = members[0]["settings"]
        results = [run["result"] for run in members]
        strength, gain = ([r[key] for r in results if r.get(key) is not None] for key in ("strength", "gain"))
        cost = cost_of(costs, settings, method_of(name))
        grades = [result["grade"] for result in results if "grade" in result]
        count = f"{len(members)}" if len(grades) in (0, len(members)) else f"{len(members)} ({len(grades)} graded)"
        cells = [method_of(name) if any(graded) else name, count, settings["eps"]]
        if any(graded):
            cells += grade_cells(grades)
        if not all(graded):
            cells += [f"{100 * np.mean([r['best'][key] for r in results]):.1f}" for key in ("clean", "pgd10")]
        cells += [
            *(mean_of(some, len(members)) for some in (strength, gain)),
            raised(members),
            "–" if cost is None else f"{cost:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def mean_of(some: list[float], runs: int) -> str:
    """The mean of those runs that have a figure, and how many they are if not all."""
    if not some:
        return "–"
    return f"{np.mean(some):.2f}" + ("" if len(some) == runs else f" ({len(some)} run{'s' * (len(some) > 1)})")


def grade_cells(grades: list[dict[str, Any]]) -> list[str]:
    """What a row says of its runs' grades; dashes if none was graded."""
    if not grades:
        return ["–"] * 4
    robust = [100 * grade["autoattack"] for grade in grades]
    each = ", ".join(f"{value:.1f}" for value in robust)
    return [
        f"{np.mean([100 * grade['clean'] for grade in grades]):.1f}",
        f"{np.mean([100 * grade['attacks'][FOOLBOX] for grade in grades]):.1f}",
        f"{mean_and_spread(robust)} ({each})",
        tiers(grades),
    ]


def raised(members: list[dict[str, Any]]) -> str:
    """In how many runs the alarm was raised, and in how many it was when they ended."""
    if not members or any("alarms" not in run for run in members):
        return "–"
    ended = [run["curves"]["train/pgd10"][-1][0] in run["alarms"] for run in members]
    return f"{sum(bool(run['alarms']) for run in members)} ({sum(ended)})"


def mean_and_spread(values: list[float]) -> str:
    """Mean ± standard deviation, or the mean alone where there is one value."""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def tiers(grades: list[dict[str, Any]]) -> str:
    """How many grades are of which tier."""
    return " + ".join(f"{count} {tier}" for tier, count in sorted(Counter(g["tier"] for g in grades).items()))


def digits_table(costs: Costs) -> list[str]:
    """What the README says of digits: cost and robustness at both radii, cheapest first."""
    runs = recorded("digits") | recorded("frozen")
    runs |= {key: run for key, run in recorded("zoo").items() if method_of(run["group"]) in IN_README}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for group, members in grouped(runs).items():
        clean = np.mean([100 * run["result"]["grade"]["clean"] for run in members])
        robust = mean_and_spread([after_both(run) for run in members])
        found[method_of(group)][members[0]["settings"]["eps"]] = f"{clean:.1f} | {robust} ({len(members)})"
    radii = sorted({eps for row in found.values() for eps in row})
    heads = [f"clean %, ε = {eps} | robust %, ε = {eps} (n)" for eps in radii]
    lines = ["| " + " | ".join(["trained by", "cost over PGD-10", *heads]) + " |", "|---" * (2 + 2 * len(radii)) + "|"]
    for name in sorted(found, key=lambda name: cost_of(costs, DIGITS, name) or np.inf):
        cost = cost_of(costs, DIGITS, name)
        cells = [found[name].get(eps, "– | –") for eps in radii]
        what = "`l2l --freeze-attacker`" if name == "frozen" else f"`{name}`"
        lines.append("| " + " | ".join([what, "–" if cost is None else f"{cost:.2f}", *cells]) + " |")
    return lines


def paired_table(runs: dict[str, Any], pairs: tuple[tuple[str, str], ...], of: Robust) -> list[str]:
    """What separates two methods on the same seeds, and so the same images and splits."""
    by_seed: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for run in runs.values():
        by_seed[run["settings"]["eps"], method_of(run["group"])][run["settings"]["seed"]] = of(run)
    lines = ["| difference | ε | n | AutoAttack, points (each seed) | 95 % interval |", "|---" * 5 + "|"]
    for eps in sorted({eps for eps, _ in by_seed}):
        for one, other in pairs:
            mine, theirs = by_seed[eps, one], by_seed[eps, other]
            if len(shared := mine.keys() & theirs.keys()) < 2:
                continue
            lines.append(f"| `{one}` − `{other}` | {eps} | {len(shared)} | {difference(mine, theirs)} |")
    return lines


def overview(runs: dict[str, Any], costs: Costs) -> list[str]:
    """Every method in one line, judged by the same two attacks, best at the largest radius first."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for group, members in grouped(runs).items():
        found[method_of(group)][members[0]["settings"]["eps"]] = members
    radii = sorted({eps for row in found.values() for eps in row})
    heads = [f"{what}, ε = {eps}" for eps in radii for what in ("n", "clean %", "APGD-CE and APGD-T %")]
    lines = ["| " + " | ".join(["trained by", "cost over pgd", *heads, f"alarms, ε = {radii[-1]}"]) + " |"]
    lines.append("|---" * (3 + len(heads)) + "|")

    def last_radius(name: str) -> float:
        return np.mean([after_both(run) for run in found[name].get(radii[-1], [])] or [-1.0])

    for name in sorted(found, key=last_radius, reverse=True):
        cost = cost_of(costs, DIGITS, name)
        cells = [shown(name), "–" if cost is None else f"{cost:.2f}"]
        for eps in radii:
            members = found[name].get(eps, [])
            clean = [100 * run["result"]["grade"]["clean"] for run in members]
            robust = mean_and_spread([after_both(run) for run in members]) if members else "–"
            cells += [str(len(members)), f"{np.mean(clean):.1f}" if clean else "–", robust]
        cells.append(raised(found[name].get(radii[-1], [])))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def after_all(run: dict[str, Any]) -> float:
    """Percent of the test images that withstand AutoAttack, in the tier that the run was graded with."""
    return 100 * run["result"]["grade"]["autoattack"]


def after_both(run: dict[str, Any]) -> float:
    """Percent that withstand APGD-CE and APGD-T: what every run has, whatever its tier."""
    return 100 * run["result"]["grade"]["attacks"]["apgd-t"]


def by_both(run: dict[str, Any]) -> dict[str, Any]:
    """A run as the quick tier would have graded it, to stand beside runs that were graded so."""
    grade = run["result"]["grade"]
    attacks = {name: grade["attacks"][name] for name in (FOOLBOX, *AUTOATTACK["quick"])}
    quick = grade | {"tier": "quick", "attacks": attacks, "autoattack": attacks["apgd-t"]}
    return run | {"result": run["result"] | {"grade": quick}}


def broken_by_standard() -> tuple[int, int, int]:
    """How many images FAB-T and Square break that APGD-CE and APGD-T have left, in all runs on digits that were graded
    with all four; how many were left, and in how many runs."""
    lost, left = _by_standard()
    return sum(lost), sum(left), len(lost)


def what_standard_adds() -> list[str]:
    """The same in words."""
    lost, left = _by_standard()
    return [
        f"In the {len(lost)} runs on digits that were graded with both, FAB-T and Square broke {sum(lost)} of the "
        f"{sum(left):,} images that the first two attacks had left, at most {max(lost, default=0)} in one run."
    ]


def _by_standard() -> tuple[list[int], list[int]]:
    """Images broken, and images left before, by run."""
    grades = [run["result"]["grade"] for name in ("digits", "frozen") for run in recorded(name).values()]
    full = [grade for grade in grades if grade["tier"] == "standard"]
    lost = [round(grade["n"] * (grade["attacks"]["apgd-t"] - grade["attacks"]["square"])) for grade in full]
    return lost, [round(grade["n"] * grade["attacks"]["apgd-t"]) for grade in full]


def other_table(record: dict[str, Any]) -> list[str]:
    """The table of a record that is not one of runs."""
    return headroom_table(record) if "headroom" in record else cost_table(record)


def headroom_table(record: dict[str, Any]) -> list[str]:
    """What benchmarks/attacker_headroom.py measured."""
    names = list(next(iter(record["headroom"].values())))
    lines = ["| classifier of | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for run, row in record["headroom"].items():
        lines.append("| " + " | ".join([run, *(f"{row[name]:.3f}" for name in names)]) + " |")
    return lines


def cost_table(record: dict[str, Any]) -> list[str]:
    """What benchmarks/at_cost.py measured."""
    lines = turns.table(record, "seconds_a_step", "pgd", "milliseconds", "ms a step", 1)
    settings, machine = record["settings"], record["machine"]
    if rate := record.get("matrix_rate"):
        lines[0] += " s an epoch | of a matrix product's rate |"
        lines[1] += "---|---|"
        for row, (name, figures) in enumerate(record["summary"].items(), start=2):
            seconds = figures["milliseconds"] / 1000
            share = record["operations_a_step"][name] / seconds / rate
            lines[row] += f" {seconds * record['batches_per_epoch']:.1f} | {share:.1%} |"
    where = machine["gpu"] or f"{machine['cpu']}, one thread"
    network = f", attacker {settings['attacker']}" if "l2l-grad" in record["summary"] and rate else ""
    return [
        *lines,
        "",
        f"{settings['dataset']}, {settings['model']}, batch {settings['batch_size']}{network}. Machine: {where}.",
    ]
