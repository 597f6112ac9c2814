"""Cards: what each shipped set of demonstrations is and how it was made, as JSON beside it and as one README.md."""

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from l2l_experiment import provenance
from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.experts.recording import RecordedEpisodes
from l2l_gail.experts.settings import ALGORITHM_SETTINGS, MAY_CHANGE, ExpertSettings

PAGE = resources.files("l2l_gail.experts").joinpath("page.md").read_text(encoding="utf-8")  # how README.md begins


def card(
    settings: ExpertSettings,
    demonstrations: Demonstrations,
    played: RecordedEpisodes,
    *,
    trained_steps: int,
    command: str,
) -> dict[str, Any]:
    """The card of a data set, ready for JSON. The standard deviation is that of the sample (n − 1)."""
    returns = demonstrations.returns
    of_others = {name for names in ALGORITHM_SETTINGS.values() for name in names} - {*ALGORITHM_SETTINGS[settings.algo]}
    idle = MAY_CHANGE | {"env", "select_episodes"} | of_others  # did not shape the policy
    selection, rule = "the policy at the end of training.", "every episode is kept."
    if settings.select_episodes:
        selection = (
            f"of the policies after every {settings.checkpoint_every:,} of {settings.steps:,} steps, the one with the "
            f"highest mean return over {settings.select_episodes} deterministic episodes (not those recorded)."
        )
    if settings.min_return is not None:
        rule = (
            f"episodes from consecutive reset seeds; those that return less than {settings.min_return:g} are dropped, "
            "and nothing is written if they are more than half."
        )
    return {
        "dataset_id": demonstrations.source,
        "environment": demonstrations.env_id,
        "command": command,
        "algorithm": settings.algo,
        "trained_steps": trained_steps,
        "seed": settings.seed,
        "settings": {name: value for name, value in asdict(settings).items() if name not in idle},
        "versions": provenance.versions(),
        "machine": provenance.machine()["platform"],
        "selection": selection,
        "policy": "deterministic (the mean action, clipped to the bounds)",
        "rule": rule,
        "episodes": len(demonstrations),
        "episodes_dropped": len(played.dropped),
        "returns_dropped": [round(value, 2) for value in played.dropped],
        "return_mean": round(float(returns.mean()), 2),
        "return_sd": round(float(returns.std(ddof=1)), 2) if len(returns) > 1 else 0.0,
        "returns": [round(float(value), 2) for value in returns],
        "lengths": [len(episode) for episode in demonstrations.episodes],
        "reset_seeds": played.seeds,
    }


def check_readme(root: Path) -> None:
    """UserError if there is a README.md that is not one of these pages: it would be written over."""
    path = root / "README.md"
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(PAGE.splitlines()[0]):
        raise UserError(f"{path} is not a page of demonstrations and would be written over; name another --out")


def write_readme(root: Path) -> None:
    """Rewrites root/README.md from every card below it; what a row leaves out stands in the card."""
    cards = [json.loads(file.read_text()) for file in sorted(root.rglob("card.json"))]
    cards = [card for card in cards if "dataset_id" in card]  # classifiers have cards, too
    rows = [
        f"| `{c['dataset_id']}` | {c['environment']} | {c['algorithm'].upper()} | {c['trained_steps']:,} "
        f"| {c['episodes']} | {c['return_mean']:.0f} ± {c['return_sd']:.0f} | {min(c['returns']):.0f} "
        f"| {c['episodes_dropped']} | {c['versions']['mujoco']} |"
        for c in cards
    ]
    commands = [f"    {c['command']}" for c in cards]
    text = "\n".join([*rows, "", "How they were made (all settings, seeds and versions: `card.json`):", "", *commands])
    (root / "README.md").write_text(PAGE + text + "\n", encoding="utf-8")
