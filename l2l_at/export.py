"""Trained classifiers as plain files: weights (safetensors) and a card (JSON); no pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from l2l_at import datasets, models
from l2l_experiment.errors import UserError
from l2l_experiment.files import write_atomically

WEIGHTS, CARD = "model.safetensors", "card.json"


def save(folder: Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Write a classifier and its card; the card must name `model`, `dataset`, `classes` and `threat`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(weights))
    write_card(folder, card)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    write_atomically(folder / CARD, (json.dumps(card, indent=2) + "\n").encode())


def load(path: Path | str) -> nn.Module:
    """A classifier that was exported, in evaluation mode: takes images in [0, 1], answers with logits. `path` is a
    folder with model.safetensors and card.json, or a run's folder, whose best classifier is then loaded."""
    folder = find(path)
    card = read_card(folder)
    # Cards of earlier versions do not hold the moments; they are all of data sets that come with this package.
    moments = card.get("moments") or datasets.find(card["dataset"]).normalisation
    if card["model"] not in models.NETWORKS:
        raise UserError(f"{folder / CARD} names the model {card['model']!r}; there are {', '.join(models.NETWORKS)}")
    model = models.build(card["model"], moments, card["classes"])
    try:
        model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read ({error}); export the classifier again") from error
    except RuntimeError as error:
        what = f"no {card['model']} for {card['dataset']}, which {CARD} says it is"
        raise UserError(f"{folder / WEIGHTS} holds {what}: weights and card must come from one export") from error
    return model.eval()


def digest(folder: Path) -> str:
    """A hash of the weights in a folder, by which a classifier is known again."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def find(path: Path | str) -> Path:
    """The folder with weights and card that `path` names."""
    path = Path(path)
    for folder in (path, path / "best"):
        if (folder / WEIGHTS).is_file() and (folder / CARD).is_file():
            return folder
    raise UserError(f"{path} holds no {WEIGHTS} with its {CARD}; name a finished run, or a folder with both")


def read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        missing = [name for name in ("model", "dataset", "classes", "threat") if name not in card]
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CARD} cannot be read ({error}); export the classifier again") from error
    if missing:
        raise UserError(f"{folder / CARD} does not say {', '.join(missing)}; export the classifier again")
    return card
