"""The alarm for catastrophic overfitting."""

from dataclasses import dataclass


@dataclass
class CollapseAlarm:
    """Detects catastrophic overfitting: robust to FGSM but not to PGD-10, on training images. Raised if PGD-10 accuracy
    is more than `gap` below FGSM accuracy and also either less than half of it or more than `drop` below its best so
    far (the drop at which Wong et al., 2020, stop). A drop of both accuracies does not count: early epochs fluctuate
    like that, with PGD-10 training too. The alarm stays on until PGD-10 accuracy is back within `drop` of its best: a
    collapsed model that then loses its FGSM accuracy as well has not recovered."""

    best: float = 0.0
    raised: bool = False
    drop: float = 0.2
    gap: float = 0.2

    def __call__(self, figures: dict[str, float]) -> bool:
        """Whether the figures of `probe.attack_metrics`, after those of all earlier calls, show a collapse."""
        one, ten = figures["robust/train_fgsm"], figures["robust/train_pgd10"]
        self.best = max(self.best, ten)
        lost = self.best - ten > self.drop
        illusion = one - ten > self.gap and (ten < one / 2 or lost)
        self.raised = illusion or (self.raised and lost)
        return self.raised


def alarm_message(epoch: float, figures: dict[str, float]) -> str:
    """What is said when the alarm is first raised."""
    one, ten = figures["robust/train_fgsm"], figures["robust/train_pgd10"]
    return (
        f"ALARM: catastrophic overfitting at epoch {epoch:.0f}: on training images the classifier withstands one step "
        f"({one:.0%}) but not ten ({ten:.0%}). Its robustness is an illusion; try more steps, a smaller radius or "
        "another method."
    )
