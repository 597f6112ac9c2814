"""Tables of docs/results/gail.md and of the README's part on imitation, made from their records."""

import json
from collections import defaultdict
from functools import partial
from typing import Any

import campaign
import numpy as np
import sensitivity
import turns
from campaign import ROOT
from pages import difference
from sensitivity import RETURN

from l2l_gail.config import GAILConfig

DATA = ROOT / "docs" / "results" / "gail"
FOLLOWERS = ("adam", "l2l")
SWEPT = ("rates", "sensitivity")
PAIRED = ("main", *SWEPT, "stress", "no-penalty", "tasks", "grid", "boundary")
# As `sensitivity` calls the tasks of the README.
ONE_PENALISED, ONE_PLAIN, FOUR_PENALISED = "GP 1, 1 demo", "GP 0, 1 demo", "GP 1, 4 demos"
NAMED = (("adam", "Adam", "gail"), ("l2l", "L2L", "l2l-gail"))  # followers, their names in the README and in its costs
recorded = partial(campaign.recorded, DATA)
CURVES = {
    RETURN: "training return",
    "disc/disc_acc": "discriminator accuracy",
    "disc/heldout_acc": "accuracy on held-out demonstrations",
    "disc/heldout_loss": "loss on held-out demonstrations",
    "disc/logit_std": "standard deviation of the policy's logits",
    "follower/rate": "discriminator rate",
    "follower/log_rate": "log rate of the rule",
}


def in_order(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs by task, number of demonstrations, follower, rate and seed."""
    keys = ("env", "num_demos", "follower", "disc_rate", "seed")
    return sorted(runs.values(), key=lambda run: tuple(run["settings"][key] for key in keys))


def demonstrations(count: int) -> str:
    """So many demonstrations, in words."""
    return f"{count} demonstration" + ("" if count == 1 else "s")


def group_of(run: dict[str, Any], runs: dict[str, Any]) -> str:
    """What a run is called in table and figure: follower, and whatever else the experiment varies but the seed."""
    varied = [
        name
        for name in ("env", "disc_rate", "num_demos", "gradient_penalty", "score_smoothing")
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
    penalty, smoothing = settings.get("score_penalty"), settings.get("score_smoothing")
    penalised = penalty not in (None, settings["gradient_penalty"])  # in the score, otherwise than in its steps
    if penalised:
        who += f", score with penalty {penalty:g}"
    if "score_smoothing" in varied and smoothing is not None and (smoothing or not penalised):
        who += f", score smoothed {smoothing:g}"
    who += ", anchored" * bool(settings.get("follower_anchored"))
    who += f", rate within {settings['log_rate_limit']:g} times" if settings.get("log_rate_limit") else ""
    if settings.get("carried"):
        who += ", carried"
    else:
        who += ", never fitted" * settings.get("freeze_follower", False)
    who += ", no hold-out" * (settings["follower"] != "adam" and settings.get("holdout") == 0)
    usual = GAILConfig().follower_steps
    if settings["follower"] != "adam" and settings.get("follower_steps", usual) != usual:
        who += f", K = {settings['follower_steps']}"
    for name, what in (("log_rate_rate", "log rate"), ("follower_rate", "network")):
        # Whoever wrote neither down left both as they are.
        options = {other["settings"].get(name) for other in runs.values() if "follower_rate" in other["settings"]}
        if len(options) > 1 and settings["follower"] != "adam":
            who += f", {what} at {settings[name]:g}"
    return ", ".join([words[name] for name in varied if name in words] + [who])


def make_table(runs: dict[str, Any]) -> list[str]:
    """One row a group: deterministic return, share of the expert, stability, discriminator, rule."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in in_order(runs):
        groups[group_of(run, runs)].append(run)
    lines = [
        "| runs | n | return, mean ± sd over seeds (each) | % of expert | worst seed, % | largest fall | late fall "
        "| D accuracy | on held-out demonstrations | held-out loss | log rate |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, members in groups.items():
        returns = np.array([run["result"]["return"]["mean"] for run in members])
        percent = np.array([run["result"]["percent_of_expert"] for run in members])
        spread = f" ± {returns.std(ddof=1):.0f}" if len(returns) > 1 else ""
        each = ", ".join(f"{value:.0f}" for value in returns)
        # Without a step there is no curve.
        falls = [sensitivity.falls(run) for run in members if "stability" in run["result"]]
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
            *("–" if np.isnan(fall) else f"{fall:.0f}" for fall in sensitivity.mean_of_known(falls or [(np.nan,) * 2])),
            *(f"{last[tag]:.2f}" if tag in last else "–" for tag in list(CURVES)[1:4]),
            f"{last['follower/log_rate']:+.2f}" if "follower/log_rate" in last else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def version(settings: dict[str, Any]) -> str | None:
    """What a follower is called among those that shipped: a learned rule without penalty was scored on smoothed labels
    before it was anchored and scored with a penalty. None for what was only tried."""
    who, smoothed = settings["follower"], bool(settings.get("score_smoothing"))
    if settings.get("log_rate_limit"):
        return f"{who}, rate limited"
    if who == "adam" or settings["gradient_penalty"]:
        return who
    if settings.get("follower_anchored"):
        return who if settings["score_penalty"] and not smoothed else None
    return f"{who}, score smoothed" if smoothed else None


def paired_table() -> list[str]:
    """What separates the followers on the same seeds, in points of the expert's return."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in in_order({f"{name}/{key}": run for name in PAIRED for key, run in recorded(name).items()}):
        settings = run["settings"]
        if settings["follower"] in FOLLOWERS:
            who = version(settings)
            if who is None:
                continue
            where = "" if settings["env"] == "HalfCheetah-v4" else f"{settings['env']}, "
            game = f"GP {settings['gradient_penalty']:g}, rate {sensitivity.rate_name(settings['disc_rate'])}"
            length = f"{settings['disc_updates']} D steps a round, {settings['steps'] / 1e6:g}M"
            task = f"{where}{demonstrations(settings['num_demos'])}, {game}, {length}"
            found[task][who][settings["seed"]] = run["result"]["percent_of_expert"]
    lines = ["| L2L − Adam | n | % of expert, points (each seed) | 95 % interval |", "|---|---|---|---|"]
    for task, of in found.items():
        for who in sorted(of.keys() - {"adam"}):
            if shared := of["adam"].keys() & of[who].keys():
                note = who.removeprefix("l2l")
                lines.append(f"| {task}{note} | {len(shared)} | {difference(of[who], of['adam'])} |")
    return lines


def readme_tables() -> dict[str, list[str]]:
    """The short tables of the README: the main job with its cost, and the rate that nobody tuned."""
    main = recorded("main").values()
    cost = json.loads((DATA / "throughput.json").read_text())["summary"]
    job = [
        "| follower | n | return, mean ± sd over seeds | % of the demonstrations | steps/s over plain PPO's |",
        "|---|---|---|---|---|",
    ]
    for follower, title, key in NAMED:
        results = [run["result"] for run in main if run["settings"]["follower"] == follower]
        returns = np.array([result["return"]["mean"] for result in results])
        percent = np.mean([result["percent_of_expert"] for result in results])
        job.append(
            f"| {title} | {len(results)} | {returns.mean():.0f} ± {returns.std(ddof=1):.0f} | {percent:.1f} "
            f"| {cost[key]['ratio']:.2f} |"
        )
    return {"main-job": job, "rates": rates_table()}


def rates_table() -> list[str]:
    """Both followers over the discriminator's rate: one demonstration, four, and one without the penalty."""
    found = sensitivity.collect(swept())
    heads = ["% of the demonstrations, mean over seeds (worst, n), by D rate"]
    heads += map(sensitivity.rate_name, sensitivity.RATES)
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]

    def add(title: str, cells: list[list[float]]) -> None:
        shown = [f"{np.mean(cell):.1f} ({min(cell):.1f}, {len(cell)})" if cell else "–" for cell in cells]
        lines.append("| " + " | ".join([title, *shown]) + " |")

    for task, note in ((ONE_PENALISED, ""), (FOUR_PENALISED, ", 4 demonstrations"), (ONE_PLAIN, ", no penalty")):
        for follower, title, _ in NAMED:
            by_rate = sensitivity.of(found, follower, task)
            add(title + note, [[out.percent for out in by_rate[rate].values()] for rate in sensitivity.RATES])
        if not note:
            alone = [run for run in recorded("rates").values() if run["settings"]["follower"] == "l2l-rate"]
            cells = {rate: [run for run in alone if run["settings"]["disc_rate"] == rate] for rate in sensitivity.RATES}
            add(
                "L2L, log rate alone",
                [[run["result"]["percent_of_expert"] for run in some] for some in cells.values()],
            )
    return lines


def swept() -> list[dict[str, Any]]:
    """All runs that were made to see how much the discriminator's rate matters."""
    return [run for name in SWEPT for run in recorded(name).values()]


def throughput_table(record: dict[str, Any]) -> list[str]:
    """What benchmarks/gail_throughput.py measured."""
    lines = turns.table(record, "steps_per_second", "ppo", "steps_per_second", "steps/s", 0)
    machine = record["machine"]
    network = "×".join(map(str, record["settings"]["disc_hidden"]))
    gpu = f" {machine['gpu']};" if record["device"] == "cuda" else ""
    where = f"{gpu} {machine['cpu']}, {machine['cores']} cores, one thread"
    return [*lines, "", f"Discriminator {network}. Machine:{where}."]


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
