"""Tables and figures of docs/results/gail.md: python benchmarks/gail_report.py [--runs runs/gail]

With --runs, the finished runs there are first condensed into docs/results/gail/EXPERIMENT.json (settings, versions,
result, curves on a grid of 100 points); those files are the record. Without it, the page is made from them again.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diagnosis
import gail_reliability
import gail_slopes
import numpy as np
import sensitivity
import tyro
import yaml
from campaign import ROOT, coverage
from gail_experiments import experiments
from gail_tables import (
    CURVES,
    DATA,
    RETURN,
    demonstrations,
    group_of,
    in_order,
    make_table,
    paired_table,
    plain_table,
    recorded,
    swept,
    throughput_table,
    version,
)
from pages import condense, update

from l2l_experiment import events
from l2l_experiment.figures import learning_curves
from l2l_experiment.stability import interquartile_mean, on_grid
from l2l_gail.config import from_run

PAGE = ROOT / "docs" / "results" / "gail.md"
POINTS = 100
TITLES = {
    "main": "main job",
    "earlier": "earlier version",
    "rates": "no rate to tune",
    "score_on_seen": "scored on the rollout seen",
    "stress": "no gradient penalty",
    "ablation": "parts of the rule",
    "boundary": "3M steps",
    "no-penalty": "rules without a penalty",
    "tasks": "after cloning",
    "scratch": "from scratch",
    "constant": "constant reward",
    "filter": "running filter",
}
SPLIT = {"no-penalty": "disc_rate"}  # what tells an experiment's pictures apart, if not the follower
ABLATED_RATE = 3e-5
META = ("log_rate_rate", "follower_rate")
RULE = ("holdout", "follower_steps", "freeze_follower")


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
    contents = {}
    for path in sorted(DATA.glob("*.json")):
        content = json.loads(path.read_text())
        if "rows" in content:
            contents[path.stem] = plain_table(content["rows"])
        elif "runs" in content:
            runs = with_related(path.stem, content["runs"])
            contents[path.stem] = [*make_table(runs), "", *draw(path.stem, runs)]
        elif "drawings" in content:
            contents[path.stem] = diagnosis.show(content, path)
        elif "slopes" in content:
            contents[path.stem] = [*gail_slopes.table(content, ended), "", *gail_slopes.draw(content, DATA / path.stem)]
        else:
            contents[path.stem] = throughput_table(content)
    found = sensitivity.collect(swept())
    contents["merit"] = [*sensitivity.table(found), "", *sensitivity.draw(found, DATA / "merit")]
    contents["paired"] = paired_table()
    contents["reliability"] = gail_reliability.table()
    contents["coverage"] = coverage(experiments(), DATA)
    update(PAGE, contents)


def ended(who: str, rate: float, seed: int, penalised: bool) -> float | None:
    """What a follower's run with one demonstration made in the end, in percent of the expert; None if there is none."""
    wanted = {"follower": who, "disc_rate": rate, "seed": seed, "gradient_penalty": float(penalised), "num_demos": 1}
    found = [
        run["result"]["percent_of_expert"]
        for run in [*swept(), *recorded("no-penalty").values()]
        if all(run["settings"][name] == value for name, value in wanted.items())
        and who in ("l2l-rate", version(run["settings"]))
    ]
    return found[0] if found else None


def with_related(name: str, runs: dict[str, Any]) -> dict[str, Any]:
    """An experiment's runs with those of other experiments that belong into its table and were not made twice."""
    others = {"grid": ("main", "tasks"), "ablation": ("rates", "tasks"), "no-penalty": ("sensitivity",)}.get(name, ())
    rates = {run["settings"]["disc_rate"] for run in runs.values()}
    related = {
        f"{other}/{key}": run
        for other in others
        for key, run in recorded(other).items()
        # The rule's parts are taken away at the rate that is too small, and it is carried to the other tasks.
        if not (other == "rates" and run["settings"]["disc_rate"] != ABLATED_RATE)
        and not (other == "sensitivity" and not beside(run["settings"], rates))
    }
    return related | runs


def beside(settings: dict[str, Any], rates: set[float]) -> bool:
    """Whether a run of the sweep is one of those without penalty, on one demonstration, at one of the rates."""
    return settings["gradient_penalty"] == 0 and settings["num_demos"] == 1 and settings["disc_rate"] in rates


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
    names = ("env", "follower", "seed", "disc_rate", "disc_updates", "gradient_penalty", "disc_hidden", *META)
    kept = {name: settings[name] for name in (*names, *RULE)}
    kept |= {name: config[name] for name in ("steps", "num_demos")} | {"carried": bool(config["follower_from"])}
    if settings["follower"] != "adam":
        scored = from_run(settings)
        kept |= {name: getattr(scored, name) for name in ("score_smoothing", "score_penalty", "follower_anchored")}
        kept |= {"log_rate_limit": scored.log_rate_limit} if scored.log_rate_limit else {}
    return kept


def curve(rows: list[dict[str, Any]], tag: str, grid: np.ndarray) -> list[float | None]:
    """A figure of a run on the grid, five digits; None where there is none yet."""
    points = [(row["step"], row[tag]) for row in rows if tag in row and np.isfinite(row[tag])]
    values = on_grid(*zip(*points, strict=True), grid)
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values]


def draw(name: str, runs: dict[str, Any]) -> list[str]:
    """The experiment's figures, in place of its earlier ones; returns the lines that show them."""
    for old in [*DATA.glob(f"{name}*.png"), *DATA.glob(f"{name}*.svg")]:
        old.unlink()
    lines = []
    runs = {key: run for key, run in runs.items() if run["curves"]}
    if not runs or name == "sensitivity":  # which is drawn over the rate instead, not over steps
        return lines
    split = "env" if len({run["settings"]["env"] for run in runs.values()}) > 1 else SPLIT.get(name, "follower")
    panels = sorted({run["settings"][split] for run in runs.values()}) if len(runs) > 8 or split == "env" else [None]
    by_panel = {
        panel: {key: run for key, run in runs.items() if panel is None or run["settings"][split] == panel}
        for panel in panels
    }
    # What is called the same has one colour in all of an experiment's pictures.
    names = list(dict.fromkeys(group_of(run, some) for some in by_panel.values() for run in in_order(some)))
    for panel, members in by_panel.items():
        title = f"{TITLES.get(name, name)}: {next(iter(members.values()))['settings']['env']}"
        if len(counts := {run["settings"]["num_demos"] for run in members.values()}) == 1:
            title += f", {demonstrations(*counts)}"
        label = sensitivity.rate_name(panel) if split == "disc_rate" and panel is not None else panel
        if panel is not None and split != "env":
            title += f", {label}"
        stem = name if panel is None else f"{name}_{label}"
        lines += [f"![{title}, return](gail/{draw_returns(DATA / stem, title, members, names).name})", ""]
        learned = {key: run for key, run in members.items() if "follower/log_rate" in run["curves"]}
        if learned:
            png, _ = learning_curves(
                curves_of(learned, "follower/rate", np.log10),
                DATA / f"{stem}_rate",
                ylabel="log10 of the discriminator's learning rate",
                title=f"{title}: the rate that the rule chose",
                colours=names,
            )
            lines += [f"![{title}, rate](gail/{png.name})", ""]
    return lines[:-1]


def draw_returns(stem: Path, title: str, runs: dict[str, Any], names: list[str]) -> Path:
    """Training return over steps, with the expert's and a random policy's."""
    png, _ = learning_curves(
        curves_of(runs, RETURN),
        stem,
        ylabel="training return (true, with noise)",
        title=title,
        colours=names,
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
