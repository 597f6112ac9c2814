"""Tables and figures of docs/results/at.md: python benchmarks/at_report.py [--runs runs/at]

With --runs, the finished and graded runs there are first condensed into docs/results/at/EXPERIMENT.json; those files
are the record. Without it, the page is made from them again.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import at_sensitivity
import diagnosis
import numpy as np
import tyro
import yaml
from at_experiments import ABLATIONS, LENGTHS, experiments
from at_tables import (
    DATA,
    Costs,
    after_all,
    after_both,
    by_both,
    cost_of,
    grouped,
    make_table,
    method_of,
    other_table,
    overview,
    paired_table,
    radius,
    read_costs,
    recorded,
    shown,
    what_standard_adds,
)
from campaign import ROOT, coverage
from pages import condense, update

from l2l_at.methods import METHODS
from l2l_at.probe import CollapseAlarm
from l2l_experiment import events
from l2l_experiment.figures import frontier, learning_curves

PAGE = ROOT / "docs" / "results" / "at.md"
SETTINGS = (
    "dataset", "method", "model", "norm", "eps", "seed", "epochs", "batch_size", "subset", "attack_steps",
    "attack_size", "attack_start", "attacker_sees", "attacker_every", "attacker_rate", "attacker_scale_rate",
    "gradient_scale", "freeze_attacker", "attacker", "attacker_width", "average", "swa_from", "awp", "inner",
    "regularisation", "label_smoothing", "clean_share", "bat_rate", "bat_lambda", "noise", "replays",
)  # fmt: skip
CURVES = ("train/loss", "robust/clean", "robust/pgd10", "train/fgsm", "train/pgd10", "follower/strength")
PAIRS = tuple(("l2l", other) for other in ("pgd", "frozen", "fgsm-rs", "l2l-2step"))
ZOO_PAIRS = (
    *((name, "pgd") for name in ("trades", "mart", "n-fgsm", "l2l-trades", "pgd-swa")),
    ("fast-bat", "fgsm-rs"),
    ("fast-bat-consistent", "fast-bat"),
    ("l2l-trades", "trades"),
    ("l2l-trades", "l2l-trades-frozen"),
    ("l2l-trades", "l2l"),
    ("l2l-sdi", "fgsm-rs"),
    ("ro", "fgsm-rs"),
    ("grad-align", "fgsm-rs"),
    ("free", "fgsm-rs"),
    ("cow", "pgd"),
    *((name, "trades") for name in ("arow", "cow", "mart", "n-fgsm")),
    ("pgd-awp", "pgd"),
    ("trades-awp", "trades"),
    ("arow-awp", "arow"),
    ("arow-swa", "arow"),
    ("pgd", "pgd-unaveraged"),
)
LENGTH_PAIRS = tuple((f"l2l-{size}", f"frozen-{size}") for size in LENGTHS)
BESIDE = ("pgd", "fgsm-rs", "l2l")  # what the zoo's pictures show of the first table
UNDRAWN = ("-awp", "-swa", "-unaveraged", "-consistent")  # variants that hide in pictures what they are variants of
# In this order methods have their colours in every picture.
LOOKS = tuple(dict.fromkeys(("pgd", "l2l", "l2l, frozen", "fgsm-rs", "trades", "l2l-trades", "standard", *METHODS)))
PUBLISHED = ("l2l-naive", "l2l-grad", "l2l-2step", "l2l-kstep")


@dataclass(frozen=True)
class Args:
    """Build docs/results/at.md from its records."""

    runs: Path | None = None
    """Take in the finished runs of this folder (OUT of at_experiments.py) first."""
    ungraded: bool = False
    """Those, too, that ended but whose grading was cut off; they count as made."""


def main() -> None:
    """Condense, draw, write."""
    args = tyro.cli(Args)
    if args.runs is not None:
        condense(args.runs, DATA, extract, ungraded=args.ungraded)
    costs = read_costs()
    contents = {}
    for path in sorted(DATA.glob("*.json")):
        content = json.loads(path.read_text())
        if "runs" not in content:
            contents[path.stem] = diagnosis.show(content, path) if "drawings" in content else other_table(content)
            continue
        runs = with_related(path.stem, content["runs"])
        drawn = runs | recorded("frozen") if path.stem in ("digits", "zoo") else runs
        if path.stem == "zoo":
            drawn |= {key: run for key, run in recorded("digits").items() if run["settings"]["method"] in BESIDE}
        contents[path.stem] = [*make_table(runs, costs), *draw(path.stem, drawn, costs)]
        if setting := at_sensitivity.SWEPT.get(path.stem):
            cells = at_sensitivity.collect(runs, setting)
            picture = at_sensitivity.draw(cells, setting, DATA / path.stem)
            contents[f"{path.stem}-merit"] = [*at_sensitivity.table(cells), *picture]
    contents["ablation-flags"] = ablation_flags()
    contents["coverage"] = coverage(experiments(), DATA)
    update(PAGE, contents | comparisons(costs))
    for page in sorted({page_of(name) for name in METHODS} - {page_of("standard")} | {"methods/awp.md"}):
        path = ROOT / "docs" / page
        update(path, {"figures": method_figures(path.stem)})


def ablation_flags() -> list[str]:
    """What each row of the ablation changes."""
    rows = [f"| {name} | `{' '.join(changes)}` |" for name, changes in ABLATIONS.items()]
    return ["| row | flags |", "|---|---|", *rows]


def comparisons(costs: Costs) -> dict[str, list[str]]:
    """Tables over several experiments on digits."""
    first = recorded("digits") | recorded("frozen")
    everything = first | recorded("zoo")
    return {
        "tiers": what_standard_adds(),
        "paired": paired_table(first, PAIRS, after_all),
        "overview": overview(everything, costs),
        "zoo-paired": paired_table(everything, ZOO_PAIRS, after_both),
        "step-length-paired": paired_table(recorded("step-length"), LENGTH_PAIRS, after_both),
    }


def with_related(name: str, runs: dict[str, Any]) -> dict[str, Any]:
    """An experiment's runs with those of other experiments that belong into its table and were not made twice."""
    found = dict(runs)
    if name in ("ablation", "step-length", "attacker-rate"):
        seeds, radii = ({run["settings"][key] for run in runs.values()} for key in ("seed", "eps"))
        for title, others in (("as-it-is", "digits"), ("frozen", "frozen")):
            for key, run in recorded(others).items():
                settings = run["settings"]
                if settings["method"] == "l2l" and settings["seed"] in seeds and settings["eps"] in radii:
                    found[key] = by_both(run) | {"group": f"{title}_{settings['eps']}"}
    return found


def methods_table() -> list[str]:
    """The methods as `--list` has them."""
    rows = [
        f"| [`{name}`](docs/{page_of(name)}) | {recipe.summary} | {recipe.source} |" for name, recipe in METHODS.items()
    ]
    return ["| `--method` | what | source |", "|---|---|---|", *rows]


def page_of(name: str) -> str:
    """The page of documentation of a method, in docs/."""
    shared = {"standard": "at", "pgd-2": "methods/pgd", "cow": "methods/arow"}
    shared |= dict.fromkeys(PUBLISHED, "methods/l2l-published")
    return shared.get(name, f"methods/{name}") + ".md"


def method_figures(name: str) -> list[str]:
    """What is recorded of a method on digits: rows of the tables of results, or that there is nothing yet."""
    names = [method for method in METHODS if page_of(method) == f"methods/{name}.md"]

    def of_method(runs: dict[str, Any]) -> dict[str, Any]:
        return {
            key: run
            for key, run in runs.items()
            if run["settings"]["method"] in names or (name == "awp" and run["settings"].get("awp"))
        }

    runs = of_method(recorded("digits") | recorded("zoo") | recorded("norms"))
    if not runs:
        return ["Nothing is recorded yet."]
    lines = ["Digits; what the columns mean and how to make them: [results](../results/at.md)."]
    lines += ["", *make_table(runs, read_costs())]
    if short := of_method(recorded("cifar10-short")):
        where = "[short runs](../results/at.md#cifar-10-on-a-gpu-short-runs)"
        lines += ["", f"CIFAR-10, {where}, of no published setting:", "", *make_table(short, read_costs())]
    return lines


def extract(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of a finished run beside its result."""
    settings = yaml.safe_load((run / "config.yaml").read_text())["settings"]
    rows = events.read(run / events.METRICS)
    return {
        # The alarm is that of `alarms`: one of the rule that the run was made with must not stand beside it.
        "result": {name: value for name, value in record["result"].items() if name != "collapsed_at"},
        "group": re.sub(r"_s\d+$", "", run.name),
        "settings": {name: settings.get(name) for name in SETTINGS},
        "curves": {
            tag: [[row["step"], float(f"{row[tag]:.4g}")] for row in rows if np.isfinite(row.get(tag, np.nan))]
            for tag in CURVES
        },
        "alarms": [] if settings["method"] == "standard" else alarms(rows),
    }


def alarms(rows: list[dict[str, Any]]) -> list[int]:
    """Steps at which today's rule raises the alarm; the one that a run was made with may have been another."""
    alarm = CollapseAlarm()
    return [row["step"] for row in rows if "train/fgsm" in row and alarm(row)]


def draw(name: str, runs: dict[str, Any], costs: Costs) -> list[str]:
    """Robustness against cost, a picture a radius; returns the lines that show them.

    Unless all runs were graded with the standard tier, they are judged by the two attacks that they share.
    """
    lines = []
    tiers = {run["result"]["grade"]["tier"] for run in runs.values() if "grade" in run["result"]}
    score, by = (after_all, "AutoAttack") if tiers == {"standard"} else (after_both, "APGD-CE and APGD-T")
    for eps in dict.fromkeys(run["settings"]["eps"] for run in sorted(runs.values(), key=radius)):
        points = {}
        for members in grouped({k: r for k, r in runs.items() if r["settings"]["eps"] == eps}).values():
            settings = members[0]["settings"]
            method = method_of(members[0]["group"])
            cost = cost_of(costs, settings, method)
            if method.endswith(UNDRAWN):
                continue
            if cost is not None and all("grade" in run["result"] for run in members):
                points[shown(method)] = (cost, [score(run) for run in members])
        if len(points) > 2:
            png, _ = frontier(
                points,
                DATA / f"{name}_{eps.replace('/', '-')}",
                title=f"{settings['dataset']}, {settings['norm']}, ε = {eps}: robustness against cost",
                xlabel="cost of a training step over PGD-10's",
                ylabel=f"accuracy on test images under {by}, %",
                looks=LOOKS,
            )
            lines += ["", f"![robustness against cost, ε = {eps}](at/{png.name})"]
        if name in ("digits", "cifar10-short"):
            lines += ["", draw_curves(name, eps, {k: r for k, r in runs.items() if r["settings"]["eps"] == eps})]
    return lines


def draw_curves(name: str, eps: str, runs: dict[str, Any]) -> str:
    """Held-out robustness over training, by our own probe; returns the line that shows it."""
    curves = {
        method_of(group).replace("frozen", "l2l, frozen"): [
            tuple(zip(*run["curves"]["robust/pgd10"], strict=True)) for run in members
        ]
        for group, members in grouped(runs).items()
    }
    percent = {who: [(steps, [100 * v for v in values]) for steps, values in some] for who, some in curves.items()}
    settings = next(iter(runs.values()))["settings"]
    png, _ = learning_curves(
        percent,
        DATA / f"{name}_{eps.replace('/', '-')}_curves",
        title=f"{settings['dataset']}, {settings['norm']}, ε = {eps}: robustness over training",
        ylabel="PGD-10 accuracy on held-out images, % (a probe)",
        colours=LOOKS,
    )
    return f"![held-out robustness over training, ε = {eps}](at/{png.name})"


if __name__ == "__main__":
    main()
