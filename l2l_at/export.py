"""Trained classifiers as plain files: weights (safetensors) and a card (JSON); no pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from l2l_at import datasets, models
from l2l_at.config import ATConfig
from l2l_experiment.errors import UserError
from l2l_experiment.files import make_folder, plain, write_atomically

WEIGHTS, CARD = "model.safetensors", "card.json"
BEST = "best"  # the folder, in a run's, of the classifier that is graded
OWN = "own"  # the model of a card whose classifier is no network of this package


def save(path: Path | str, model: nn.Module, config: ATConfig, **about: Any) -> None:
    """Write a classifier as `load` and `l2l-grade-at` open it. `config` says what it was trained for: data set, threat
    model, network (a module of one's own has none); `about` joins the card, as plain values."""
    folder, data = Path(path), datasets.find(config.dataset)
    moments = about.pop("moments", None) or data.normalisation
    card = {
        "model": config.model if isinstance(model, models.Normalised) else OWN,
        "dataset": config.dataset,
        "classes": data.classes,
        "moments": moments,
        "threat": {"norm": config.norm, "radius": config.threat.radius},
        "method": config.method,
        "seed": config.seed,
    }
    if card["model"] == OWN:
        card["layers"] = _layers(model)
    card = plain(card | about)
    make_folder(folder)
    # Copies, since the format refuses tensors that share their memory, as tied weights do.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(weights))
    write_card(folder, card)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    write_atomically(folder / CARD, (json.dumps(card, indent=2) + "\n").encode())


def load(path: Path | str, model: nn.Module | None = None) -> nn.Module:
    """A classifier that was saved, in evaluation mode: takes images in [0, 1], answers with logits. `path` is a folder
    with model.safetensors and card.json, or a run's folder, whose best classifier is then loaded. A module of one's own
    is passed as `model`, of the same class, and takes the weights."""
    folder, own = find(path), model is not None
    card = read_card(folder)
    if not own:
        if card["model"] not in models.NETWORKS:
            known = f"there are {', '.join(models.NETWORKS)}"
            if card["model"] == OWN:
                known = "pass a module of the same class: load(path, model)"
            raise UserError(f"{folder / CARD} names the model {card['model']!r}; {known}")
        # Cards of earlier versions do not hold the moments; they are all of data sets that come with this package.
        moments = card.get("moments") or datasets.find(card["dataset"]).normalisation
        try:
            model = models.build(card["model"], moments, card["classes"])
        except (TypeError, ValueError, RuntimeError, KeyError) as error:
            raise UserError(f"{folder / CARD} does not describe a classifier ({error}); restore the file") from error
    try:
        model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read ({error}); save the classifier again") from error
    except RuntimeError as error:
        if own:
            raise UserError(f"{folder / WEIGHTS} does not fit the module that was passed: {error}") from None
        what = f"no {card['model']} for {card['dataset']}, which {CARD} says it is"
        raise UserError(f"{folder / WEIGHTS} holds {what}: weights and card must come from one save") from error
    if own and card.get("layers") not in (None, _layers(model)):
        raise UserError(f"{folder / CARD} is of a module with other layers; pass one of the same class and layers")
    return model.eval()


def _layers(model: nn.Module) -> list[str]:
    """The classes of a module's parts: weights alone do not tell ReLU from tanh."""
    return [type(part).__name__ for part in model.modules()]


def digest(folder: Path) -> str:
    """A hash of the weights in a folder, by which a classifier is known again."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def find(path: Path | str) -> Path:
    """The folder with weights and card that `path` names."""
    path = Path(path)
    for folder in (path, path / BEST):
        if (folder / WEIGHTS).is_file() and (folder / CARD).is_file():
            return folder
    raise UserError(f"{path} holds no {WEIGHTS} with its {CARD}; name a finished run, or a folder with both")


def read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        missing = [name for name in ("model", "dataset", "classes", "threat") if name not in card]
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CARD} cannot be read ({error}); save the classifier again") from error
    if missing:
        raise UserError(f"{folder / CARD} does not say {', '.join(missing)}; save the classifier again")
    return card
