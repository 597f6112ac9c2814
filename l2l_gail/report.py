"""What a run says at its start and its end."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from l2l_experiment import metrics
from l2l_experiment.run import Run
from l2l_experiment.stability import first_reached, near_expert_return, summarise
from l2l_gail import alarms, evaluation
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.environments import Environment
from l2l_gail.followers.recipes import SHIPPED
from l2l_gail.gail import GAIL
from l2l_gail.notes import notes

RETURN = "rollout/ep_rew_mean"


def announce(gail: GAIL, demonstrations: Demonstrations | None, folder: Path) -> str:
    """The task, the demonstrations and what is unusual about them, in a few lines."""
    if demonstrations is None:
        task = f"{gail.env.name}: no demonstrations, a learned reward as it is"
    else:
        mean = demonstrations.mean_return
        returns = f"with a mean return of {mean:.0f}" if np.isfinite(mean) else "without rewards"
        task = f"{gail.env.name}: {len(demonstrations)} demonstrations {returns} ({demonstrations.source})"
    first = f"{task}; follower {gail.config.follower}; run folder {folder}"
    if getattr(gail.leader.algorithm, "compiled", False):
        first += "\nThe policy's updates are compiled, which takes half a minute; --compile False does without."
    return "\n".join([first, *(f"note: {note}" for note in notes(gail.config, gail.env, fixed=gail.fixed))])


def result(gail: GAIL, demonstrations: Demonstrations | None, folder: Path, episodes: int) -> dict[str, Any]:
    """The figures of a finished run for its record: true returns, alarms, stability of the training return."""
    measured = evaluation.returns(gail.leader.algorithm, gail.env, episodes=episodes, filter_of=gail.envs)
    chance = evaluation.random_returns(gail.env, episodes=episodes)
    found: dict[str, Any] = {
        "return": evaluation.summary(measured),
        "random": evaluation.summary(chance),
        "evaluation_seed": evaluation.EVALUATION_SEED,
        "skipped_fits": getattr(gail.follower, "skipped", 0),
    }
    if demonstrations is not None:
        found["expert"] = evaluation.summary(demonstrations.returns)
        expert = demonstrations.mean_return
        found["percent_of_expert"] = evaluation.percent(measured.mean(), expert)
        found["percent_from_random"] = evaluation.percent(measured.mean() - chance.mean(), expert - chance.mean())
    if gail.bc_loss is not None:
        found["bc_loss"] = gail.bc_loss
    log = folder / metrics.METRICS
    everything = metrics.read(log) if log.is_file() else []
    found |= alarms.ongoing_since(everything)
    rows = [row for row in everything if np.isfinite(row.get(RETURN, np.nan))]
    if len(rows) > 1:
        steps, returns = (np.array([row[key] for row in rows]) for key in ("step", RETURN))
        found["stability"] = summarise(steps, returns)
        if (
            "expert" in found
            and (level := near_expert_return(found["expert"]["mean"], found["random"]["mean"])) is not None
        ):
            first = first_reached(steps, returns, level)
            found["near_expert_from"] = None if np.isnan(first) else int(first)
    return found


def returns_text(result: dict[str, Any]) -> list[str]:
    """The imitator's return beside those of its demonstrations and of a random policy, a line each."""
    lines = []
    for name, label in (("return", "imitator"), ("expert", "demonstrations"), ("random", "random policy")):
        if (row := result.get(name)) is None:
            continue
        if not np.isfinite(row["mean"]):
            why = "their file holds no rewards" if name == "expert" else "the environment's reward is NaN or infinite"
            lines.append(f"  {label:15} {why}, so there is no return to compare with")
            continue
        share = evaluation.percent(row["mean"], result["expert"]["mean"]) if "expert" in result else None
        of_expert = "" if share is None else f"   {share:6.1f} % of expert"
        if share is None and name == "return" and (way := result.get("percent_from_random")) is not None:
            of_expert = f"   {way:6.1f} % of the way from random to expert"
        lines.append(f"  {label:15} {row['mean']:9.1f} ± {row['sd']:7.1f}{of_expert}   n = {row['n']}")
    return lines


def text(result: dict[str, Any], run: Run, gail: GAIL) -> str:
    """The end of a run in a few lines."""
    config = gail.config
    lines = [f"\n{gail.env.name}, {config.follower} follower, {run.record['steps']:,} steps, seed {config.seed}", ""]
    lines += returns_text(result)
    if (first := result.get("near_expert_from")) is not None:
        level = near_expert_return(result["expert"]["mean"], result["random"]["mean"])
        lines.append(f"  training return near the expert's ({level:.0f}) from step {first:,}")
    if needs_noise(result):
        last = result["stability"]["final"]
        lines.append(f"  with its exploration noise the policy is far better ({last:.1f} at the end of training):")
        lines.append("  train longer, or sample its actions (play: --stochastic, predict: deterministic=False)")
    if skipped := result["skipped_fits"]:
        lines.append(f"  {skipped} fits of the learned rule were skipped, because their score was NaN or infinite")
    for name, trouble in alarms.TROUBLES.items():
        if (step := result.get(name)) is not None:
            lines.append(f"  ALARM: from step {step:,} on {trouble.to_the_end}")
    if "stability" in result:
        lines += ["", "  stability of the training return (in its units; relative: a share of the peak):"]
        known = {name: value for name, value in result["stability"].items() if np.isfinite(value)}
        lines += [f"    {name.replace('_', ' '):22} {value:10.4g}" for name, value in known.items()]
    lines += [
        "",
        f"  Everything is in {run.folder}: record.json, metrics.jsonl, checkpoints/, policy.zip and",
        "  observation_filter.pkl (they open in plain Stable-Baselines3).",
        f"  Watch it:    {watch_hint(gail.env, run.folder, config.follower)}",
        f"  See curves:  tensorboard --logdir {shlex.quote(str(run.folder.parent))}",
    ]
    return "\n".join(lines)


def needs_noise(result: dict[str, Any]) -> bool:
    """Whether in training, with exploration noise, the policy got more than halfway from random to expert, but its
    deterministic actions less than a quarter of the way."""
    trained, chance = result.get("stability", {}).get("final", np.nan), result["random"]["mean"]
    expert = result.get("expert", {}).get("mean", np.nan)
    half = (expert - chance) / 2
    return bool(half > 0 and trained - chance > half > 2 * (result["return"]["mean"] - chance))


def watch_hint(env: Environment, folder: Path, follower: str = "adam") -> str:
    """How to watch a run's policy: the play command, or `GAIL.load` where only the program that trained it knows its
    follower, or its environment, which was registered with a function."""
    if follower not in SHIPPED:
        return f"GAIL.load({str(folder)!r}) in a program that adds the follower {follower}"
    if ":" in env.name:  # its module is imported only if one says so
        return shlex.join(["l2l-play", str(folder), "--env", env.name])
    if not isinstance(env.spec.entry_point, str):
        return f"GAIL.load({str(folder)!r}) in a program that registers {env.name}"
    return shlex.join(["l2l-play", str(folder)])
