"""Cards: what each shipped set of demonstrations is and how it was made, as JSON beside it and as one README.md."""

import json
import platform
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations import Demonstrations
from l2l_gail.experts.recording import Played

PACKAGES = ("torch", "stable-baselines3", "gymnasium", "mujoco", "numpy")


def card(
    *,
    dataset_id: str,
    demonstrations: Demonstrations,
    played: Played,
    settings: Mapping[str, Any],
    trained_steps: int,
    command: str,
    selection: str,
    min_return: float | None,
) -> dict[str, Any]:
    """The card of a data set, ready for JSON. The standard deviation is that of the sample (n − 1)."""
    returns = demonstrations.returns
    packages = (*PACKAGES, "sb3-contrib") if settings["algo"] == "trpo" else PACKAGES
    return {
        "dataset_id": dataset_id,
        "environment": demonstrations.env_id,
        "command": command,
        "algorithm": settings["algo"],
        "trained_steps": trained_steps,
        "seed": settings["seed"],
        "settings": dict(settings),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "machine": f"{platform.system()} {platform.machine()}",
        "selection": selection,
        "policy": "deterministic (the mean action, clipped to the bounds)",
        "rule": _rule(min_return),
        "episodes": len(demonstrations),
        "episodes_dropped": len(played.dropped),
        "returns_dropped": [round(value, 2) for value in played.dropped],
        "return_mean": round(float(returns.mean()), 2),
        "return_sd": round(float(returns.std(ddof=1)), 2) if len(returns) > 1 else 0.0,
        "returns": [round(float(value), 2) for value in returns],
        "lengths": [len(episode) for episode in demonstrations.episodes],
        "reset_seeds": list(played.seeds),
    }


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Puts the card beside the data."""
    (folder / "card.json").write_text(json.dumps(content, indent=1) + "\n")


def page() -> str:
    """The beginning of the README.md that `write_readme` writes."""
    return resources.files("l2l_gail.experts").joinpath("page.md").read_text(encoding="utf-8")


def check_readme(root: Path) -> None:
    """UserError if there is a README.md that is not one of these pages: it would be written over."""
    path = root / "README.md"
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(page().splitlines()[0]):
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
    (root / "README.md").write_text(page() + text + "\n", encoding="utf-8")


def _rule(min_return: float | None) -> str:
    if min_return is None:
        return "every episode is kept."
    return (
        f"episodes from consecutive reset seeds; those that return less than {min_return:g} are dropped, and nothing "
        "is written if they are more than half."
    )
