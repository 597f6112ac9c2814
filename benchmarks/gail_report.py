"""Tables and figures of docs/results/gail.md: python benchmarks/gail_report.py [--runs runs/gail]

With --runs, the finished runs there are first condensed into docs/results/gail/EXPERIMENT.json (settings, versions,
result, curves on a grid of 100 points); those files are the record. Without it, the page is made from them again.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sensitivity
import tyro
import yaml
from campaign import ROOT
from pages import condense, update

from l2l_experiment import events
from l2l_experiment.figures import learning_curves
from l2l_experiment.stability import interquartile_mean, on_grid
from l2l_gail.config import from_dict

PAGE = ROOT / "docs" / "results" / "gail.md"
DATA = ROOT / "docs" / "results" / "gail"
POINTS = 100
RETURN = "rollout/ep_rew_mean"
TITLES = {
    "main": "main job",
    "earlier": "earlier version",
    "rates": "no rate to tune",
    "score_on_seen": "scored on the rollout seen",
    "stress": "no gradient penalty",
    "boundary": "no gradient penalty, 3M steps",
    "tasks": "after cloning",
    "scratch": "from scratch",
    "constant": "constant reward",
    "filter": "running filter",
}
SWEPT = ("rates", "sensitivity")
ABLATED_RATE = 3e-5
RULE = ("holdout", "follower_steps", "freeze_follower")
CURVES = {
    RETURN: "training return",
    "disc/disc_acc": "discriminator accuracy",
    "disc/heldout_acc": "accuracy on held-out demonstrations",
    "disc/heldout_loss": "loss on held-out demonstrations",
    "follower/rate": "discriminator rate",
    "follower/log_rate": "log rate of the rule",
}


@dataclass(frozen=True)
class Args:
    """Build docs/results/gail.md from its records."""

    runs: Path | None = None
    """Take in the finished runs of this folder (OUT of gail_experiments.py) first."""


def main() -> None:
    """Condense, draw, write."""
    args = tyro.cli(Args)
    if args.runs is not None:
        condense(args.runs, DATA, extract)
    contents, swept = {}, []
    for path in sorted(DATA.glob("*.json")):
        content = json.loads(path.read_text())
        if "rows" in content:
            contents[path.stem] = plain_table(content["rows"])
        elif "runs" in content:
            runs = with_related(path.stem, content["runs"])
            contents[path.stem] = [*make_table(runs), "", *draw(path.stem, runs)]
            swept += content["runs"].values() if path.stem in SWEPT else []
        else:
            contents[path.stem] = throughput_table(content)
    found = sensitivity.collect(swept)
    contents["merit"] = [*sensitivity.table(found), "", *sensitivity.draw(found, DATA / "merit")]
    update(PAGE, contents)


def with_related(name: str, runs: dict[str, Any]) -> dict[str, Any]:
    """An experiment's runs with those of other experiments that belong into its table and were not made twice."""
    others = {"grid": ("main", "tasks"), "ablation": ("rates", "tasks")}.get(name, ())
    related = {
        f"{other}/{key}": run
        for other in others
        for key, run in json.loads((DATA / f"{other}.json").read_text())["runs"].items()
        # The rule's parts are taken away at the rate that is too small, and it is carried to the other tasks.
        if not (other == "rates" and run["settings"]["disc_rate"] != ABLATED_RATE)
    }
    return related | runs


def extract(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of a finished run beside its result."""
    # Behaviour cloning alone has no steps, and so no curves.
    rows = events.read(run / events.METRICS) if (run / events.METRICS).is_file() else []
    grid = np.linspace(rows[0]["step"], rows[-1]["step"], POINTS) if rows else np.empty(0)
    return {
        "settings": settings_of(run),
        "grid": [round(float(step)) for step in grid],
        "curves": {tag: curve(rows, tag, grid) for tag in CURVES if any(tag in row for row in rows)},
    }


def settings_of(run: Path) -> dict[str, Any]:
    """The settings of a run that the experiments vary."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    settings = config["settings"]
    names = ("env", "follower", "seed", "disc_rate", "disc_updates", "gradient_penalty", "disc_hidden", "log_rate_rate")
    kept = {name: settings[name] for name in (*names, *RULE)}
    kept |= {name: config[name] for name in ("steps", "num_demos")} | {"carried": bool(config["follower_from"])}
    if settings["follower"] != "adam":
        scoring = from_dict(settings).scoring
        # Runs that are older than the setting were scored on the objective of their steps.
        kept["score_smoothing"] = scoring.label_smoothing if "score_smoothing" in settings else 0.0
    return kept


def curve(rows: list[dict[str, Any]], tag: str, grid: np.ndarray) -> list[float | None]:
    """A figure of a run on the grid, five digits; None where there is none yet."""
    points = [(row["step"], row[tag]) for row in rows if tag in row and np.isfinite(row[tag])]
    values = on_grid(*zip(*points, strict=True), grid)
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values]


def group_of(run: dict[str, Any], runs: dict[str, Any]) -> str:
    """What a run is called in table and figure: follower, and whatever else the experiment varies but the seed."""
    varied = [
        name
        for name in ("env", "disc_rate", "num_demos", "gradient_penalty", "score_smoothing", "follower_steps")
        if len({json.dumps(other["settings"][name]) for other in runs.values() if name in other["settings"]}) > 1
    ]
    settings = run["settings"]
    words = {
        "env": settings["env"],
        "disc_rate": f"rate {settings['disc_rate']:.0e}".replace("e-0", "e-"),
        "num_demos": demonstrations(settings["num_demos"]),
        "gradient_penalty": f"GP {settings['gradient_penalty']:g}",
    }
    # Without a step nobody but behaviour cloning was at work.
    who = settings["follower"] if settings["steps"] else "cloning alone"
    if "score_smoothing" in varied and "score_smoothing" in settings:
        who += f", score smoothed {settings['score_smoothing']:g}"
    if settings.get("carried"):
        who += ", carried"
    else:
        who += ", never fitted" * settings.get("freeze_follower", False)
    who += ", no hold-out" * (settings["follower"] != "adam" and settings.get("holdout") == 0)
    if "follower_steps" in varied and settings["follower"] != "adam":
        who += f", K = {settings['follower_steps']}"
    return ", ".join([words[name] for name in varied if name in words] + [who])


def in_order(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs by task, number of demonstrations, follower, rate and seed."""
    keys = ("env", "num_demos", "follower", "disc_rate", "seed")
    return sorted(runs.values(), key=lambda run: tuple(run["settings"][key] for key in keys))


def demonstrations(count: int) -> str:
    """So many demonstrations, in words."""
    return f"{count} demonstration" + ("" if count == 1 else "s")


def make_table(runs: dict[str, Any]) -> list[str]:
    """One row a group: deterministic return, share of the expert, stability, discriminator, rule."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in in_order(runs):
        groups[group_of(run, runs)].append(run)
    lines = [
        "| runs | n | return, mean ± sd over seeds (each) | % of expert | worst seed, % | largest fall | drawdown CVaR "
        "| D accuracy | on held-out | held-out loss | log rate |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, members in groups.items():
        returns = np.array([run["result"]["return"]["mean"] for run in members])
        percent = np.array([run["result"]["percent_of_expert"] for run in members])
        spread = f" ± {returns.std(ddof=1):.0f}" if len(returns) > 1 else ""
        each = ", ".join(f"{value:.0f}" for value in returns)
        stability = {
            key: np.mean([run["result"]["stability"][key] for run in members])
            for key in ("largest_fall", "drawdown_cvar")
            if all("stability" in run["result"] for run in members)
        }
        last = {
            tag: np.mean([run["curves"][tag][-1] for run in members])
            for tag in CURVES
            if all(tag in run["curves"] for run in members)
        }
        cells = [
            name,
            str(len(members)),
            f"{returns.mean():.0f}{spread} ({each})",
            f"{percent.mean():.1f}",
            f"{percent.min():.1f}",
            *(f"{stability[key]:.0f}" if key in stability else "–" for key in ("largest_fall", "drawdown_cvar")),
            *(f"{last[tag]:.2f}" if tag in last else "–" for tag in list(CURVES)[1:4]),
            f"{last['follower/log_rate']:+.2f}" if "follower/log_rate" in last else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def readme_tables() -> dict[str, list[str]]:
    """The short tables of the README: the main job with its cost, and the rate that nobody tuned."""
    names = ("main", "rates", "stress")
    main, rates, stress = (list(json.loads((DATA / f"{name}.json").read_text())["runs"].values()) for name in names)
    # The score of the settings that ship; what it was before stands on the page of results.
    shipped = [*rates, *(run for run in stress if run["settings"].get("score_smoothing") != 0)]
    cost = json.loads((DATA / "throughput.json").read_text())["summary"]
    job = [
        "| follower | n | return, mean ± sd over seeds | % of the demonstrations | steps/s over plain PPO's |",
        "|---|---|---|---|---|",
    ]
    table = [
        "| % of the demonstrations, mean over seeds (worst) | 3e-5 | 3e-4 | 3e-3 | 1e-3, no penalty, 2M steps |",
        "|---|---|---|---|---|",
    ]
    for follower, title, key in (("adam", "Adam", "gail"), ("l2l", "L2L", "l2l-gail")):
        results = [run["result"] for run in main if run["settings"]["follower"] == follower]
        returns = np.array([result["return"]["mean"] for result in results])
        percent = np.mean([result["percent_of_expert"] for result in results])
        job.append(
            f"| {title} | {len(results)} | {returns.mean():.0f} ± {returns.std(ddof=1):.0f} | {percent:.1f} "
            f"| {cost[key]['ratio']:.2f} |"
        )
        cells = []
        for rate in (3e-5, 3e-4, 3e-3, 1e-3):
            percents = [
                run["result"]["percent_of_expert"]
                for run in shipped
                if run["settings"]["follower"] == follower and run["settings"]["disc_rate"] == rate
            ]
            cells.append(f"{np.mean(percents):.1f} ({min(percents):.1f})")
        table.append(f"| {title} | " + " | ".join(cells) + " |")
    return {"main-job": job, "rates": table}


def throughput_table(record: dict[str, Any]) -> list[str]:
    """What benchmarks/gail_throughput.py measured."""
    repeats = len(record["steps_per_second"]["ppo"])
    lines = [f"| {record['device']}, n = {repeats} turns | steps/s | ratio to PPO | quartiles |", "|---|---|---|---|"]
    for name, row in record["summary"].items():
        low, high = row["quartiles"]
        lines.append(f"| {name} | {row['steps_per_second']:.0f} | {row['ratio']:.2f} | {low:.2f}–{high:.2f} |")
    return [*lines, "", f"Machine: {record['machine']['cpu']}, {record['machine']['cores']} cores, one thread."]


def plain_table(rows: list[dict[str, Any]]) -> list[str]:
    """The list of single runs of exploration.json."""
    lines = [
        "| setting | change | seed | steps | deterministic return | training return at each quarter | on its back |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        measured = "–" if row["return_mean"] is None else f"{row['return_mean']} ± {row['return_sd']}"
        quarters = ", ".join(map(str, row["training_return_at_quarters"]))
        back = "–" if row["share_upside_down"] is None else f"{row['share_upside_down']:.0%}"
        cells = [row["setting"], row["change"], str(row["seed"]), f"{row['steps']:,}", measured, quarters, back]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(name: str, runs: dict[str, Any]) -> list[str]:
    """The experiment's figures, in place of its earlier ones; returns the lines that show them."""
    for old in [*DATA.glob(f"{name}*.png"), *DATA.glob(f"{name}*.svg")]:
        old.unlink()
    lines = []
    runs = {key: run for key, run in runs.items() if run["curves"]}
    if not runs or name == "sensitivity":  # which is drawn over the rate instead, not over steps
        return lines
    split = "env" if len({run["settings"]["env"] for run in runs.values()}) > 1 else "follower"
    panels = sorted({run["settings"][split] for run in runs.values()}) if len(runs) > 8 or split == "env" else [None]
    for panel in panels:
        members = {key: run for key, run in runs.items() if panel is None or run["settings"][split] == panel}
        title = f"{TITLES.get(name, name)}: {next(iter(members.values()))['settings']['env']}"
        if len(counts := {run["settings"]["num_demos"] for run in members.values()}) == 1:
            title += f", {demonstrations(*counts)}"
        if panel is not None and split != "env":
            title += f", {panel}"
        stem = name if panel is None else f"{name}_{panel}"
        lines += [f"![{title}, return](gail/{draw_returns(DATA / stem, title, members).name})", ""]
        learned = {key: run for key, run in members.items() if "follower/log_rate" in run["curves"]}
        if learned:
            png, _ = learning_curves(
                curves_of(learned, "follower/rate", np.log10),
                DATA / f"{stem}_rate",
                ylabel="log10 of the discriminator's learning rate",
                title=f"{title}: the rate that the rule chose",
                colours=[group_of(run, members) for run in in_order(members)],
            )
            lines += [f"![{title}, rate](gail/{png.name})", ""]
    return lines[:-1]


def draw_returns(stem: Path, title: str, runs: dict[str, Any]) -> Path:
    """Training return over steps, with the expert's and a random policy's."""
    png, _ = learning_curves(
        curves_of(runs, RETURN),
        stem,
        ylabel="training return (true, with noise)",
        title=title,
        reference={
            "expert": float(interquartile_mean([run["result"]["expert"]["mean"] for run in runs.values()])),
            "random": float(interquartile_mean([run["result"]["random"]["mean"] for run in runs.values()])),
        },
    )
    return png


def curves_of(runs: dict[str, Any], tag: str, transform: Any = np.asarray) -> dict[str, list[Any]]:
    """A figure's curves by group, each a pair of steps and values."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for run in in_order(runs):
        points = [
            (step, value) for step, value in zip(run["grid"], run["curves"][tag], strict=True) if value is not None
        ]
        steps, values = zip(*points, strict=True)
        groups[group_of(run, runs)].append((list(steps), transform(values)))
    return dict(groups)


if __name__ == "__main__":
    main()
