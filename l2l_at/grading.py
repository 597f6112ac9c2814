"""Grading: robust accuracy under attacks that are not ours, image by image, resumable, as a record."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from l2l_at import datasets, export, graders, report
from l2l_at.answers import MIN_CLASSES, Classifier, check_model, correct, images_of, labels_of
from l2l_at.attacks import evaluating, full_precision
from l2l_at.threat import Threat, parse_radius
from l2l_experiment import devices, provenance
from l2l_experiment.errors import UserError
from l2l_experiment.files import make_folder, write_atomically
from l2l_experiment.run import Run

Tier = Literal["quick", "standard"]


@dataclass
class Grade:
    """Which test images withstood which attack; `flags[attack]` is True where the image is still classified right. An
    attack of AutoAttack sees the images that withstood those before it; foolbox's PGD, the second opinion, sees all
    that are classified right. `robust` counts images that withstood everything."""

    tier: Tier
    threat: Threat
    seed: int
    count: int
    flags: dict[str, list[bool]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def attacks(self) -> tuple[str, ...]:
        return (graders.FOOLBOX, *graders.AUTOATTACK[self.tier])

    def accuracy(self, name: str) -> float:
        """Share of all images that withstood an attack (or, for `clean`, are classified right)."""
        return sum(self.flags[name]) / self.count

    def summary(self) -> dict[str, Any]:
        """The record: accuracies with what made them."""
        last = graders.AUTOATTACK[self.tier][-1]
        both = [a and b for a, b in zip(self.flags[last], self.flags[graders.FOOLBOX], strict=True)]
        return {
            "tier": self.tier,
            "n": self.count,
            "norm": self.threat.norm,
            "radius": self.threat.radius,
            "seed": self.seed,
            "clean": self.accuracy("clean"),
            "attacks": {name: self.accuracy(name) for name in self.attacks},
            "autoattack": self.accuracy(last),
            "robust": sum(both) / self.count,
            "packages": sorted({graders.package_of(name) for name in self.attacks}),
            "machine": provenance.machine(),
            "warnings": [*masking_warnings(self), *self.messages],
        }


def masking_warnings(grade: Grade) -> list[str]:
    """Warnings where the attacks' results disagree in a way that indicates gradient masking."""
    clean, ce, targeted, second = map(grade.accuracy, ("clean", "apgd-ce", "apgd-t", graders.FOOLBOX))
    found, points = [], 1 / grade.count  # one image is no disagreement
    if second < targeted - max(0.01, 2 * points):
        found.append(f"foolbox's PGD breaks more ({second:.1%} left) than AutoAttack's gradients ({targeted:.1%} left)")
    if ce - targeted > max(0.1, 1.5 * points):
        found.append(f"the targeted attack takes {100 * (ce - targeted):.1f} points more than cross-entropy does")
    if grade.tier == "standard":
        fab, square = grade.accuracy("fab-t"), grade.accuracy("square")
        if fab - square > max(0.002, 1.5 * points):
            found.append(f"Square, which sees no gradient, still breaks {100 * (fab - square):.1f} points")
        if targeted - fab > max(0.01, 2 * points):
            found.append(f"FAB still breaks {100 * (targeted - fab):.1f} points after the gradient attacks")
    if clean > 0.5 and targeted > 0.98 * clean:
        found.append("hardly any image falls: is the radius on the scale of [0, 1]?")
    return [f"possible gradient masking: {text}" for text in found]


def grade(
    model: Callable[[Tensor], Any],
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    tier: Tier = "quick",
    seed: int = 0,
    shard: int = 100,
    path: Path | str | None = None,
    classes: int | None = None,
) -> dict[str, Any]:
    """Grade a classifier that takes images in [0, 1] and answers with logits; returns the record. Images go through the
    attacks in shards; with `path`, what is done is kept there, and the same call, or one of another tier, goes on.

    `model` is a module or a function, `images` are floats of shape (n, channels, height, width), `labels` integers of
    shape (n,) or one-hot rows, as tensors or arrays. An answer that is NaN or infinite is wrong, whatever its label;
    warnings tell. UserError for input that no attack could make sense of, or for an attack that fails."""
    if tier not in get_args(Tier):
        raise UserError(f"the tier must be one of {', '.join(get_args(Tier))}, got {tier!r}")
    if not isinstance(threat, Threat):
        raise UserError(f"the threat must be a Threat such as Threat('linf', 8 / 255), got {threat!r}")
    if shard < 1:
        raise UserError(f"a shard has at least 1 image, got {shard}")
    if path is not None and (path := Path(path)).is_dir():
        raise UserError(f"{path} is a folder; name a file for the results of the shards")
    if path is not None:
        make_folder(path.parent)
    with torch.inference_mode(False), torch.enable_grad(), full_precision():  # whatever the caller's mode
        images = images_of(images)
        classifier = Classifier(model)
        with evaluating(classifier):
            classes = check_model(classifier, images[:shard], classes=classes)
            labels = labels_of(labels, len(images), classes, images.device)
            threat.check(tuple(images.shape[1:]))
            if classes < MIN_CLASSES:
                raise UserError(
                    f"AutoAttack's targeted attack needs at least {MIN_CLASSES} classes, this task has {classes}"
                )
            return _grade(classifier, images, labels, Grade(tier, threat, seed, len(labels)), shard, path)


def _grade(
    model: Classifier, images: Tensor, labels: Tensor, grade: Grade, shard: int, path: Path | None
) -> dict[str, Any]:
    threat, seed = grade.threat, grade.seed
    made_by = [graders.package_of(name) for name in (graders.FOOLBOX, *graders.AUTOATTACK["standard"])]
    made_by += [f"torch {torch.__version__}", images.device.type]
    what = {"made by": sorted(set(made_by)), "norm": threat.norm, "radius": threat.radius, "seed": seed, "shard": shard}
    what["of"] = None if path is None else fingerprint(model, images, labels, shard)
    shards = _shards(path, what)
    starts = range(0, len(labels), shard)
    with tqdm(total=len(starts) * len(grade.attacks), unit=" shards", mininterval=1.0) as bar:
        for start in starts:
            x, y = images[start : start + shard], labels[start : start + shard]
            model.nonfinite_class, model.nonfinite_count = False, 0
            with torch.no_grad():
                good = correct(model(x), y)
            if model.nonfinite_count:
                found = f"{int(model.nonfinite_count)} of {len(y)} images"
                grade.messages.append(f"the model returns NaN or infinity for {found}")
            grade.flags.setdefault("clean", []).extend(good.tolist())
            left = good
            for name in grade.attacks:
                bar.set_postfix_str(name, refresh=False)
                if (key := f"{name}/{start}") not in shards:
                    after, messages = good.clone() if name == graders.FOOLBOX else left.clone(), []
                    if (before := after.clone()).any():
                        attacked = graders.attack(name, model, x[before], y[before], threat, seed=seed + start)
                        after[before], messages = ~attacked.fooled, list(attacked.messages)
                    shards[key] = {"right": after.tolist(), "messages": messages}
                    if path is not None:
                        write_atomically(path, json.dumps({"what": what, "shards": shards}).encode())
                found = shards[key]["right"]
                left = left if name == graders.FOOLBOX else torch.tensor(found, device=left.device)
                grade.flags.setdefault(name, []).extend(found)
                grade.messages.extend(m for m in shards[key]["messages"] if m not in grade.messages)
                bar.update()
    return grade.summary()


@torch.no_grad()
def fingerprint(model: nn.Module, images: Tensor, labels: Tensor, shard: int) -> str:
    """A hash of weights, images, labels and the logits of the first shard: what is graded, so that results are never
    taken for those of another. The logits, because a function shows no weights, and a wrapper changes none."""
    digest = hashlib.sha256()
    for tensor in (*model.state_dict().values(), images, labels, model(images[:shard])):
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()


def _shards(path: Path | None, what: dict[str, Any]) -> dict[str, Any]:
    """Results of shards on disk, so that a grading that was cut off goes on; a change of what is graded starts anew."""
    try:
        found = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError):
        found = {}  # cut off or damaged: nothing is lost but time
    return found["shards"] if isinstance(found, dict) and found.get("what") == what else {}


def grade_folder(
    path: Path,
    *,
    tier: Tier = "quick",
    images: int | None = None,
    seed: int = 0,
    norm: str | None = None,
    eps: str | None = None,
    data_dir: Path | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Grade an exported classifier on its data set's test images; writes `grade_TIER.json` beside its weights."""
    folder = export.find(path)
    card = export.read_card(folder)
    trained = Threat(card["threat"]["norm"], card["threat"]["radius"])
    if norm not in (None, trained.norm) and eps is None:
        raise UserError(f"--norm {norm} needs --eps: a radius in {trained.norm} means something else in {norm}")
    data = datasets.find(card["dataset"])
    threat = Threat(norm or trained.norm, trained.radius if eps is None else parse_radius(eps, data.deviation))
    device = device or devices.resolve("auto", auto="cuda")
    graded, model = export.digest(folder), export.load(folder).to(device)
    x, y = data.read(data_dir)[1].subset(slice(0, images)).to(device).take(slice(None))
    where = f"{threat.norm}_{threat.radius:.6g}_{len(y)}_{seed}"
    shard = 100 if device.type == "cpu" and x[0].numel() > 1000 else 500
    progress = folder / f".grading_{where}.json"
    record = grade(model, x, y, threat, tier=tier, seed=seed, shard=shard, path=progress, classes=card["classes"])
    if export.digest(folder) != graded:
        raise UserError(f"the classifier in {folder} was replaced while it was graded; grade it when training is done")
    write_atomically(folder / f"grade_{tier}_{where}.json", (json.dumps(record, indent=2) + "\n").encode())
    card = export.read_card(folder)  # anew: another grading may have ended meanwhile
    if threat == trained and supersedes(record, card.get("grade")):
        export.write_card(folder, card | {"grade": record})
    print(report.of_grade(record, folder))
    return record


def supersedes(grade: dict[str, Any], other: dict[str, Any] | None) -> bool:
    """Whether a grade is of more images than another, or of as many and a higher tier, whatever seed and outcome."""
    one, two = ((record["n"], record["tier"] == "standard") for record in (grade, other or grade))
    return other is None or one > two


def save_grade(run: Run, grade: dict[str, Any]) -> None:
    """Put a grade into a run's record if it says more than the one that stands there."""
    result = run.record.get("result", {})
    if supersedes(grade, result.get("grade")):
        run.update(result=result | {"grade": grade})
