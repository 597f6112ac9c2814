"""What is measured while training goes on; cheap, by our own attacks, and never a reported robustness."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from l2l_at import attacks
from l2l_at.attacks import accuracy, evaluating
from l2l_at.batches import Batch
from l2l_at.datasets import Images
from l2l_at.methods import Follower
from l2l_at.threat import Threat

CHUNK = 1000  # images at a time


def robust_accuracy(model: nn.Module, images: Images, threat: Threat) -> dict[str, float]:
    """Clean and PGD-10 accuracy on a set, in evaluation mode; the random generators are left as they were."""
    clean, robust = 0.0, 0.0
    with evaluating(model), _forked_rng(images.labels.device):
        for start in range(0, len(images), CHUNK):
            x, y = images.take(slice(start, start + CHUNK))
            delta = attacks.pgd(model, x, y, threat)
            clean += accuracy(model, x, y) * len(y)
            robust += accuracy(model, x + delta, y) * len(y)
    return {"clean": clean / len(images), "pgd10": robust / len(images)}


def attack_metrics(model: nn.Module, follower: Follower, batch: Batch) -> dict[str, float]:
    """The training attack beside PGD-10 and a plain sign step, on fixed training images, in evaluation mode.

    `strength` is the loss under the training attack over the loss under PGD-10; `gain` is the same of what the attacks
    add to the clean loss, 0 for an attack that does nothing and 1 for one as strong as PGD-10. `norm` is the
    perturbations' mean norm over the radius."""
    threat, images, labels = follower.threat, batch.images, batch.labels
    with evaluating(model), _forked_rng(images.device):
        own = follower.perturb(model, batch)
        pgd = attacks.pgd(model, images, labels, threat)
        loss, zero = attacks.minus_loss(model, images, labels), torch.zeros_like(images)
        sign = attacks.descend(loss, zero, images, threat, steps=1, size=1.0)
        with torch.no_grad():
            clean, reached, reference = (float(cross_entropy(model(images + d), labels)) for d in (0 * own, own, pgd))
        figures = {
            "robust/train_fgsm": accuracy(model, images + sign, labels),
            "robust/train_pgd10": accuracy(model, images + pgd, labels),
        }
        if own.count_nonzero():
            figures |= {
                "train_attacker/strength": reached / reference if reference > 0 else float("nan"),
                "train_attacker/gain": (reached - clean) / (reference - clean) if reference > clean else float("nan"),
                "train_attacker/norm": float(threat.size(own).mean()) / threat.radius,
            }
    return figures


def example_images(images: Tensor, delta: Tensor, radius: float, count: int = 8) -> dict[str, Tensor]:
    """Rows of `count` images by name: clean, perturbation (grey is none), perturbed; each of shape (channels, height,
    count · width)."""
    clean, noise = images[:count].float().cpu(), delta[:count].float().cpu()
    rows = {"clean": clean, "perturbation": 0.5 + noise / (2 * radius), "perturbed": clean + noise}
    return {name: torch.cat(list(row), dim=2).clamp(0, 1) for name, row in rows.items()}


def _forked_rng(device: torch.device):
    """Draws inside change nothing outside: how often one measures must not change the training."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
