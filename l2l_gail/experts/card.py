"""Cards: what each shipped set of demonstrations is and how it was made, as JSON beside it and as one README.md."""

import json
import platform
from collections.abc import Mapping
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


def check_readme(root: Path) -> None:
    """UserError if there is a README.md that is not one of these pages: it would be written over."""
    path = root / "README.md"
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEADER.splitlines()[0]):
        raise UserError(f"{path} is not a page of demonstrations and would be written over; name another --out")


def write_readme(root: Path) -> None:
    """Rewrites root/README.md from every card below it."""
    cards = [json.loads(file.read_text()) for file in sorted(root.rglob("card.json"))]
    cards = [card for card in cards if "dataset_id" in card]  # classifiers have cards, too
    rows = "\n".join(
        f"| `{c['dataset_id']}` | {c['environment']} | {c['algorithm'].upper()} | {c['trained_steps']:,} "
        f"| {c['episodes']} | {c['return_mean']:.0f} ± {c['return_sd']:.0f} | {min(c['returns']):.0f} "
        f"| {c['episodes_dropped']} |"
        for c in cards
    )
    (root / "README.md").write_text(HEADER.format(rows=rows) + "\n".join(_section(c) for c in cards))


HEADER = """# Demonstrations

Expert episodes that ship with the project. `scripts/make_expert_data.py` trains the experts on the environment's own
reward, records them and writes this page from the `card.json` beside each data set: to change the page, run the tool
(with `--overwrite` where the set is there already).

Each folder is a data set in Minari's HDF5 layout. This project finds the set of an environment by itself; Minari opens
it by its id:

    export MINARI_DATASETS_PATH=expert_data
    python -c "import minari; print(minari.load_dataset('l2l/halfcheetah-v4-expert-v0'))"

Returns are undiscounted sums of the environment's reward over an episode: mean ± standard deviation of the sample.
They depend on the version of mujoco, so compare an imitator with them under the version given here.

| data set | environment | expert | training steps | episodes | return | lowest | dropped |
|---|---|---|---|---|---|---|---|
{rows}

"""


def _section(c: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {number}" for package, number in c["versions"].items())
    settings = ", ".join(
        f"{name} {_plain(value)}" for name, value in c["settings"].items() if name not in ("algo", "seed")
    )
    dropped = (
        f" (returns {', '.join(f'{value:.0f}' for value in c['returns_dropped'])})" if c["returns_dropped"] else ""
    )
    lengths = sorted(set(c["lengths"]))
    return f"""## {c["environment"]}

- Command: `{c["command"]}`
- Expert: {c["algorithm"].upper()}, {c["trained_steps"]:,} steps, seed {c["seed"]}. Settings: {settings}.
- Policy recorded: {c["selection"]} Actions: {c["policy"]}.
- Rule: {c["rule"]} Dropped: {c["episodes_dropped"]} of {c["episodes"] + c["episodes_dropped"]}{dropped}.
- Return: {c["return_mean"]:.1f} ± {c["return_sd"]:.1f} over {c["episodes"]} episodes of {_span(lengths)} steps, each:
  {", ".join(f"{value:.0f}" for value in c["returns"])}.
- Versions: {versions}; {c["machine"]}.
"""


def _rule(min_return: float | None) -> str:
    if min_return is None:
        return "every episode is kept."
    return (
        f"episodes from consecutive reset seeds; those that return less than {min_return:g} are dropped, and nothing "
        "is written if they are more than half."
    )


def _span(lengths: list[int]) -> str:
    return str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]}–{lengths[-1]}"


def _plain(value: Any) -> str:
    return "×".join(map(str, value)) if isinstance(value, list) else str(value)
